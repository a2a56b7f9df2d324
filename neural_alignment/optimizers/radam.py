"""Rectified Adam."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from neural_alignment.optimizers.adam import Adam

Tensor = Any


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
class RAdam(Adam):
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
        super().__init__(
            learning_rate, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon, name=name, **kwargs
        )

    def direction(self, m: Tensor, v: Tensor, learning_rate: Tensor) -> Tensor:
        """What is subtracted from a variable."""
        ratio, rectified = rectification(self.step(), self.beta_2)
        first, _ = self.corrections()
        plain = ops.cast(ops.cast(learning_rate, "float32") / first, m.dtype) * m
        adaptive = super().direction(m, v, learning_rate)
        return ops.where(rectified, ops.cast(ratio, m.dtype) * adaptive, plain)
