"""Learning rates that R cannot bear: told when training starts, by every callback of ours."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from neural_alignment.alignments import AlignmentWarning
from neural_alignment.layers.aligned import sites
from neural_alignment.layers.site import Site
from neural_alignment.optimizers.gd import GradientDescent
from neural_alignment.optimizers.momentum import Momentum
from neural_alignment.optimizers.routed import RoutedOptimizer


def warn(model: keras.Model) -> None:
    """Warns of backward kernels that the compiled optimizer drives apart from R's minimum.

    R's curvature for B is `h >= 2 decay_coef`, and descent at rate r with momentum m converges for

        r h < 2 (1 + m)                     of momentum
        r h < 2 (1 + m) / (1 + 2 m)         of Nesterov's

    (docs/settings.md). Optimizers that scale the gradient (Adam) are not judged, nor are
    coefficients that are schedules.

    Args:
        model: a compiled model.
    """
    for doubt in dict.fromkeys(_doubts(model)):
        # Always from this place, so that Python's default filter shows each text once.
        warnings.warn(doubt, AlignmentWarning, stacklevel=1)


def _doubts(model: keras.Model) -> Iterator[str]:
    for site in sites(model):
        rule = site.alignment
        decay = getattr(rule, "decay_coef", None)
        if not rule.has_loss or not isinstance(decay, (int, float)) or decay <= 0.0:
            continue
        optimizer = _of_backward_kernel(site, getattr(model, "optimizer", None))
        momentum, limit = _stability(optimizer)
        if limit is None:
            continue
        rate = float(ops.convert_to_numpy(optimizer.learning_rate))
        if rate * 2.0 * decay >= limit:
            yield (
                f"{type(rule).__name__}: B grows without bound, since each step overshoots R's "
                f"minimum. Expected, with decay_coef={decay:g} and momentum {momentum:g}, a rate "
                f"< {limit / (2.0 * decay):.3g}, or a decay_coef < {limit / (2.0 * rate):.3g} and "
                f"the other coefficients smaller in proportion. Received: learning_rate={rate:g}"
            )


def _of_backward_kernel(site: Site, optimizer: Any) -> Any:
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # of a LossScaleOptimizer
    if isinstance(optimizer, RoutedOptimizer):
        tied = site.alignment.tie_grad
        return optimizer.optimizer if tied else optimizer.alignment_optimizer
    return optimizer


def _stability(optimizer: Any) -> tuple[float, float | None]:
    """Momentum, and the largest `rate * curvature`; None where it is not known."""
    if isinstance(optimizer, GradientDescent):
        return 0.0, 2.0
    if not isinstance(optimizer, (keras.optimizers.SGD, Momentum)):
        return 0.0, None
    m = float(optimizer.momentum)
    return m, 2.0 * (1.0 + m) / (1.0 + 2.0 * m) if optimizer.nesterov and m else 2.0 * (1.0 + m)
