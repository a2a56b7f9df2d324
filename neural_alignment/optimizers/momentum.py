"""Momentum in TensorFlow 1's form."""

from __future__ import annotations

from typing import Any

import keras

from neural_alignment import backend
from neural_alignment.optimizers import validation
from neural_alignment.optimizers.base import UpdateRule


@keras.saving.register_keras_serializable("neural_alignment")
class Momentum(UpdateRule, keras.optimizers.Optimizer):
    """Momentum with the learning rate outside the velocity ([K] B.1.2).

        v <- momentum * v + g
        w <- w - lr (g + momentum * v)     nesterov
        w <- w - lr v                      otherwise

    A change of the rate takes effect at once on the accumulated velocity; `keras.optimizers.SGD`
    has the rate inside, and differs after a change.

    Args:
        learning_rate: a number >= 0 or a schedule.
        momentum: in [0, 1].
        nesterov: look ahead.
        name: of the optimizer.
        kwargs: of every Keras optimizer.

    Raises:
        ValueError: an option out of range.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        *,
        momentum: float = 0.9,
        nesterov: bool = True,
        name: str = "momentum",
        **kwargs: Any,
    ) -> None:
        super().__init__(validation.learning_rate(learning_rate), name=name, **kwargs)
        self.momentum = validation.number("momentum", momentum, at_least=0.0, at_most=1.0)
        self.nesterov = nesterov

    def build(self, variables: list[Any]) -> None:
        """Makes a velocity for every variable."""
        if self.built:
            return
        super().build(variables)
        self._velocities = [
            self.add_variable_from_reference(variable, name="velocity") for variable in variables
        ]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable."""
        slot = self._velocities[self._get_variable_index(variable)]
        backend.momentum_step(variable, slot, gradient, learning_rate, self.momentum, self.nesterov)

    def get_config(self) -> dict[str, Any]:
        """Every constructor argument."""
        return super().get_config() | {"momentum": self.momentum, "nesterov": self.nesterov}
