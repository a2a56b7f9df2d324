"""A matrix product whose error goes back through two factors, `B = R Q`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from neural_alignment.lazy import keras
from neural_alignment.maps.matmul import Matmul

Tensor = Any


@dataclasses.dataclass(frozen=True)
class Factored:
    """`y = x W` that sends the error back through `R Q`, as the kernel of `two_kernels`: R.

    `dx = (dy Q^T) R^T` and `dR = x^T (dy Q^T)` where the batch is small, `dx = dy (R Q)^T` and
    `dR = (x^T dy) Q^T` where that takes fewer multiplications. Products with R Q made are taken in
    the factors' type, all others in that of the error.

    Args:
        matmul: the map.
        right: Q, `[expanded, units]`.
    """

    matmul: Matmul
    right: Tensor

    def apply(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """`y = x W`.

        Args:
            inputs: x, `[..., in]`.
            kernel: W, `[in, units]`.

        Returns:
            y, `[..., units]`.
        """
        return self.matmul.apply(inputs, kernel)

    def input_gradient(self, inputs: Tensor, kernel: Tensor, upstream: Tensor) -> Tensor:
        """`dx = dy (R Q)^T`.

        Args:
            inputs: x, for its shape only.
            kernel: R, `[in, expanded]`.
            upstream: dy, `[..., units]`.

        Returns:
            A tensor of x's shape.
        """
        ops = keras.ops

        def through_factors() -> Tensor:
            left = ops.cast(kernel, upstream.dtype)
            return self.matmul.input_gradient(inputs, left, self._expanded(upstream))

        def through_their_product() -> Tensor:
            composite = ops.cast(ops.matmul(kernel, self.right), upstream.dtype)
            return self.matmul.input_gradient(inputs, composite, upstream)

        sizes = kernel.shape[0], self.right.shape[1]
        return by_fewer(upstream, *sizes, through_factors, through_their_product)

    def kernel_gradient(self, inputs: Tensor, kernel: Tensor, upstream: Tensor) -> Tensor:
        """`dW = x^T dy`.

        Args:
            inputs: x, `[..., in]`.
            kernel: W, for its shape only.
            upstream: dy, `[..., units]`.

        Returns:
            A tensor of W's shape.
        """
        return self.matmul.kernel_gradient(inputs, kernel, upstream)

    def factor_gradient(self, inputs: Tensor, upstream: Tensor, kernel_gradient: Tensor) -> Tensor:
        """`dR = x^T dy Q^T`, what `two_kernels` takes as `tie_grad`.

        Args:
            inputs: x, `[..., in]`.
            upstream: dy, `[..., units]`.
            kernel_gradient: dW, `x^T dy`.

        Returns:
            A tensor of R's shape and of the factors' type.
        """
        ops, dtype = keras.ops, self.right.dtype
        (fan_in, units), expanded = kernel_gradient.shape, self.right.shape[0]

        def of_the_error() -> Tensor:
            left = ops.zeros((fan_in, expanded), upstream.dtype)
            made = self.matmul.kernel_gradient(inputs, left, self._expanded(upstream))
            return ops.cast(made, dtype)

        def of_the_kernel() -> Tensor:
            return ops.matmul(ops.cast(kernel_gradient, dtype), ops.transpose(self.right))

        return by_fewer(upstream, fan_in, units, of_the_error, of_the_kernel)

    def _expanded(self, upstream: Tensor) -> Tensor:
        """`dy Q^T`."""
        return keras.ops.matmul(
            upstream, keras.ops.transpose(keras.ops.cast(self.right, upstream.dtype))
        )


def by_fewer(
    upstream: Tensor,
    fan_in: int,
    outputs: int,
    of_the_error: Callable[[], Tensor],
    of_the_kernel: Callable[[], Tensor],
) -> Tensor:
    """What a product with a matrix of `outputs` columns is made of, for fewer multiplications.

    Args:
        upstream: dy, for its shape: its last axis or another counts the outputs.
        fan_in: rows of the kernel.
        outputs: columns of the kernel.
        of_the_error: multiplies dy, `places (fan_in + outputs)` for each of the matrix's columns.
        of_the_kernel: multiplies a kernel, `fan_in outputs`.

    Returns:
        What the one or the other gives; chosen at every step where the batch is known then only.
    """
    places = math.prod(keras.ops.shape(upstream)) // outputs
    fewer = places * (fan_in + outputs) < fan_in * outputs
    if isinstance(fewer, bool):
        return of_the_error() if fewer else of_the_kernel()
    return keras.ops.cond(fewer, of_the_error, of_the_kernel)
