"""Some of the outputs of a map."""

from __future__ import annotations

import dataclasses
from typing import Any

from neural_alignment.lazy import keras
from neural_alignment.maps.linear import Linear, Shape, Tensor
from neural_alignment.maps.narrow import Narrow


@dataclasses.dataclass(frozen=True)
class Units(Linear):
    """The map of some of a layer's units; its kernel is `[*window, inputs, units]`.

    Args:
        whole: the layer's map.
        kernel_shape: of the layer's kernel.
        first: unit.
        last: the unit behind the last one.
    """

    whole: Linear
    kernel_shape: Shape
    first: int
    last: int

    @property
    def shape(self) -> Shape:
        """Of the kernel of these units."""
        *inputs, _ = self.whole.outputs_last_shape(self.kernel_shape)
        return (*inputs, self.last - self.first)

    @property
    def units_axis(self) -> int | None:
        return self.whole.units_axis

    def columns(self, kernel: Tensor) -> Tensor:
        """The kernel of these units.

        Args:
            kernel: the layer's.

        Returns:
            `[*window, inputs, units]`.
        """
        return self.whole.outputs_last(kernel)[..., self.first : self.last]

    def of_outputs(self, outputs: Tensor) -> Tensor:
        """The outputs of these units.

        Args:
            outputs: the layer's, or what is broadcast to them.

        Returns:
            As the outputs, with these units alone on their axis.
        """
        axis = self.units_axis
        if axis is None or outputs.shape[axis] == 1 < self.whole.outputs(self.kernel_shape):
            return outputs
        places = [slice(None)] * len(outputs.shape)
        places[axis] = slice(self.first, self.last)
        return outputs[tuple(places)]

    def apply(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        if self.whole.output_axis(inputs, self.kernel_shape) is not None:
            return self.whole.apply(inputs, self.whole.from_outputs_last(kernel, self.shape))
        # Units that see inputs of their own: as the layer's, all others at 0.
        after = self.whole.outputs(self.kernel_shape) - self.last
        around = [*[(0, 0)] * (len(kernel.shape) - 1), (self.first, after)]
        padded = self.whole.from_outputs_last(keras.ops.pad(kernel, around), self.kernel_shape)
        return self.of_outputs(self.whole.apply(inputs, padded))

    def output_axis(self, inputs: Tensor, kernel_shape: Shape) -> int | None:
        return self.whole.output_axis(inputs, self.kernel_shape)

    def fan_out(self, kernel_shape: Shape) -> int:
        return self.whole.fan_out(self.kernel_shape)

    def positions(self, inputs: Tensor, outputs: Tensor, kernel_shape: Shape) -> Any:
        whole = self.whole.linear if isinstance(self.whole, Narrow) else self.whole
        if type(whole).positions is Linear.positions:
            return super().positions(inputs, outputs, self.shape)
        return whole.positions(inputs, outputs, self.kernel_shape)

    def mask_of_outputs(self, mask: Tensor | None) -> Tensor | None:
        return self.whole.mask_of_outputs(mask)
