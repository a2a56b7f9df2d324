"""Adam with TensorFlow 1's defaults."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from neural_alignment import backend
from neural_alignment.optimizers import validation
from neural_alignment.optimizers.base import UpdateRule

Tensor = Any


@keras.saving.register_keras_serializable("neural_alignment")
class Adam(UpdateRule, keras.optimizers.Optimizer):
    """Adam with epsilon 1e-8 beside the uncorrected root, as in TensorFlow 1.

        m <- beta_1 m + (1 - beta_1) g;  v <- beta_2 v + (1 - beta_2) g^2
        w <- w - lr sqrt(1 - beta_2^t) / (1 - beta_1^t) * m / (sqrt(v) + epsilon)

    The bias corrections are float32 whatever the variable's dtype; `keras.optimizers.Adam` takes
    them in bfloat16 with a bfloat16 variable, where `1 - 0.999` is 0 and nothing moves.

    Args:
        learning_rate: a number >= 0 or a schedule.
        beta_1: in [0, 1).
        beta_2: in (0, 1).
        epsilon: at least 0.
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
        name: str = "adam",
        **kwargs: Any,
    ) -> None:
        super().__init__(validation.learning_rate(learning_rate), name=name, **kwargs)
        self.beta_1 = validation.number("beta_1", beta_1, at_least=0.0, below=1.0)
        self.beta_2 = validation.number("beta_2", beta_2, above=0.0, below=1.0)
        self.epsilon = validation.number("epsilon", epsilon, at_least=0.0)

    def build(self, variables: list[Any]) -> None:
        """Makes the first and the second moment of every variable."""
        if self.built:
            return
        super().build(variables)
        self._momentums, self._velocities = (
            [self.add_variable_from_reference(variable, name=name) for variable in variables]
            for name in ("momentum", "velocity")
        )

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable."""
        gradient = ops.cast(backend.read(gradient), variable.dtype)
        index = self._get_variable_index(variable)
        m = self.beta_1 * self._momentums[index] + (1.0 - self.beta_1) * gradient
        v = self.beta_2 * self._velocities[index] + (1.0 - self.beta_2) * ops.square(gradient)
        self.assign(self._momentums[index], m)
        self.assign(self._velocities[index], v)
        self.assign_sub(variable, self.direction(m, v, learning_rate))

    def step(self) -> Tensor:
        """The number t of this step, float32, from 1."""
        return ops.cast(self.iterations, "float32") + 1.0

    def corrections(self) -> tuple[Tensor, Tensor]:
        """The bias corrections `1 - beta_1^t` and `1 - beta_2^t`, float32 scalars."""
        step = self.step()
        first = -ops.expm1(step * math.log(self.beta_1)) if self.beta_1 else ops.ones_like(step)
        return first, -ops.expm1(step * math.log(self.beta_2))

    def direction(self, m: Tensor, v: Tensor, learning_rate: Tensor) -> Tensor:
        """What is subtracted from a variable.

        Args:
            m: first moment, updated.
            v: second moment, updated.
            learning_rate: scalar.

        Returns:
            A tensor of m's shape and dtype.
        """
        first, second = self.corrections()
        scale = ops.cast(learning_rate, "float32") * ops.sqrt(second) / first
        return ops.cast(scale, m.dtype) * m / (ops.sqrt(v) + self.epsilon)

    def get_config(self) -> dict[str, Any]:
        """Every constructor argument."""
        return super().get_config() | {
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
        }
