"""What Dense and the convolutions share: backward kernel, alignment loss, saving."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from neural_alignment import alignments
from neural_alignment.layers.operations import Linear, after, two_kernels


@dataclasses.dataclass
class TrainingStep:
    """One training step as the layers see it.

    Args:
        global_step: int scalar tensor, for schedules and noise.
        seed: of the run.
        draw: number of the micro-batch in the step, so that each draws noise of its own.
        losses: (layer path, R) of every layer called so far in this step.
    """

    global_step: tf.Tensor
    seed: int
    draw: tf.Tensor | int = 0
    losses: list[tuple[str, tf.Tensor]] = dataclasses.field(default_factory=list)


# Thread-local: MirroredStrategy runs each replica's step in a thread of its own.
_active = threading.local()


@contextlib.contextmanager
def training_step(
    global_step: tf.Tensor | int, seed: int = 0, draw: tf.Tensor | int = 0
) -> Iterator[TrainingStep]:
    """Collects the alignment losses of the layers called inside, apart from `model.losses`.

    Inside it coefficients see `global_step`, and noise depends on seed, layer, replica, step and
    draw alone, so that a resumed run repeats it.

    Args:
        global_step: number of the step, from 0.
        seed: of the run.
        draw: number of the micro-batch in the step.

    Yields:
        A `TrainingStep` whose `losses` fills as layers are called with `training=True`.
    """
    previous = getattr(_active, "step", None)
    _active.step = TrainingStep(tf.convert_to_tensor(global_step), seed, draw)
    try:
        yield _active.step
    finally:
        _active.step = previous


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer, for measurements.

    Args:
        layer: that was called.
        inputs: x.
        projection: `x W`, before bias and activation.
    """

    layer: Aligned
    inputs: tf.Tensor
    projection: tf.Tensor


@contextlib.contextmanager
def probe() -> Iterator[list[Call]]:
    """Records the calls of layers with an alignment, to measure what flows through them.

    Yields:
        A list of `Call` that fills as layers are called.
    """
    previous = getattr(_active, "calls", None)
    _active.calls = []
    try:
        yield _active.calls
    finally:
        _active.calls = previous


def _hash(*parts: Any) -> int:
    """A number in [0, 2^31) that is the same in every process."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFFFFFF


def _independent(initializer: Any, salt: str) -> Any:
    """The initializer with another seed: one instance gives the same values at every call."""
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer
    config = initializer.get_config()
    if config.get("seed", 0) is None:
        return type(initializer).from_config(config)
    if isinstance(config.get("seed"), int):
        return type(initializer).from_config({**config, "seed": _hash(config["seed"], salt)})
    return initializer


def _draw_noise_state(shape: tuple[int, ...], dtype: Any = None) -> tf.Tensor:
    """A random number that tells layers apart, and a count of steps from 0."""
    # Python's generator, as Keras's initializers: `keras.utils.set_random_seed` sets it in every
    # version, Keras's own global one only in the newer.
    return tf.constant([random.randrange(2**31 - 1), 0], dtype or "int32")


def _replica() -> tf.Tensor | int:
    context = tf.distribute.get_replica_context()
    return context.replica_id_in_sync_group if context else 0


def _fold_in_replica(base: tf.Tensor | int) -> tf.Tensor:
    # A large odd factor keeps the seeds of replicas away from those of other draws.
    return tf.cast(base, "int32") + tf.cast(_replica(), "int32") * 0x3C6EF35F


class Aligned:
    """Mixin over a Keras layer with a kernel: the argument `alignment=` and what it means.

    The layer owns what the rule needs (backward kernel, factors, masks, a noise state), as
    weights made right after the kernel.
    """

    def _set_alignment(self, alignment: Any) -> None:
        self.alignment = alignments.get(alignment)
        self._rule_variables: tuple[str, ...] = ()
        self._step_source: Callable[[], Any] | None = None

    # Keras keeps a layer's losses in one list, which every replica clears when it begins. Replicas
    # that take turns in mid-model, as they do at an update of a noise state, would lose what they
    # have added, so each has lists of its own.
    @property
    def _losses(self) -> list[tf.Tensor]:
        return self._of_this_replica("losses", list)

    @_losses.setter
    def _losses(self, empty: list[tf.Tensor]) -> None:
        """Keras's constructor."""

    @property
    def _loss_ids(self) -> set[int]:
        return self._of_this_replica("loss_ids", set)

    @_loss_ids.setter
    def _loss_ids(self, empty: set[int]) -> None:
        """Keras's constructor."""

    def _of_this_replica(self, name: str, make: Callable[[], Any]) -> Any:
        replica = tf.get_static_value(tf.convert_to_tensor(_replica()))
        key = name, 0 if replica is None else int(replica)  # None: traced once for all replicas
        return self.__dict__.setdefault("_by_replica", {}).setdefault(key, make())

    def set_step_source(self, source: Callable[[], Any] | None) -> None:
        """Says where the global step comes from outside a `training_step`; None is nowhere."""
        self._step_source = source

    @abc.abstractmethod
    def linear(self) -> Linear:
        """The layer's bilinear map."""

    @abc.abstractmethod
    def _bias_for_outputs(self) -> tf.Tensor | None:
        """The bias, broadcastable to the layer's output."""

    def add_weight(self, *args: Any, name: str | None = None, **kwargs: Any) -> Any:
        if name != "kernel" or self.alignment is None:
            return super().add_weight(*args, name=name, **kwargs)
        if self.quantization_mode is not None:  # Keras then leaves out `call`, and the rule with it
            raise ValueError(
                "Expected a floating dtype policy with an alignment, such as 'mixed_bfloat16'. "
                f"Received: the quantization {self.quantization_mode!r} in layer {self.path!r}"
            )
        # R is computed in float32 whatever the layer computes in: the kernel must not autocast.
        kernel = super().add_weight(*args, name=name, autocast=False, **kwargs)
        self._add_rule_variables(tuple(kernel.shape))
        return kernel

    def _add_rule_variables(self, kernel_shape: tuple[int, ...]) -> None:
        def initializer(salt: str) -> Any:
            return _independent(self.kernel_initializer, salt)

        made = self.alignment.variables(kernel_shape, initializer)
        for name, variable in made.items():
            weight = super().add_weight(
                name=name,
                shape=variable.shape,
                initializer=variable.initializer,
                trainable=variable.trainable,
                autocast=False,
            )
            setattr(self, name, weight)
        self._rule_variables = tuple(made)
        if self.alignment.is_random:
            self.noise_state = super().add_weight(
                name="noise_state",
                shape=(2,),
                initializer=_draw_noise_state,
                dtype="int32",
                trainable=False,
                autocast=False,
                aggregation="only_first_replica",
            )
            self._rule_variables += ("noise_state",)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if self.alignment is None:
            return super().call(inputs)
        seed, variables = self._noise_seed(training), self._rule_tensors()
        forward_kernel = tf.convert_to_tensor(self.kernel)
        backward_kernel = self.alignment.backward_kernel(forward_kernel, variables, seed)
        if getattr(_active, "step", None) is None:
            inputs = after(inputs, list(variables.values()))
        projection = two_kernels(
            self.linear(),
            inputs,
            tf.cast(forward_kernel, self.compute_dtype),
            tf.cast(backward_kernel, self.compute_dtype),
            self.alignment.tie_grad,
        )
        if getattr(_active, "calls", None) is not None:
            _active.calls.append(Call(self, inputs, projection))
        if training and self.trainable and self.alignment.has_loss:
            kernels = {"forward_kernel": forward_kernel, "backward_kernel": backward_kernel}
            self._add_alignment_loss(inputs, projection, kernels, variables, seed)
        bias = self._bias_for_outputs()
        outputs = projection if bias is None else keras.ops.add(projection, bias)
        return outputs if self.activation is None else self.activation(outputs)

    def backward_kernel_value(self) -> tf.Tensor:
        """The kernel that the error goes back through, in float32; W itself for backprop.

        A rule that draws it at every step gives a draw of its own here.

        Returns:
            A tensor of the kernel's shape.
        """
        kernel = tf.convert_to_tensor(self.kernel)
        if self.alignment is not None:
            seed = self._noise_seed(training=False)
            kernel = self.alignment.backward_kernel(kernel, self._rule_tensors(), seed)
        return tf.cast(kernel, "float32")

    def _rule_tensors(self) -> dict[str, tf.Tensor]:
        return {name: tf.convert_to_tensor(getattr(self, name)) for name in self._rule_variables}

    def _noise_seed(self, training: bool | None) -> tf.Tensor | None:
        if not self.alignment.is_random:
            return None
        active = getattr(_active, "step", None)
        if active is not None:
            base = _fold_in_replica(_hash(active.seed, self.path))
            base += tf.cast(active.draw, "int32") * 0x1B873593
            return tf.stack([base, tf.cast(active.global_step, "int32")])
        state = tf.convert_to_tensor(self.noise_state)
        if training:
            self.noise_state.assign(state + tf.constant([0, 1]))
        return tf.stack([_fold_in_replica(state[0]), state[1]])

    def _add_alignment_loss(
        self,
        inputs: tf.Tensor,
        projection: tf.Tensor,
        kernels: dict[str, tf.Tensor],
        variables: dict[str, tf.Tensor],
        seed: tf.Tensor | None,
    ) -> None:
        active = getattr(_active, "step", None)
        bias = self._bias_for_outputs()
        loss = self.alignment(
            tf.cast(inputs, "float32"),
            **{name: tf.cast(kernel, "float32") for name, kernel in kernels.items()},
            linear=self.linear(),
            variables={
                name: tf.cast(value, "float32") if value.dtype.is_floating else value
                for name, value in variables.items()
            },
            bias=None if bias is None else tf.cast(bias, "float32"),
            activation=self.activation,
            forward_projection=projection if self.compute_dtype == "float32" else None,
            step=self._global_step(active),
            seed=seed,
        )
        if active is not None:
            active.losses.append((self.path, loss))
        else:
            self.add_loss(loss)

    def _global_step(self, active: TrainingStep | None) -> Any:
        if active is not None:
            return active.global_step
        return None if self._step_source is None else self._step_source()

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        if self.built:
            for name in self._rule_variables:
                store[name] = getattr(self, name)

    def load_own_variables(self, store: Any) -> None:
        super().load_own_variables(store)
        for name in self._rule_variables:
            if name not in store.keys():  # noqa: SIM118  (Keras 3.8's store has no `in`)
                raise ValueError(
                    f"Expected the weight {name!r} of layer {self.path!r} "
                    f"(rule {self.alignment.name!r}) in the file. Received: {sorted(store.keys())}"
                )
            getattr(self, name).assign(store[name])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "alignment": alignments.serialize(self.alignment)}


def aligned_layers(model: keras.Model) -> list[Aligned]:
    """Every layer of a model, nested ones too, that has an alignment.

    Args:
        model: a built Keras model.

    Returns:
        The layers in the order of the model.
    """
    return [
        layer
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, Aligned) and layer.alignment is not None
    ]
