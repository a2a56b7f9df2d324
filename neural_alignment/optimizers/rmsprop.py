"""RMSprop with TensorFlow 1's defaults."""

from __future__ import annotations

from typing import Any

import keras

from neural_alignment.optimizers import validation
from neural_alignment.optimizers.base import UpdateRule


@keras.saving.register_keras_serializable("neural_alignment")
class RMSprop(UpdateRule, keras.optimizers.RMSprop):
    """RMSprop with the mean square from 1, as in TensorFlow 1.

        s <- rho s + (1 - rho) g^2;  m <- momentum m + lr g / sqrt(s + epsilon);  w <- w - m

    Args:
        learning_rate: a number >= 0 or a schedule.
        rho: of the mean square, in [0, 1).
        momentum: in [0, 1).
        epsilon: inside the root.
        centered: subtract the squared mean gradient from s.
        name: of the optimizer.
        kwargs: of every Keras optimizer.

    Raises:
        ValueError: an option out of range.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        *,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-10,
        centered: bool = False,
        name: str = "rmsprop",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            validation.learning_rate(learning_rate),
            rho=validation.number("rho", rho, at_least=0.0, below=1.0),
            momentum=validation.number("momentum", momentum, at_least=0.0, below=1.0),
            epsilon=validation.number("epsilon", epsilon, at_least=0.0),
            centered=centered,
            name=name,
            **kwargs,
        )

    def add_variable_from_reference(
        self, reference_variable: Any, name: str | None = None, initializer: Any = "zeros"
    ) -> Any:
        """Makes a slot; Keras would start the mean square (its `velocity`) at 0."""
        if name == "velocity":
            initializer = "ones"
        return super().add_variable_from_reference(
            reference_variable, name=name, initializer=initializer
        )
