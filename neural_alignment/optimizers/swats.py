"""SWATS: from Adam to SGD, and SWRATS: from RAdam to SGD."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from neural_alignment.optimizers import validation
from neural_alignment.optimizers.radam import adam_step, corrections


@keras.saving.register_keras_serializable("neural_alignment")
class SWATS(keras.optimizers.Optimizer):
    """Adam, then SGD with momentum at a rate that Adam's steps suggest (Keskar & Socher 2017).

    While a variable is in Adam's phase, with Adam's step p:

        gamma = - <p, p> / <p, g>                    where <p, g> is not 0
        lambda <- beta_2 lambda + (1 - beta_2) gamma
        switch after this step if t > 1 and |lambda / (1 - beta_2^t) - gamma| < epsilon

    and from then on, with lambda fixed at `lambda / (1 - beta_2^t)`:

        u <- beta_1 u + g;  w <- w - (1 - beta_1) lambda u

    Every variable switches by itself, and no longer heeds the learning rate once it has. As in
    [K]'s code epsilon is Adam's and the switch's threshold, so that the switch is rare.

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

    rectified = False

    def __init__(
        self,
        learning_rate: Any = 0.001,
        *,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-9,
        name: str = "swats",
        **kwargs: Any,
    ) -> None:
        super().__init__(validation.learning_rate(learning_rate), name=name, **kwargs)
        self.beta_1 = validation.number("beta_1", beta_1, at_least=0.0, below=1.0)
        self.beta_2 = validation.number("beta_2", beta_2, above=0.0, below=1.0)
        self.epsilon = validation.number("epsilon", epsilon, at_least=0.0)

    def build(self, variables: list[Any]) -> None:
        """Makes two slots of a variable's shape and two scalars for every variable."""
        if self.built:
            return
        super().build(variables)
        # The first moment, and after the switch the momentum: one is never needed with the other.
        self._momentums = [
            self.add_variable_from_reference(variable, name="momentum") for variable in variables
        ]
        self._velocities = [
            self.add_variable_from_reference(variable, name="velocity") for variable in variables
        ]
        # phase 0 is Adam, 1 is SGD.
        self.phases, self.lambdas = (
            [
                self.add_variable((), dtype="float32", name=f"{kind}_{index}")
                for index in range(len(variables))
            ]
            for kind in ("phase", "lambda")
        )

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable."""
        gradient = tf.cast(tf.convert_to_tensor(gradient), variable.dtype)
        index = self._get_variable_index(variable)
        momentum, velocity = self._momentums[index], self._velocities[index]
        phase, rate = self.phases[index], self.lambdas[index]
        step = ops.cast(self.iterations, "float32") + 1.0
        in_adam = ops.equal(phase, 0.0)

        share = ops.cast(ops.where(in_adam, 1.0 - self.beta_1, 1.0), variable.dtype)
        m = self.beta_1 * momentum + share * gradient
        v = self.beta_2 * velocity + (1.0 - self.beta_2) * ops.square(gradient)
        p = adam_step(
            m,
            v,
            step,
            learning_rate,
            self.beta_1,
            self.beta_2,
            self.epsilon,
            rectified=self.rectified,
        )
        # p is what is subtracted, so that gamma has no minus sign.
        along = _inner(p, gradient)
        counts = ops.logical_and(in_adam, ops.not_equal(along, 0.0))
        gamma = _inner(p, p) / ops.where(counts, along, 1.0)
        averaged = self.beta_2 * rate + (1.0 - self.beta_2) * gamma
        corrected = averaged / corrections(step, self.beta_1, self.beta_2)[1]
        switch = ops.logical_and(counts, step > 1.0)
        switch = ops.logical_and(switch, ops.abs(corrected - gamma) < self.epsilon)

        sgd_rate = ops.cast((1.0 - self.beta_1) * rate, variable.dtype)
        self.assign_sub(variable, ops.where(in_adam, p, sgd_rate * m))
        self.assign(momentum, ops.where(switch, ops.zeros_like(m), m))
        self.assign(velocity, ops.where(in_adam, v, velocity))
        self.assign(rate, ops.where(switch, corrected, ops.where(counts, averaged, rate)))
        self.assign(phase, ops.where(switch, 1.0, phase))

    def get_config(self) -> dict[str, Any]:
        """Every constructor argument."""
        return super().get_config() | {
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
        }


@keras.saving.register_keras_serializable("neural_alignment")
class SWRATS(SWATS):
    """SWATS with RAdam in Adam's place.

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

    rectified = True

    def __init__(
        self,
        learning_rate: Any = 0.001,
        *,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-9,
        name: str = "swrats",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon, name=name, **kwargs
        )


def _inner(a: Any, b: Any) -> Any:
    return ops.sum(ops.cast(a, "float32") * ops.cast(b, "float32"))
