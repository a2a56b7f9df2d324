"""How the two kernels' connections go together ([P] appendix B)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from neural_alignment import metrics
from neural_alignment.layers.site import Site

Tensor = Any

# Deviations from the mean, of the weights' own size, that rounding leaves of a constant.
_FLAT = 1e-5


def weight_correlation(forward_kernel: Tensor, backward_kernel: Tensor) -> Tensor:
    """Pearson's correlation of W and B over the pairs that are connected both ways.

    Args:
        forward_kernel: W; 0 is no connection.
        backward_kernel: B, W's shape.

    Returns:
        A scalar in [-1, 1]; 0 where either is constant, NaN where elements are not finite.
    """
    w, b = metrics.as_float32(forward_kernel), metrics.as_float32(backward_kernel)
    both = ops.cast(_connected(w, b)[1], "float32")
    count = ops.maximum(ops.sum(both), 1.0)
    least = [_FLAT * ops.sqrt(metrics.squared_norm(x * both)) for x in (w, b)]
    w, b = ((x - ops.sum(x * both) / count) * both for x in (w, b))
    sizes = [ops.sqrt(metrics.squared_norm(x)) for x in (w, b)]
    vary = ops.logical_not(ops.logical_or(sizes[0] <= least[0], sizes[1] <= least[1]))
    product = ops.where(vary, sizes[0] * sizes[1], 1.0)
    return ops.where(vary, ops.sum(w * b) / product, 0.0)


def connected_shares(forward_kernel: Tensor, backward_kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of the pairs of units that are connected one way alone, and both ways.

    Args:
        forward_kernel: W; 0 is no connection.
        backward_kernel: B, W's shape.

    Returns:
        Two scalars in [0, 1].
    """
    one, both = _connected(*map(metrics.as_float32, (forward_kernel, backward_kernel)))
    return ops.mean(ops.cast(one, "float32")), ops.mean(ops.cast(both, "float32"))


def _connected(w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    forth, back = ops.not_equal(w, 0.0), ops.not_equal(b, 0.0)
    return ops.logical_xor(forth, back), ops.logical_and(forth, back)


def connection_metrics(
    model: keras.Model, of: Mapping[str, Site] | None = None
) -> dict[str, dict[str, float]]:
    """Correlation of W and B, and the shares of pairs connected, of every kernel under a rule.

    Args:
        model: a built model.
        of: name to site, such as `named_sites` gives; None names each by its path.

    Returns:
        Name to `{"weight_correlation": ..., "one_way": share, "both_ways": share}`.
    """
    names = metrics.names_by_key(model, of)
    measured = {}
    for site in metrics.sites(model):
        if site.key not in names:
            continue
        kernel, backward = site.forward_kernel, site.backward_kernel_value()
        one, both = connected_shares(kernel, backward)
        measured[names[site.key]] = {
            "weight_correlation": metrics.number(weight_correlation(kernel, backward)),
            "one_way": metrics.number(one),
            "both_ways": metrics.number(both),
        }
    return measured
