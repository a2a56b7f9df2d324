"""A sum of products by Einstein's convention."""

from __future__ import annotations

import dataclasses
import math

from neural_alignment.lazy import keras
from neural_alignment.maps.linear import Linear, Shape, Tensor


@dataclasses.dataclass(frozen=True)
class Einsum(Linear):
    """`y = einsum(equation, x, K)`.

    An axis of K that y has too is an output's, any other an input's. (An axis that x has as well
    counts the groups of a grouped map, as the groups of a convolution do.)

    Args:
        equation: "inputs,kernel->outputs", such as "abc,cde->abde", with or without an ellipsis.
    """

    equation: str

    @property
    def _parts(self) -> tuple[str, str, str]:
        inputs, rest = self.equation.replace(" ", "").split(",")
        kernel, outputs = rest.split("->")
        return inputs, kernel, outputs

    @property
    def _axes(self) -> tuple[list[int], list[int]]:
        """The kernel's axes: those of inputs, those of outputs."""
        _, kernel, outputs = self._parts
        is_output = [letter in outputs for letter in kernel]
        return (
            [i for i, is_out in enumerate(is_output) if not is_out],
            [i for i, is_out in enumerate(is_output) if is_out],
        )

    def apply(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        return keras.ops.einsum(self.equation, inputs, kernel)

    def outputs_last(self, kernel: Tensor) -> Tensor:
        inputs, outputs = self._axes
        turned = keras.ops.transpose(kernel, (*inputs, *outputs))
        return keras.ops.reshape(turned, self.outputs_last_shape(tuple(kernel.shape)))

    def from_outputs_last(self, turned: Tensor, kernel_shape: Shape) -> Tensor:
        order = [axis for axes in self._axes for axis in axes]
        apart = keras.ops.reshape(turned, [kernel_shape[axis] for axis in order])
        return keras.ops.transpose(apart, [order.index(axis) for axis in range(len(order))])

    def outputs_last_shape(self, kernel_shape: Shape) -> Shape:
        return tuple(math.prod(kernel_shape[axis] for axis in axes) for axes in self._axes)

    def mask_of_outputs(self, mask: Tensor | None) -> Tensor | None:
        if mask is None:
            return None
        inputs, _, outputs = self._parts
        leading = len(mask.shape)
        # Behind an ellipsis the first axes are those of both.
        same = inputs.startswith("...") and outputs.startswith("...")
        return mask if same or inputs[:leading] == outputs[:leading] else None
