"""A map whose products are taken in the type that a layer computes in."""

from __future__ import annotations

import dataclasses
from typing import Any

from neural_alignment.lazy import keras
from neural_alignment.maps.linear import Linear, Shape, Tensor


@dataclasses.dataclass(frozen=True)
class Narrow(Linear):
    """A map whose operands are rounded to a narrower type before they are multiplied.

    `y = round(x) round(K)`, and so with both transposes and with their gradients. Results are of
    the operands' own type again; each has the relative error of three roundings, `3 * 2^-9` in
    bfloat16, of its largest terms.

    Args:
        linear: the map.
        dtype: of the operands, such as "bfloat16".
    """

    linear: Linear
    dtype: str

    def _round(self, *tensors: Tensor) -> list[Tensor]:
        return [keras.ops.cast(tensor, self.dtype) for tensor in tensors]

    def apply(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        return keras.ops.cast(self.linear.apply(*self._round(inputs, kernel)), inputs.dtype)

    def input_gradient(self, inputs: Tensor, kernel: Tensor, upstream: Tensor) -> Tensor:
        made = self.linear.input_gradient(*self._round(inputs, kernel, upstream))
        return keras.ops.cast(made, inputs.dtype)

    def kernel_gradient(self, inputs: Tensor, kernel: Tensor, upstream: Tensor) -> Tensor:
        made = self.linear.kernel_gradient(*self._round(inputs, kernel, upstream))
        return keras.ops.cast(made, kernel.dtype)

    def outputs_last(self, kernel: Tensor) -> Tensor:
        return self.linear.outputs_last(kernel)

    def from_outputs_last(self, turned: Tensor, kernel_shape: Shape) -> Tensor:
        return self.linear.from_outputs_last(turned, kernel_shape)

    def outputs_last_shape(self, kernel_shape: Shape) -> Shape:
        return self.linear.outputs_last_shape(kernel_shape)

    @property
    def units_axis(self) -> int | None:
        return self.linear.units_axis

    def fan_in(self, kernel_shape: Shape) -> int:
        return self.linear.fan_in(kernel_shape)

    def fan_out(self, kernel_shape: Shape) -> int:
        return self.linear.fan_out(kernel_shape)

    def output_axis(self, inputs: Tensor, kernel_shape: Shape) -> int | None:
        return self.linear.output_axis(inputs, kernel_shape)

    def positions(self, inputs: Tensor, outputs: Tensor, kernel_shape: Shape) -> Any:
        return self.linear.positions(inputs, outputs, kernel_shape)

    def mask_of_outputs(self, mask: Tensor | None) -> Tensor | None:
        return self.linear.mask_of_outputs(mask)
