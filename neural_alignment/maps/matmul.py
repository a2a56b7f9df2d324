"""A matrix product over the last axis."""

from __future__ import annotations

import dataclasses

from neural_alignment.lazy import keras
from neural_alignment.maps.linear import Linear, Shape, Tensor


@dataclasses.dataclass(frozen=True)
class Matmul(Linear):
    """`y = x K` over the last axis of x: x `[..., in]`, K `[in, units]`."""

    def apply(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        if len(inputs.shape) == 2:
            return keras.ops.matmul(inputs, kernel)
        return keras.ops.tensordot(inputs, kernel, axes=1)

    @property
    def units_axis(self) -> int:
        return -1

    def output_axis(self, inputs: Tensor, kernel_shape: Shape) -> int:
        return self.units_axis

    def mask_of_outputs(self, mask: Tensor | None) -> Tensor | None:
        return mask
