"""Adagrad with TensorFlow 1's defaults."""

from __future__ import annotations

from typing import Any

import keras

from neural_alignment.optimizers import validation
from neural_alignment.optimizers.base import UpdateRule


@keras.saving.register_keras_serializable("neural_alignment")
class Adagrad(UpdateRule, keras.optimizers.Adagrad):
    """Adagrad: `a <- a + g^2; w <- w - lr g / sqrt(a + epsilon)`, with a from 0.1.

    Args:
        learning_rate: a number >= 0 or a schedule.
        initial_accumulator_value: of a, above 0.
        epsilon: 0 in TensorFlow 1, where a is never 0.
        name: of the optimizer.
        kwargs: of every Keras optimizer.

    Raises:
        ValueError: an option out of range.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        *,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 0.0,
        name: str = "adagrad",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            validation.learning_rate(learning_rate),
            initial_accumulator_value=validation.number(
                "initial_accumulator_value", initial_accumulator_value, above=0.0
            ),
            epsilon=validation.number("epsilon", epsilon, at_least=0.0),
            name=name,
            **kwargs,
        )
