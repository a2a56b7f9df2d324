"""Epochs in whole steps."""

from __future__ import annotations

import math


def whole_steps(epochs: float, steps_per_epoch: float) -> int:
    """The whole steps within so many epochs.

    Args:
        epochs: whole or not.
        steps_per_epoch: steps in an epoch.

    Returns:
        The number of steps, 0 or more.
    """
    # The margin keeps products like 0.7 * 10 = 7.000000000000001 from costing a step.
    return math.floor(epochs * steps_per_epoch + 1e-6)
