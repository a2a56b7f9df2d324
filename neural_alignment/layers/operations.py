"""Matmul and convolution with a forward and a backward kernel: the package's only custom gradients.

y  = x W             forward, with the forward kernel W
dx = dy B^T          the error goes back through the backward kernel B
dW = x^T dy          as in backpropagation
dB = dW if tie_grad else none
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence

import keras
import tensorflow as tf


class Linear(abc.ABC):
    """A map that is linear in its input and in its kernel, and its two transposes.

    The transposes are taken as gradients of `apply`, so they hold for whatever `apply` does;
    in a graph the forward value that a transpose does not need is pruned.
    """

    @abc.abstractmethod
    def apply(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """`y = x K`."""

    def input_gradient(
        self, inputs: tf.Tensor, kernel: tf.Tensor, upstream: tf.Tensor
    ) -> tf.Tensor:
        """`dy K^T`.

        Args:
            inputs: x, for its shape only.
            kernel: K.
            upstream: dy, of the shape of `apply(inputs, kernel)`.

        Returns:
            A tensor of x's shape.
        """
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            outputs = self.apply(inputs, kernel)
        return tape.gradient(outputs, inputs, upstream)

    def kernel_gradient(
        self, inputs: tf.Tensor, kernel: tf.Tensor, upstream: tf.Tensor
    ) -> tf.Tensor:
        """`x^T dy`.

        Args:
            inputs: x.
            kernel: for its shape only.
            upstream: dy, of the shape of `apply(inputs, kernel)`.

        Returns:
            A tensor of the kernel's shape.
        """
        # A fresh tensor, so that a caller's tape sees no dependency on the kernel's values.
        kernel = tf.stop_gradient(kernel)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(kernel)
            outputs = self.apply(inputs, kernel)
        return tape.gradient(outputs, kernel, upstream)


@dataclasses.dataclass(frozen=True)
class Matmul(Linear):
    """`y = x K` over the last axis of x: x `[..., in]`, K `[in, units]`."""

    def apply(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        if len(inputs.shape) == 2:
            return tf.matmul(inputs, kernel)
        return tf.tensordot(inputs, kernel, axes=1)


@dataclasses.dataclass(frozen=True)
class Conv(Linear):
    """A convolution over 1 to 3 spatial axes, K `[*window, in / groups, filters]`.

    Args:
        strides: one number, or one for each spatial axis.
        padding: "valid", "same", or "causal" (one spatial axis).
        data_format: "channels_last" or "channels_first"; None is Keras's default.
        dilation_rate: one number, or one for each spatial axis.
    """

    strides: int | Sequence[int] = 1
    padding: str = "valid"
    data_format: str | None = None
    dilation_rate: int | Sequence[int] = 1

    def apply(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
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

    def _pad_causally(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        dilation = self.dilation_rate
        dilation = dilation if isinstance(dilation, int) else dilation[0]
        left = [dilation * (kernel.shape[0] - 1), 0]
        channels_last = keras.config.image_data_format() == "channels_last"
        if self.data_format is not None:
            channels_last = self.data_format == "channels_last"
        return tf.pad(inputs, [[0, 0], left, [0, 0]] if channels_last else [[0, 0], [0, 0], left])


def two_kernels(
    linear: Linear,
    inputs: tf.Tensor,
    forward_kernel: tf.Tensor,
    backward_kernel: tf.Tensor,
    tie_grad: bool = False,
) -> tf.Tensor:
    """Applies a linear map forward with one kernel and backward with another.

    Args:
        linear: the map.
        inputs: x.
        forward_kernel: W.
        backward_kernel: B, W's shape.
        tie_grad: whether dW flows into B as well.

    Returns:
        `linear.apply(inputs, forward_kernel)`.

    Raises:
        ValueError: the kernels differ in shape.
    """
    inputs, forward_kernel, backward_kernel = (
        tf.convert_to_tensor(t) for t in (inputs, forward_kernel, backward_kernel)
    )
    if not forward_kernel.shape.is_compatible_with(backward_kernel.shape):
        raise ValueError(
            "Expected a backward kernel of the forward kernel's shape "
            f"{tuple(forward_kernel.shape)}. Received: {tuple(backward_kernel.shape)}"
        )

    def gradients(x: tf.Tensor, w: tf.Tensor, upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return (
            linear.input_gradient(x, backward_kernel, upstream),
            linear.kernel_gradient(x, w, upstream),
        )

    @tf.custom_gradient
    def tied(x, w, b):
        def gradient(upstream):
            dx, dw = gradients(x, w, upstream)
            return dx, dw, dw

        return linear.apply(x, w), gradient

    # The backward kernel is not an argument here: TensorFlow passes arguments through one
    # operation with the result, and the graph optimizer, which then takes the result to depend on
    # the backward kernel's read, drops the order between that read and the kernel's update.
    @tf.custom_gradient
    def untied(x, w):
        return linear.apply(x, w), lambda upstream: gradients(x, w, upstream)

    if tie_grad:
        return tied(inputs, forward_kernel, backward_kernel)
    return untied(inputs, forward_kernel)


def after(inputs: tf.Tensor, reads: Sequence[tf.Tensor]) -> tf.Tensor:
    """The inputs, made to wait until the variables are read.

    A gradient, a tied one or amp's, need not depend on the variable that it updates, and the graph
    optimizer may drop the order between a read and an update; the package's own step has a barrier
    instead.

    Args:
        inputs: x.
        reads: values of the variables.

    Returns:
        x; its gradient goes through as it is.
    """

    # TensorFlow's gradient of an operation with control inputs is zero in the body of a while loop.
    @tf.custom_gradient
    def wait(x):
        with tf.control_dependencies(list(reads)):
            return tf.identity(x), lambda upstream: upstream

    return wait(inputs)


def matmul(
    inputs: tf.Tensor,
    forward_kernel: tf.Tensor,
    backward_kernel: tf.Tensor,
    tie_grad: bool = False,
) -> tf.Tensor:
    """Matrix product that sends the error back through a second kernel.

    `y = x W`, `dx = dy B^T`, `dW = x^T dy`, `dB = dW` with `tie_grad`, else none ([K] appendix A).

    Args:
        inputs: x, `[..., in]`.
        forward_kernel: W, `[in, units]`.
        backward_kernel: B, `[in, units]`.
        tie_grad: whether dW flows into B as well.

    Returns:
        y, `[..., units]`.

    Raises:
        ValueError: the kernels differ in shape.
    """
    return two_kernels(Matmul(), inputs, forward_kernel, backward_kernel, tie_grad)


def conv(
    inputs: tf.Tensor,
    forward_kernel: tf.Tensor,
    backward_kernel: tf.Tensor,
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: int | Sequence[int] = 1,
    tie_grad: bool = False,
) -> tf.Tensor:
    """Convolution that sends the error back through a second kernel.

    `y = x * W`, `dx = conv_transpose(dy, B)`, dW the filter gradient, `dB = dW` with `tie_grad`,
    else none ([K] appendix A).

    Args:
        inputs: x, `[batch, *positions, in]` (or channels first), 1 to 3 spatial axes.
        forward_kernel: W, `[*window, in / groups, filters]`.
        backward_kernel: B, W's shape.
        strides: one number, or one for each spatial axis.
        padding: "valid", "same", or "causal" (one spatial axis).
        data_format: "channels_last" or "channels_first"; None is Keras's default.
        dilation_rate: one number, or one for each spatial axis.
        tie_grad: whether dW flows into B as well.

    Returns:
        y, `[batch, *positions, filters]`.

    Raises:
        ValueError: the kernels differ in shape.
    """
    linear = Conv(strides, padding, data_format, dilation_rate)
    return two_kernels(linear, inputs, forward_kernel, backward_kernel, tie_grad)
