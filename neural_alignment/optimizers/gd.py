"""Gradient descent."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from neural_alignment import backend
from neural_alignment.optimizers import validation
from neural_alignment.optimizers.base import UpdateRule


@keras.saving.register_keras_serializable("neural_alignment")
class GradientDescent(UpdateRule, keras.optimizers.Optimizer):
    """Gradient descent: `w <- w - lr g`.

    Args:
        learning_rate: a number >= 0 or a schedule.
        name: of the optimizer.
        kwargs: of every Keras optimizer.

    Raises:
        ValueError: an option out of range.
    """

    def __init__(self, learning_rate: Any = 0.001, *, name: str = "gd", **kwargs: Any) -> None:
        super().__init__(validation.learning_rate(learning_rate), name=name, **kwargs)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable."""
        gradient = ops.cast(backend.read(gradient), variable.dtype)
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * gradient)
