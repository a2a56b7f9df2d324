"""Random numbers from a seed, the same eagerly, in a graph and under XLA.

TensorFlow's own conversions of random bits to floats differ between its kernels and XLA; the
bits of Philox do not.
"""

from __future__ import annotations

import math
from typing import Any

from neural_alignment.lazy import tf

Tensor = Any


def uniform(shape: Any, seed: Tensor) -> Tensor:
    """Uniform numbers in [0, 1), multiples of 2^-23.

    Args:
        shape: of the result; dimensions may be tensors.
        seed: int32 `[2]`.

    Returns:
        A float32 tensor.
    """
    bits = tf.random.stateless_uniform(
        shape, seed, minval=None, maxval=None, dtype=tf.uint32, alg="philox"
    )
    # 23 random bits as the mantissa of a number in [1, 2).
    mantissa = tf.bitwise.right_shift(bits, tf.constant(9, tf.uint32))
    one = tf.constant(0x3F800000, tf.uint32)
    return tf.bitcast(tf.bitwise.bitwise_or(mantissa, one), tf.float32) - 1.0


def normal(shape: Any, seed: Tensor) -> Tensor:
    """Standard normal numbers by Box and Muller, `sqrt(-2 log(1 - u)) (cos, sin)(2 pi v)`.

    Args:
        shape: of the result; dimensions may be tensors.
        seed: int32 `[2]`.

    Returns:
        A float32 tensor.
    """
    size = tf.reduce_prod(tf.cast(tf.stack(shape), "int32"))
    pairs = (size + 1) // 2
    radius, angle = tf.unstack(uniform((2, pairs), seed))
    radius, angle = tf.sqrt(-2.0 * tf.math.log1p(-radius)), 2.0 * math.pi * angle
    values = tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], axis=0)
    return tf.reshape(values[:size], shape)
