"""Layers that send the error from the output of a model straight to points inside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from neural_alignment import alignments, backend
from neural_alignment.alignments.initializers import FixedFraction, Masked
from neural_alignment.layers.collector import active_taps, is_backpropagation

Tensor = Any


@keras.saving.register_keras_serializable(package="neural_alignment")
class StopError(keras.layers.Layer):
    """An identity that no error goes back through.

    Args:
        frozen: in a model under the rule "frozen", the numbers of the weights that it keeps from
            training, by the names of their layers, for who takes the rule off.
        **kwargs: of every Keras layer.
    """

    def __init__(self, frozen: Mapping[str, Sequence[int]] | None = None, **kwargs: Any) -> None:
        super().__init__(**{"autocast": False, **kwargs})
        self.frozen = dict(frozen or {})
        self.supports_masking = True

    def call(self, inputs: Tensor) -> Tensor:
        taps = active_taps()
        inputs = inputs if taps is None else taps.stop(inputs)
        return inputs if is_backpropagation() else ops.stop_gradient(inputs)

    def compute_output_spec(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor(inputs.shape, inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        frozen = {name: list(numbers) for name, numbers in self.frozen.items()}
        return {**super().get_config(), **({"frozen": frozen} if frozen else {})}


@keras.saving.register_keras_serializable(package="neural_alignment")
class DirectFeedback(keras.layers.Layer):
    """An identity on the logits that hands their error to points inside the model.

    With e the error at the logits, the error of point l is `e B_l`, B_l fixed and random
    `[classes, features]`, beside whatever error comes to the point on other ways. `align` puts it
    into a Sequential or functional model; in a model of one's own:

        def call(self, x):
            h = self.dense0(x)
            logits = self.dense1(self.stop(h))  # StopError: no error from dense1 to h
            return self.feedback([logits, h])

    Args:
        alignment: the rule "direct", its config, an `alignments.Direct`: projection, density and
            scale of B.
        points: a name for each point, by which its weights are called; None counts them.
        channel_axes: of each point, -1 or 1; None is -1 for all.
        **kwargs: of every Keras layer.

    Raises:
        ValueError: another rule; inputs that are no list of logits and points; a shape that the
            projection cannot serve.
    """

    def __init__(
        self,
        alignment: Any = "direct",
        points: Sequence[str] | None = None,
        channel_axes: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"autocast": False, **kwargs})
        self.alignment: Any = alignments.get(alignment)
        if not isinstance(self.alignment, alignments.Direct):
            raise ValueError(f"Expected the rule 'direct'. Received: {alignment!r}")
        self.points = None if points is None else tuple(points)
        self.channel_axes = None if channel_axes is None else tuple(channel_axes)

    def build(self, input_shape: Any) -> None:
        several = all(isinstance(shape, (list, tuple)) for shape in input_shape)
        shapes = [tuple(shape) for shape in (input_shape if several else [input_shape])]
        if len(shapes) < 2:
            raise ValueError(
                "Expected a list of the logits and at least one point inside the model. "
                f"Received: {len(shapes)} tensor(s), {shapes}"
            )
        logits, *points = shapes
        names = self.names_of(len(points))
        axes = self.channel_axes or (-1,) * len(points)
        if not len(names) == len(axes) == len(points):
            raise ValueError(
                f"Expected a name and a channel axis for each of {len(points)} points. "
                f"Received: {self.points}, {self.channel_axes}"
            )
        self._axes = axes
        self.feedback_kernels = [
            self._feedback_kernel(name, logits, shape, axis)
            for name, shape, axis in zip(names, points, axes, strict=True)
        ]

    def names_of(self, count: int) -> tuple[str, ...]:
        """The names of so many points."""
        return self.points or tuple(f"point{i}" for i in range(count))

    def _feedback_kernel(
        self, name: str, logits: tuple[Any, ...], shape: tuple[Any, ...], axis: int
    ) -> Any:
        rule = self.alignment
        full = rule.projection == "full"
        if len(logits) > 2 and (full or axis != -1 or shape[1:-1] != logits[1:-1]):
            raise ValueError(
                "Expected logits [batch, classes], or projection='channels' and points at the "
                f"places [batch, ...] of the logits. Received: logits {logits}, point {name!r} "
                f"{shape}, projection={rule.projection!r}"
            )
        features = math.prod(shape[1:]) if full and None not in shape[1:] else shape[axis]
        if features is None or logits[-1] is None or (full and None in shape[1:]):
            wanted = "features" if full else "channels"
            raise ValueError(
                f"Expected a known number of classes and of {wanted} at every point. "
                f"Received: logits {logits}, point {name!r} {shape}"
            )
        scaled = keras.initializers.VarianceScaling(  # Glorot's, times the rule's scale
            rule.initial_scale**2, mode="fan_avg", distribution="uniform"
        )
        return self.add_weight(
            name=f"backward_{name}",
            shape=(logits[-1], features),
            initializer=Masked(scaled, FixedFraction(rule.density)),
            trainable=False,
            autocast=False,
        )

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        logits, *points = inputs
        if is_backpropagation():
            return logits
        if (taps := active_taps()) is not None:
            names = self.names_of(len(points))
            named = zip(names, points, strict=True)
            points = [taps.point(name, point, self) for name, point in named]
        # Nothing trains the kernels; a custom gradient on JAX must not close over what might be.
        kernels = [ops.stop_gradient(backend.read(b)) for b in self.feedback_kernels]

        def hand(logits: Tensor, *points: Tensor) -> tuple[Tensor, Any]:
            def gradient(*args: Any, upstream: Tensor | None = None) -> tuple[Tensor, ...]:
                error = args[0] if upstream is None else upstream
                return error, *(
                    self._project(error, kernel, point, axis)
                    for kernel, point, axis in zip(kernels, points, self._axes, strict=True)
                )

            return ops.add(logits, 0), gradient

        return ops.custom_gradient(hand)(logits, *points)

    def _project(self, error: Tensor, kernel: Tensor, point: Tensor, axis: int) -> Tensor:
        sent = ops.matmul(ops.cast(error, kernel.dtype), kernel)
        shape = ops.shape(point)
        if self.alignment.projection == "full":
            sent = ops.reshape(sent, shape)
        elif len(error.shape) == 2 and len(shape) > 2:
            places = [1] * len(shape)
            places[0], places[axis] = -1, shape[axis]
            sent = ops.broadcast_to(ops.reshape(sent, places), shape)
        return ops.cast(sent, point.dtype)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return mask[0] if isinstance(mask, (list, tuple)) else None

    def compute_output_spec(self, inputs: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
        return keras.KerasTensor(inputs[0].shape, inputs[0].dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "alignment": alignments.serialize(self.alignment),
            "points": self.points,
            "channel_axes": self.channel_axes,
        }
