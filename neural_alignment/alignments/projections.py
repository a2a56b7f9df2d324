"""What a layer-wise loss is made of: input, projections and reconstructions ([K] A.3).

    input  ->  backward input  ->  f = x W, b = x' B  ->  (+ bias, activation)
           ->  reconstructions f B^T, b W^T  ->  centred and normalised outputs

Each is made when first asked for, so a rule pays for what it uses only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

from neural_alignment import noise
from neural_alignment.alignments import primitives
from neural_alignment.alignments.options import ProjectionOptions
from neural_alignment.lazy import keras
from neural_alignment.maps import Linear

Tensor = Any

_L2_EPSILON = 1e-12


def _feature_axes(x: Tensor) -> tuple[int, ...]:
    return tuple(range(1, len(x.shape)))


def _weights(x: Tensor, mask: Tensor | None) -> Tensor | None:
    """1 where x counts, 0 where the mask leaves it out, broadcastable to x; None: all counts."""
    if mask is None:
        return None
    shape = tuple(keras.ops.shape(mask)) + (1,) * (len(x.shape) - len(mask.shape))
    return keras.ops.cast(keras.ops.reshape(mask, shape), x.dtype)


def _mean(x: Tensor, axes: tuple[int, ...], weights: Tensor | None) -> Tensor:
    ops = keras.ops
    if weights is None:
        return ops.mean(x, axis=axes, keepdims=True)
    weights = ops.broadcast_to(weights, ops.shape(x))
    total = ops.sum(weights, axis=axes, keepdims=True)
    return ops.sum(x * weights, axis=axes, keepdims=True) / ops.maximum(total, 1.0)


def _kept(x: Tensor, weights: Tensor | None) -> Tensor:
    return x if weights is None else x * weights


def keep(x: Tensor, mask: Tensor | None) -> Tensor:
    """Takes 0 for what a mask leaves out.

    Args:
        x: `[batch, ...]`.
        mask: bool, x's leading axes; None: all counts.

    Returns:
        A tensor of x's shape.
    """
    return _kept(x, _weights(x, mask))


def center(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Subtracts each example's mean over all its features.

    Args:
        x: `[batch, ...]`.
        mask: bool, x's leading axes; where False, x does not count and the result is 0.

    Returns:
        A tensor of x's shape.
    """
    weights = _weights(x, mask)
    return _kept(x - _mean(x, _feature_axes(x), weights), weights)


def normalize(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Centres each example and divides it by its L2 norm: `c * rsqrt(max(sum c^2, 1e-12))`.

    Args:
        x: `[batch, ...]`.
        mask: bool, x's leading axes; where False, x does not count and the result is 0.

    Returns:
        A tensor of x's shape.
    """
    ops = keras.ops
    centered = center(x, mask)
    square = ops.sum(ops.square(centered), axis=_feature_axes(x), keepdims=True)
    return centered * ops.rsqrt(ops.maximum(square, _L2_EPSILON))


def batch_center(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Subtracts each feature's mean over the batch.

    Args:
        x: `[batch, ...]`.
        mask: bool, x's leading axes; where False, x does not count and the result is 0.

    Returns:
        A tensor of x's shape.
    """
    weights = _weights(x, mask)
    return _kept(x - _mean(x, (0,), weights), weights)


def _standardize(
    x: Tensor, mask: Tensor | None, centered: bool, normalized: bool, batch_centered: bool
) -> Tensor:
    if normalized:
        x = normalize(x, mask)
    elif centered:
        x = center(x, mask)
    return batch_center(x, mask) if batch_centered else x


class Projections:
    """Input, projections and reconstructions of one layer for one batch.

    The caller has isolated the tensors already: gradients of what is made here reach the two
    kernels it was given and nothing else.

    Args:
        options: the rule's projection options.
        linear: the layer's map.
        inputs: the layer's input, `[batch, ...]`, float32.
        forward_kernel: W.
        backward_kernel: B, W's shape, or a function that makes it when it is first asked for.
        bias: broadcastable to the output, or None.
        activation: of the layer; None is linear.
        forward_projection: `x W` of the layer's own input where it is known already, else None.
        seed: int32 `[2]`, for a noise input.
        mask: bool, the leading axes of inputs (`[batch, time]`); where False, nothing counts.
    """

    def __init__(
        self,
        options: ProjectionOptions,
        *,
        linear: Linear,
        inputs: Tensor,
        forward_kernel: Tensor,
        backward_kernel: Tensor | Callable[[], Tensor],
        bias: Tensor | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
        forward_projection: Tensor | None = None,
        seed: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> None:
        self.options = options
        self.linear = linear
        self.forward_kernel = forward_kernel
        self._backward_kernel = backward_kernel
        self._inputs = inputs
        self._bias = bias
        self._known_projection = forward_projection
        self._seed = seed
        self._mask = mask
        self._output_mask = linear.mask_of_outputs(mask)
        if options.activation_fn_override is not None:
            activation = keras.activations.get(options.activation_fn_override)
        self._activation = activation

    @cached_property
    def backward_kernel(self) -> Tensor:
        """B."""
        given = self._backward_kernel
        return given() if callable(given) else given

    @cached_property
    def input(self) -> Tensor:
        """The layer's input, or noise in its place; centred or normalised."""
        x, options = self._inputs, self.options
        if options.input_distribution is not None:
            x = self._noise(x)
        x = keep(x, self._mask)
        return _standardize(x, self._mask, options.center_input, options.normalize_input, False)

    def _noise(self, x: Tensor) -> Tensor:
        if self._seed is None:
            raise ValueError(
                f"Expected a seed for input_distribution={self.options.input_distribution!r}. "
                "Received: seed=None. Pass an int32 tensor [2] that is new at every step."
            )
        shape, stddev = keras.ops.shape(x), self.options.input_stddev
        if self.options.input_distribution == "normal":
            drawn = stddev * noise.normal(shape, self._seed)
        else:
            bound = math.sqrt(12.0 * stddev**2) / 2.0
            drawn = bound * (2.0 * noise.uniform(shape, self._seed) - 1.0)
        return keras.ops.cast(drawn, x.dtype)

    @cached_property
    def backward_input(self) -> Tensor:
        """The input of the backward path: the input, minus its batch mean where asked."""
        if self.options.batch_center_backward_input:
            return batch_center(self.input, self._mask)
        return self.input

    @cached_property
    def _product(self) -> Tensor:
        options = self.options
        own_input = not (
            options.input_distribution or options.center_input or options.normalize_input
        )
        if self._known_projection is not None and own_input:
            return self._known_projection
        return self.linear.apply(self.input, self.forward_kernel)

    @cached_property
    def _forward(self) -> Tensor:
        return self._activate_forward(self._product)

    def _activate_forward(self, product: Tensor) -> Tensor:
        options = self.options
        return self._activate(product, options.use_bias_forward, options.activation_forward)

    @cached_property
    def _backward(self) -> Tensor:
        options = self.options
        projection = self.linear.apply(self.backward_input, self.backward_kernel)
        return self._activate(projection, options.use_bias_backward, options.activation_backward)

    def _activate(self, projection: Tensor, biased: bool, activated: bool) -> Tensor:
        if biased and self._bias is not None:
            projection = projection + self._bias
        if activated and self._activation is not None:
            projection = self._activation(projection)
        return keep(projection, self._output_mask)

    def _standardize_forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        options = self.options
        return _standardize(
            x,
            mask,
            options.center_forward_output,
            options.normalize_forward_output,
            options.batch_center_forward_output,
        )

    def _standardize_backward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        options = self.options
        return _standardize(
            x, mask, options.center_backward_output, options.normalize_backward_output, False
        )

    @cached_property
    def forward_projection(self) -> Tensor:
        """`f`: the input through W, with bias, activation and standardisation where asked."""
        return self._standardize_forward(self._forward, self._output_mask)

    @cached_property
    def backward_projection(self) -> Tensor:
        """`b`: the backward input through B, the same."""
        return self._standardize_backward(self._backward, self._output_mask)

    @cached_property
    def forward_reconstruction(self) -> Tensor:
        """`B f`: the activated forward projection sent back through B, then standardised."""
        return self._standardize_forward(
            self.linear.input_gradient(self.input, self.backward_kernel, self._forward),
            self._mask,
        )

    @cached_property
    def backward_reconstruction(self) -> Tensor:
        """`W b`: the activated backward projection sent back through W, then standardised."""
        return self._standardize_backward(
            self.linear.input_gradient(self.input, self.forward_kernel, self._backward),
            self._mask,
        )

    @property
    def positions(self) -> Tensor:
        """How many pairs of positions one weight connects, an example's mean."""
        count = self.linear.positions(
            self.input, self.forward_projection, tuple(self.forward_kernel.shape)
        )
        if self._output_mask is None:
            return keras.ops.cast(count, "float32")
        kept = keras.ops.cast(self._output_mask, "float32")
        # Of no example, as on a replica that gets none of a short batch's, there is no mean.
        size = keras.ops.maximum(keras.ops.cast(keras.ops.size(kept), "float32"), 1.0)
        return keras.ops.cast(count, "float32") * keras.ops.sum(kept) / size

    @property
    def _backward_is_linear(self) -> bool:
        options = self.options
        return not (
            (options.activation_backward and self._activation not in (None, _linear()))
            or options.center_backward_output
            or options.normalize_backward_output
        )

    @property
    def _backward_bias(self) -> Tensor | None:
        return self._bias if self.options.use_bias_backward else None

    def amp(self) -> Tensor:
        """`-sum mean_b(f * b)` by the cheapest of three equal forms.

        Where the backward path is linear, amp is bilinear in the input and B, and the projection
        `x B` need not be made:

            <f, x B>  =  <x, f B^T>  =  <B, x^T f>

        The middle form serves where the reconstruction `f B^T` is there already, the last where
        it is not: its gradient for B is `x^T f`, made anyway.

        Returns:
            A scalar.
        """
        made = vars(self)
        if "backward_projection" in made or not self._backward_is_linear:
            return primitives.amp(self.forward_projection, self.backward_projection)
        ops, options = keras.ops, self.options
        f = self.forward_projection
        adjoint_holds = not (options.center_forward_output or options.normalize_forward_output)
        if "forward_reconstruction" in made and adjoint_holds:
            value = primitives.amp(self.backward_input, self.forward_reconstruction)
        else:
            correlation = self.linear.kernel_gradient(
                self.backward_input, self.backward_kernel, f / primitives.batch_size(f)
            )
            value = -ops.sum(self.backward_kernel * correlation)
        if self._backward_bias is not None:
            value = value + primitives.amp(f, self._backward_bias)
        return value


def _linear() -> Callable[[Tensor], Tensor]:
    return keras.activations.linear
