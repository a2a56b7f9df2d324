"""Initial values that Keras has no initializer for."""

from __future__ import annotations

import math
from typing import Any

from neural_alignment.lazy import keras

Tensor = Any


class FixedFraction:
    """Initializer: exactly `round(density * size)` ones at random places, zeros elsewhere.

    Every call gives the same, as each replica of a variable may make its own.

    Args:
        density: fraction of ones, in (0, 1].
    """

    def __init__(self, density: float) -> None:
        self.density = density
        self._order = keras.initializers.RandomUniform(0.0, 1.0)

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        size = math.prod(shape)
        ones = max(1, round(self.density * size))
        order = keras.ops.argsort(self._order((size,)))
        return keras.ops.reshape(keras.ops.cast(order < ones, dtype or "float32"), shape)


class Masked:
    """Initializer: another's values where a mask has ones.

    Args:
        initializer: of Keras, by name, or a function of shape and dtype.
        mask: gives ones and zeros; of density 1 it is not made.
    """

    def __init__(self, initializer: Any, mask: FixedFraction) -> None:
        self._initializer, self._mask = initializer, mask

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        values = keras.initializers.get(self._initializer)(shape, dtype=dtype)
        return values if self._mask.density == 1.0 else values * self._mask(shape, dtype)
