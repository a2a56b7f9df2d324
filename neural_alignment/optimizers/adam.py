"""Adam with TensorFlow 1's defaults."""

from __future__ import annotations

from typing import Any

import keras

from neural_alignment.optimizers import validation


@keras.saving.register_keras_serializable("neural_alignment")
class Adam(keras.optimizers.Adam):
    """Adam with epsilon 1e-8 beside the uncorrected root, as in TensorFlow 1.

        m <- beta_1 m + (1 - beta_1) g;  v <- beta_2 v + (1 - beta_2) g^2
        w <- w - lr sqrt(1 - beta_2^t) / (1 - beta_1^t) * m / (sqrt(v) + epsilon)

    Args:
        learning_rate: a number >= 0 or a schedule.
        beta_1: in [0, 1).
        beta_2: in [0, 1).
        epsilon: at least 0.
        amsgrad: use the largest v so far.
        name: of the optimizer.
        kwargs: of every Keras optimizer.

    Raises:
        ValueError: an option out of range.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        *,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        amsgrad: bool = False,
        name: str = "adam",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            validation.learning_rate(learning_rate),
            beta_1=validation.number("beta_1", beta_1, at_least=0.0, below=1.0),
            beta_2=validation.number("beta_2", beta_2, at_least=0.0, below=1.0),
            epsilon=validation.number("epsilon", epsilon, at_least=0.0),
            amsgrad=amsgrad,
            name=name,
            **kwargs,
        )
