"""Rectified Adam."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from neural_alignment.optimizers import validation

Tensor = Any


def corrections(step: Tensor, beta_1: float, beta_2: float) -> tuple[Tensor, Tensor]:
    """The bias corrections `1 - beta_1^t` and `1 - beta_2^t`.

    Args:
        step: t, float32, from 1.
        beta_1: in [0, 1).
        beta_2: in (0, 1).

    Returns:
        Two float32 scalars.
    """
    first = -ops.expm1(step * math.log(beta_1)) if beta_1 else ops.ones_like(step)
    return first, -ops.expm1(step * math.log(beta_2))


def rectification(step: Tensor, beta_2: float) -> tuple[Tensor, Tensor]:
    """RAdam's variance rectification (Liu et al. 2020, algorithm 2).

        rho_inf = 2 / (1 - beta_2) - 1
        rho_t = rho_inf - 2 t beta_2^t / (1 - beta_2^t)
        r_t = sqrt((rho_t - 4)(rho_t - 2) rho_inf / ((rho_inf - 4)(rho_inf - 2) rho_t))

    At small t rho_t is a small difference of large numbers. With x = -log(beta_2), y = t x / 2 and
    L(y) = coth(y) - 1/y it is `t (1 - L(y)) + L(x / 2)`, which loses nothing in float32.

    Args:
        step: t, float32, from 1.
        beta_2: in (0, 1).

    Returns:
        r_t (1 where it is not defined), and whether `rho_t >= 5`, so that r_t is to be used.
    """
    x = -math.log(beta_2)
    limit = 2.0 / (1.0 - beta_2) - 1.0
    y = step * (x / 2.0)
    early = step * (1.0 - _langevin(ops.minimum(y, 1.0))) + (1.0 / math.tanh(x / 2.0) - 2.0 / x)
    late = limit - 2.0 * step / ops.expm1(2.0 * y)
    rho = ops.where(y < 1.0, early, late)
    rectified = rho >= 5.0
    rho = ops.maximum(rho, 5.0)
    scale = limit / ((limit - 4.0) * (limit - 2.0)) if limit > 4.0 else 0.0
    ratio = ops.sqrt((rho - 4.0) * (rho - 2.0) / rho * scale)
    return ops.where(rectified, ratio, 1.0), rectified


def _langevin(y: Tensor) -> Tensor:
    # The series of coth(y) - 1/y, to 2e-7 on [0, 1].
    square = y * y
    total = 0.0
    for coefficient in (
        4.0 / 18243225.0,
        -1382.0 / 638512875.0,
        2.0 / 93555.0,
        -1.0 / 4725.0,
        2.0 / 945.0,
        -1.0 / 45.0,
        1.0 / 3.0,
    ):
        total = total * square + coefficient
    return total * y


@keras.saving.register_keras_serializable("neural_alignment")
class RAdam(keras.optimizers.Optimizer):
    """Rectified Adam (Liu et al. 2020, algorithm 2), with r_t from `rectification`.

        w <- w - lr r_t sqrt(1 - beta_2^t) / (1 - beta_1^t) * m / (sqrt(v) + epsilon)   rho_t >= 5
        w <- w - lr m / (1 - beta_1^t)                                                  otherwise

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
        name: str = "radam",
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
        self._momentums = [
            self.add_variable_from_reference(variable, name="momentum") for variable in variables
        ]
        self._velocities = [
            self.add_variable_from_reference(variable, name="velocity") for variable in variables
        ]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable."""
        gradient = tf.cast(tf.convert_to_tensor(gradient), variable.dtype)
        index = self._get_variable_index(variable)
        m = self.beta_1 * self._momentums[index] + (1.0 - self.beta_1) * gradient
        v = self.beta_2 * self._velocities[index] + (1.0 - self.beta_2) * ops.square(gradient)
        self.assign(self._momentums[index], m)
        self.assign(self._velocities[index], v)
        step = ops.cast(self.iterations, "float32") + 1.0
        self.assign_sub(
            variable,
            adam_step(
                m, v, step, learning_rate, self.beta_1, self.beta_2, self.epsilon, rectified=True
            ),
        )

    def get_config(self) -> dict[str, Any]:
        """Every constructor argument."""
        return super().get_config() | {
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
        }


def adam_step(
    m: Tensor,
    v: Tensor,
    step: Tensor,
    learning_rate: Tensor,
    beta_1: float,
    beta_2: float,
    epsilon: float,
    *,
    rectified: bool,
) -> Tensor:
    """What Adam or RAdam subtracts from a variable.

    Args:
        m: first moment, updated.
        v: second moment, updated.
        step: t, float32, from 1.
        learning_rate: scalar.
        beta_1: in [0, 1).
        beta_2: in (0, 1).
        epsilon: added to the uncorrected root.
        rectified: RAdam instead of Adam.

    Returns:
        A tensor of m's shape and dtype.
    """
    rate = ops.cast(learning_rate, "float32")
    first, second = corrections(step, beta_1, beta_2)
    scale = ops.cast(rate * ops.sqrt(second) / first, m.dtype)
    adaptive = scale * m / (ops.sqrt(v) + epsilon)
    if not rectified:
        return adaptive
    ratio, is_rectified = rectification(step, beta_2)
    plain = ops.cast(rate / first, m.dtype) * m
    return ops.where(is_rectified, ops.cast(ratio, m.dtype) * adaptive, plain)
