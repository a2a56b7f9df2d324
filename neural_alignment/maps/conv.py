"""Convolutions: plain and grouped, depthwise, transposed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from neural_alignment.lazy import keras
from neural_alignment.maps.linear import Linear, Shape, Tensor


@dataclasses.dataclass(frozen=True)
class _Convolution(Linear):
    """What slides a window over 1 to 3 spatial axes."""

    strides: int | Sequence[int] = 1
    padding: str = "valid"
    data_format: str | None = None
    dilation_rate: int | Sequence[int] = 1

    @property
    def units_axis(self) -> int:
        return -1 if self._is_channels_last else 1

    @property
    def _is_channels_last(self) -> bool:
        return (self.data_format or keras.config.image_data_format()) == "channels_last"


@dataclasses.dataclass(frozen=True)
class Conv(_Convolution):
    """A convolution over 1 to 3 spatial axes, K `[*window, in / groups, filters]`.

    Args:
        strides: one number, or one for each spatial axis.
        padding: "valid", "same", or "causal" (one spatial axis).
        data_format: "channels_last" or "channels_first"; None is Keras's default.
        dilation_rate: one number, or one for each spatial axis.
    """

    def apply(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        padding = self.padding
        if padding == "causal":
            inputs, padding = self._pad_causally(inputs, kernel), "valid"
        return keras.ops.conv(
            inputs,
            kernel,
            strides=self.strides,
            padding=padding,
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
        )

    def output_axis(self, inputs: Tensor, kernel_shape: Shape) -> int | None:
        axis = self.units_axis
        return axis if inputs.shape[axis] == kernel_shape[-2] else None

    def _pad_causally(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        dilation = self.dilation_rate
        dilation = dilation if isinstance(dilation, int) else dilation[0]
        left = [dilation * (kernel.shape[0] - 1), 0]
        last = self._is_channels_last
        return keras.ops.pad(inputs, [[0, 0], left, [0, 0]] if last else [[0, 0], [0, 0], left])


@dataclasses.dataclass(frozen=True)
class DepthwiseConv(_Convolution):
    """A convolution of every channel with windows of its own, K `[*window, in, multiplier]`.

    It is the grouped convolution with a group for every input channel, and turned with its outputs
    last it is that one's kernel, `[*window, 1, in * multiplier]`.

    Args:
        strides: one number, or one for each spatial axis.
        padding: "valid" or "same".
        data_format: "channels_last" or "channels_first"; None is Keras's default.
        dilation_rate: one number, or one for each spatial axis.
    """

    def apply(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        return keras.ops.depthwise_conv(
            inputs,
            kernel,
            strides=self.strides,
            padding=self.padding,
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
        )

    def outputs_last(self, kernel: Tensor) -> Tensor:
        return keras.ops.reshape(kernel, self.outputs_last_shape(tuple(kernel.shape)))

    def from_outputs_last(self, turned: Tensor, kernel_shape: Shape) -> Tensor:
        return keras.ops.reshape(turned, kernel_shape)

    def outputs_last_shape(self, kernel_shape: Shape) -> Shape:
        *window, channels, multiplier = kernel_shape
        return (*window, 1, channels * multiplier)


@dataclasses.dataclass(frozen=True)
class ConvTranspose(_Convolution):
    """A transposed convolution over 1 to 3 spatial axes, K `[*window, filters, in]`.

    Args:
        strides: one number, or one for each spatial axis.
        padding: "valid" or "same".
        data_format: "channels_last" or "channels_first"; None is Keras's default.
        dilation_rate: one number, or one for each spatial axis.
        output_padding: None, one number, or one for each spatial axis.
    """

    output_padding: int | Sequence[int] | None = None

    def apply(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        return keras.ops.conv_transpose(
            inputs,
            kernel,
            strides=self.strides,
            padding=self.padding,
            output_padding=self.output_padding,
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
        )

    def outputs_last(self, kernel: Tensor) -> Tensor:
        return keras.ops.swapaxes(kernel, -1, -2)

    def from_outputs_last(self, turned: Tensor, kernel_shape: Shape) -> Tensor:
        del kernel_shape
        return keras.ops.swapaxes(turned, -1, -2)

    def outputs_last_shape(self, kernel_shape: Shape) -> Shape:
        *window, filters, inputs = kernel_shape
        return (*window, inputs, filters)

    def positions(self, inputs: Tensor, outputs: Tensor, kernel_shape: Shape) -> Any:
        # Every position of the input meets every weight once.
        del outputs
        return math.prod(keras.ops.shape(inputs)[1:]) / kernel_shape[-1]
