"""Matmul and convolution with a forward and a backward kernel: the package's only custom gradients.

y  = x W             forward, with the forward kernel W
dx = dy B^T          the error goes back through the backward kernel B
dW = x^T dy          as in backpropagation
dB = dW if tie_grad else none
"""

from __future__ import annotations

from collections.abc import Sequence

from neural_alignment import backend
from neural_alignment.backend.contract import Tie
from neural_alignment.maps.conv import Conv
from neural_alignment.maps.linear import Linear, Tensor
from neural_alignment.maps.matmul import Matmul


def two_kernels(
    linear: Linear,
    inputs: Tensor,
    forward_kernel: Tensor,
    backward_kernel: Tensor,
    tie_grad: Tie = False,
) -> Tensor:
    """Applies a linear map forward with one kernel and backward with another.

    Args:
        linear: the map.
        inputs: x.
        forward_kernel: W.
        backward_kernel: B, W's shape.
        tie_grad: whether dW flows into B as well; a function of x, dy and dW gives what does.

    Returns:
        `linear.apply(inputs, forward_kernel)`.

    Raises:
        ValueError: the kernels differ in shape.
    """
    shapes = tuple(forward_kernel.shape), tuple(backward_kernel.shape)
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"Expected a backward kernel of the forward kernel's shape {shapes[0]}. "
            f"Received: {shapes[1]}"
        )
    return backend.two_kernels(linear, inputs, forward_kernel, backward_kernel, tie_grad)


def matmul(
    inputs: Tensor,
    forward_kernel: Tensor,
    backward_kernel: Tensor,
    tie_grad: bool = False,
) -> Tensor:
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
    inputs: Tensor,
    forward_kernel: Tensor,
    backward_kernel: Tensor,
    strides: int | Sequence[int] = 1,
    padding: str = "valid",
    data_format: str | None = None,
    dilation_rate: int | Sequence[int] = 1,
    tie_grad: bool = False,
) -> Tensor:
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
