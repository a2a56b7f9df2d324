"""The primitives that a layer-wise loss sums: batch mean, feature sum, no factor 1/2 ([K] sec. 3).

Every function takes float tensors and returns a float32 scalar. "Features" are all axes but the
first: for a convolution the positions and the channels.
"""

from __future__ import annotations

from typing import Any

from neural_alignment import backend
from neural_alignment.lazy import keras

Tensor = Any


def batch_size(x: Tensor) -> Tensor:
    """Number of examples as a float of x's type; 1 for an empty batch.

    A replica whose share of a short batch is empty has sums of 0, and with it means of 0.

    Args:
        x: `[batch, ...]`.

    Returns:
        A scalar.
    """
    size = keras.ops.shape(x)[0]
    size = max(size, 1) if isinstance(size, int) else keras.ops.maximum(size, 1)
    return keras.ops.cast(size, x.dtype)


def _batch_mean_of_sum(values: Tensor) -> Tensor:
    return keras.ops.sum(values) / batch_size(values)


def decay(forward_kernel: Tensor, backward_kernel: Tensor) -> Tensor:
    """Squared size of both kernels: `sum W^2 + sum B^2`.

    Args:
        forward_kernel: W, any shape.
        backward_kernel: B, any shape.

    Returns:
        A scalar.
    """
    return backend.sum_of_squares(forward_kernel) + backend.sum_of_squares(backward_kernel)


def sparse(forward_projection: Tensor, backward_projection: Tensor) -> Tensor:
    """Mean square of both projections: `sum mean_b(f^2) + sum mean_b(b^2)`.

    Args:
        forward_projection: f, `[batch, ...]`.
        backward_projection: b, `[batch, ...]`.

    Returns:
        A scalar.
    """
    square = keras.ops.square
    return _batch_mean_of_sum(square(forward_projection)) + _batch_mean_of_sum(
        square(backward_projection)
    )


def null(reconstruction: Tensor) -> Tensor:
    """Mean square of one reconstruction: `sum mean_b(r^2)`.

    [K] writes it for two reconstructions and passes zeros for the one a rule does not use.

    Args:
        reconstruction: `B f` or `W b`, `[batch, ...]`.

    Returns:
        A scalar.
    """
    return _batch_mean_of_sum(keras.ops.square(reconstruction))


def self_(forward_kernel: Tensor, backward_kernel: Tensor) -> Tensor:
    """Negative inner product of the kernels: `-sum W * B`.

    Args:
        forward_kernel: W.
        backward_kernel: B, W's shape.

    Returns:
        A scalar.
    """
    return -keras.ops.sum(forward_kernel * backward_kernel)


def amp(first: Tensor, second: Tensor) -> Tensor:
    """Negative mean inner product of two signals: `-sum mean_b(f * b)`.

    Args:
        first: usually the forward projection f, `[batch, ...]`.
        second: usually the backward projection b, the same shape.

    Returns:
        A scalar.
    """
    return -_batch_mean_of_sum(first * second)
