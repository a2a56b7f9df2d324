"""Which learning rates descent on R can bear: docs/settings.md."""

from __future__ import annotations

from typing import Any

import keras

from neural_alignment.optimizers.gd import GradientDescent
from neural_alignment.optimizers.momentum import Momentum
from neural_alignment.optimizers.noisy import Noisy


def momentum_and_limit(optimizer: Any) -> tuple[float, float | None]:
    """The momentum m of an optimizer, and the largest rate times curvature for which it converges.

        2 (1 + m)                of momentum
        2 (1 + m) / (1 + 2 m)    of Nesterov's

    Args:
        optimizer: a Keras optimizer.

    Returns:
        m and the limit; None where the optimizer scales the gradient (Adam).
    """
    if isinstance(optimizer, Noisy):
        optimizer = optimizer.optimizer
    if isinstance(optimizer, GradientDescent):
        return 0.0, 2.0
    if not isinstance(optimizer, (keras.optimizers.SGD, Momentum)):
        return 0.0, None
    m = float(optimizer.momentum)
    return m, 2.0 * (1.0 + m) / (1.0 + 2.0 * m) if optimizer.nesterov and m else 2.0 * (1.0 + m)


def overshoot(rule: Any, optimizer: Any, rate: float, scale: float = 1.0) -> str | None:
    """What is wrong with a rate at which B leaves R's minimum further with every step.

    R's curvature for B is `h >= 2 decay_coef`. A coefficient that is a schedule is not judged.

    Args:
        rule: an alignment.
        optimizer: of its R.
        rate: its learning rate, at its largest.
        scale: what R is multiplied by.

    Returns:
        A sentence or two; None where the rate is sound, or nothing can be said.
    """
    decay = getattr(rule, "decay_coef", None)
    if not rule.has_loss or not isinstance(decay, (int, float)) or decay <= 0.0:
        return None
    momentum, limit = momentum_and_limit(optimizer)
    if limit is None or rate * scale * 2.0 * decay < limit:
        return None
    return (
        "B grows without bound, since each step overshoots R's minimum. Expected, with "
        f"decay_coef={decay:g} and momentum {momentum:g}, a rate < "
        f"{limit / (2.0 * decay * scale):.3g}, or a decay_coef < "
        f"{limit / (2.0 * rate * scale):.3g} and the other coefficients smaller in proportion. "
        f"Received: learning_rate={rate:g}"
    )
