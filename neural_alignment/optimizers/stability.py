"""Which learning rates descent on R can bear: docs/settings.md."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras

from neural_alignment.optimizers.gd import GradientDescent
from neural_alignment.optimizers.momentum import Momentum
from neural_alignment.optimizers.noisy import Noisy

# So much larger errors in the first steps leave weights that a run does not recover from.
_GROWTH = 1e3


def momentum_and_limit(optimizer: Any) -> tuple[float, float | None]:
    """The momentum m of an optimizer, and the largest rate times curvature for which it converges.

        2 (1 + m)                of momentum
        2 (1 + m) / (1 + 2 m)    of Nesterov's

    Args:
        optimizer: a Keras optimizer.

    Returns:
        m and the limit; None where the optimizer scales the gradient (Adam).
    """
    optimizer = _inner(optimizer)
    if isinstance(optimizer, GradientDescent):
        return 0.0, 2.0
    if not isinstance(optimizer, (keras.optimizers.SGD, Momentum)):
        return 0.0, None
    m = float(optimizer.momentum)
    return m, 2.0 * (1.0 + m) / (1.0 + 2.0 * m) if optimizer.nesterov and m else 2.0 * (1.0 + m)


def _inner(optimizer: Any) -> Any:
    return optimizer.optimizer if isinstance(optimizer, Noisy) else optimizer


def _curvature(rule: Any) -> float | None:
    """The least that R's curvature for B can be, 2 decay_coef; None where no number says it."""
    decay = getattr(rule, "decay_coef", None)
    if not rule.has_loss or not isinstance(decay, (int, float)) or decay <= 0.0:
        return None
    return 2.0 * decay


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
    curvature, (momentum, limit) = _curvature(rule), momentum_and_limit(optimizer)
    if curvature is None or limit is None or rate * scale * curvature < limit:
        return None
    return (
        "B grows without bound, since each step overshoots R's minimum. Expected, with "
        f"decay_coef={rule.decay_coef:g} and momentum {momentum:g}, a rate < "
        f"{limit / (curvature * scale):.3g}, or a decay_coef < "
        f"{limit / (2.0 * rate * scale):.3g} and the other coefficients smaller in proportion. "
        f"Received: learning_rate={rate:g}"
    )


def swing(rule: Any, optimizer: Any, rate: float, scale: float = 1.0) -> float:
    """The largest |B| / |W| on B's way to W, from a start of W's size at right angles to it.

    What is left of the way, d, starts at 1 and ends at 0; under momentum it falls below 0, and B,
    which is `(1 - d) W + d B_0`, is larger than both: `sqrt((1 - d)^2 + d^2)`. Of symmetric
    alignment, whose R has one curvature, `2 decay_coef`.

    Args:
        rule: an alignment.
        optimizer: of its R.
        rate: its learning rate, at its largest.
        scale: what R is multiplied by.

    Returns:
        A number from 1 on; 1 where nothing can be said, or B grows without bound.
    """
    curvature, (m, limit) = _curvature(rule), momentum_and_limit(optimizer)
    if rule.name != "symmetric" or curvature is None or limit is None:
        return 1.0
    step = rate * scale * curvature
    if not 0.0 < step < limit:
        return 1.0
    nesterov = m > 0.0 and _inner(optimizer).nesterov
    left, velocity, least = 1.0, 0.0, 1.0
    for _ in range(round(20.0 / (1.0 - m))):
        gradient = step * left
        velocity = m * velocity + gradient
        left -= gradient + m * velocity if nesterov else velocity
        least = min(least, left)
    return max(1.0, math.hypot(1.0 - least, least))


def amplification(swings: Sequence[float]) -> str | None:
    """What is wrong where many layers' B are too large at once, while they align.

    Args:
        swings: `swing` of every layer; an error goes through one after the other.

    Returns:
        A sentence or two; None where errors stay of their size.
    """
    growth = math.prod(swings)
    if growth <= _GROWTH:
        return None
    return (
        f"momentum takes B past W, to {max(swings):.2g} times its size, in the first steps, and "
        f"errors through {len(swings)} layers grow up to {growth:.1g}-fold, which weights do not "
        "recover from. Expected an optimizer of its own without momentum for R: gd, at a rate of "
        "about 0.4 / decay_coef"
    )
