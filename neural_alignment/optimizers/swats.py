"""SWATS: from Adam to SGD, and SWRATS: from RAdam to SGD."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from neural_alignment import backend
from neural_alignment.optimizers.adam import Adam
from neural_alignment.optimizers.radam import RAdam


@keras.saving.register_keras_serializable("neural_alignment")
class SWATS(Adam):
    """Adam, then SGD with momentum at a rate that Adam's steps suggest (Keskar & Socher 2017).

    While a variable is in Adam's phase, with p what Adam subtracts:

        gamma = <p, p> / <p, g>                      where <p, g> is not 0
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
        super().__init__(
            learning_rate, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon, name=name, **kwargs
        )

    def build(self, variables: list[Any]) -> None:
        """Makes two slots of its shape and two scalars for every variable."""
        if self.built:
            return
        super().build(variables)
        # phase 0 is Adam, 1 is SGD.
        self.phases, self.lambdas = (
            [
                self.add_variable((), dtype="float32", name=f"{kind}_{index}")
                for index in range(len(variables))
            ]
            for kind in ("phase", "lambda")
        )

    def corrections(self) -> tuple[Any, Any]:
        """As Adam's, with [K]'s rounding, on which the switch's tight threshold depends."""
        beta_1, beta_2 = self._betas("float32")
        return 1.0 - ops.power(beta_1, self.step()), 1.0 - ops.power(beta_2, self.step())

    def _betas(self, dtype: Any) -> list[Any]:
        return [ops.convert_to_tensor(beta, dtype) for beta in (self.beta_1, self.beta_2)]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable."""
        gradient = ops.cast(backend.read(gradient), variable.dtype)
        index = self._get_variable_index(variable)
        slots = [self._momentums, self._velocities, self.phases, self.lambdas]
        slots = [of_all[index] for of_all in slots]
        momentum, velocity, phase, rate = map(backend.read, slots)
        in_adam = ops.equal(phase, 0.0)

        # The first moment, and after the switch SGD's momentum: never needed together.
        # 1 - beta in float32, too, for [K]'s rounding: see `corrections`.
        beta_1, beta_2 = self._betas(variable.dtype)
        share = ops.where(in_adam, 1.0 - beta_1, ops.ones_like(beta_1))
        m = beta_1 * momentum + share * gradient
        v = beta_2 * velocity + (1.0 - beta_2) * ops.square(gradient)
        p = self.direction(m, v, learning_rate)

        along = _inner(p, gradient)
        counts = ops.logical_and(in_adam, ops.not_equal(along, 0.0))
        gamma = _inner(p, p) / ops.where(counts, along, 1.0)
        beta_2 = ops.cast(beta_2, "float32")
        averaged = beta_2 * rate + (1.0 - beta_2) * gamma
        corrected = averaged / self.corrections()[1]
        agrees = ops.logical_and(self.step() > 1.0, ops.abs(corrected - gamma) < self.epsilon)
        switch = ops.logical_and(counts, agrees)

        sgd_rate = ops.cast((1.0 - self.beta_1) * rate, variable.dtype)
        self.assign_sub(variable, ops.where(in_adam, p, sgd_rate * m))
        updated = (
            ops.where(switch, ops.zeros_like(m), m),
            ops.where(in_adam, v, velocity),
            ops.where(switch, 1.0, phase),
            ops.where(switch, corrected, ops.where(counts, averaged, rate)),
        )
        for slot, value in zip(slots, updated, strict=True):
            self.assign(slot, value)


@keras.saving.register_keras_serializable("neural_alignment")
class SWRATS(SWATS, RAdam):
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
