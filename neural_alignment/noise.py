"""Random numbers from a seed: the same eagerly, compiled, and on every back end.

TensorFlow's own conversions of random bits to floats differ between its kernels and XLA; the
bits of Philox do not. Uniform numbers are equal to the bit, normal ones to rounding.
"""

from __future__ import annotations

import math
from typing import Any

from neural_alignment import backend
from neural_alignment.lazy import keras

Tensor = Any


def draw_seed(seed: Tensor, salt: int) -> Tensor:
    """A seed for one more draw of the same step.

    Args:
        seed: int32 `[2]`.
        salt: which draw.

    Returns:
        int32 `[2]`.
    """
    return seed + keras.ops.convert_to_tensor([salt, 0], "int32")


def _size(shape: Any) -> Any:
    """The number of elements; a tensor where a dimension is one."""
    size = 1
    for dimension in shape:
        size = dimension * size
    return size


# A factor of a power of two is exact: it joins another one, in one pass over the numbers.
_UNIT = 2.0**-23


def _mantissas(size: Any, seed: Tensor) -> Tensor:
    """Uniform whole numbers below 2^23: exact in float32, and so over 2^23."""
    return backend.random_mantissas(size, keras.ops.convert_to_tensor(seed, "int32"))


def uniform(shape: Any, seed: Tensor) -> Tensor:
    """Uniform numbers in [0, 1), multiples of 2^-23.

    Args:
        shape: of the result; dimensions may be tensors.
        seed: int32 `[2]`.

    Returns:
        A float32 tensor.
    """
    return keras.ops.reshape(_UNIT * _mantissas(_size(shape), seed), shape)


def normal(shape: Any, seed: Tensor) -> Tensor:
    """Standard normal numbers by Box and Muller, `sqrt(-2 log(1 - u)) (cos, sin)(2 pi v)`.

    Args:
        shape: of the result; dimensions may be tensors.
        seed: int32 `[2]`.

    Returns:
        A float32 tensor.
    """
    ops, size = keras.ops, _size(shape)
    pairs = (size + 1) // 2
    drawn = _mantissas(2 * pairs, seed)
    radius = ops.sqrt(-2.0 * ops.log1p(-_UNIT * drawn[:pairs]))
    angle = (2.0 * math.pi * _UNIT) * drawn[pairs:]
    values = ops.concatenate([radius * ops.cos(angle), radius * ops.sin(angle)], axis=0)
    return ops.reshape(values[:size], shape)
