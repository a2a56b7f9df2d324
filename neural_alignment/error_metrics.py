"""How far the error that a rule delivers is from backpropagation's, along the whole path.

The local gradient angle compares what one layer does to an error; here the error has come through
all layers above, so that what they do adds up ([A] figure 3b's angle of delta).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from neural_alignment import metrics
from neural_alignment.layers.collector import Taps, backpropagation, tapped
from neural_alignment.layers.site import Site

Tensor = Any


def error_angle(delivered: Tensor, backpropagated: Tensor) -> Tensor:
    """Angle between the error that a rule delivers and backpropagation's ([A] figure 3b).

    Args:
        delivered: at a layer's input, `[batch, ...]`.
        backpropagated: for the same weights, the same shape.

    Returns:
        A scalar, degrees.
    """
    return metrics.angle(delivered, backpropagated)


def error_norm(delivered: Tensor, backpropagated: Tensor) -> Tensor:
    """Size of the error that a rule delivers over backpropagation's.

    Args:
        delivered: at a layer's input, `[batch, ...]`.
        backpropagated: for the same weights, the same shape.

    Returns:
        A scalar; 0 where both are zero.
    """
    return metrics.norm_ratio(backpropagated, delivered)


def error_metrics(
    model: keras.Model,
    inputs: Any,
    labels: Any,
    loss: metrics.Loss | None = None,
    of: Mapping[str, Site] | None = None,
    sample_weight: Any = None,
) -> dict[str, dict[str, float]]:
    """Compares the error at every layer's input with backpropagation's, on one batch.

    The model runs in inference mode, once as the rules have it and once with every error going
    back through the forward kernels, at the same weights. At a layer's input is what the layer
    itself sends there: of a tensor that others read too, their errors are not in it. Direct
    feedback delivers `e B_l` at its points, and what backpropagation's layer, or block, behind a
    point sends there is what that is compared with.

    Args:
        model: a built model.
        inputs: a batch; a list or dict of arrays where the model has several inputs.
        labels: its labels, as loss takes them.
        loss: `loss(labels, outputs)`; None is the loss that the model is compiled with.
        of: name to site, such as `named_sites` gives; None names each by its path. Points of direct
            feedback have their own names, those of the layers behind them, numbered (`a#1`) where
            several models in the model have one.
        sample_weight: of the batch, for the compiled loss.

    Returns:
        Name to `{"error_angle": degrees, "error_norm": ratio of the two, "backprop_norm":
        backpropagation's own}`: an angle to an error of next to no size means nothing. A layer
        called more than once counts with its last call; one that no error reaches is not there.

    Raises:
        ValueError: a model without a loss, or sample weights for a loss that takes none.
    """
    batch = model, inputs, labels, loss, sample_weight
    calls, delivered = metrics.upstream_errors(*batch)
    with backpropagation():
        _, backpropagated = metrics.upstream_errors(*batch)
    names = metrics.names_by_key(model, of)
    measured = {}
    for call, ours, theirs in zip(calls, delivered, backpropagated, strict=True):
        if call.site.key not in names or ours is None or theirs is None:
            continue
        x = metrics.as_float32(call.inputs)
        linear, kernel = call.site.linear, metrics.as_float32(call.site.forward_kernel)
        arrived = linear.input_gradient(
            x, call.site.backward_kernel_value(), metrics.as_float32(ours)
        )
        exact = linear.input_gradient(x, kernel, metrics.as_float32(theirs))
        measured[names[call.site.key]] = _compared(arrived, exact)
    return measured | _at_points(model, inputs, labels, loss, sample_weight, tuple(measured))


def _compared(delivered: Tensor, backpropagated: Tensor) -> dict[str, float]:
    delivered, exact = map(metrics.as_float32, (delivered, backpropagated))
    return {
        "error_angle": metrics.number(error_angle(delivered, exact)),
        "error_norm": metrics.number(error_norm(delivered, exact)),
        "backprop_norm": metrics.number(ops.sqrt(metrics.squared_norm(exact))),
    }


def _at_points(
    model: keras.Model,
    inputs: Any,
    labels: Any,
    loss: metrics.Loss | None,
    sample_weight: Any,
    taken: Sequence[str],
) -> dict[str, dict[str, float]]:
    """The same of the points that direct feedback sends errors to, by their names."""
    inputs = keras.tree.map_structure(ops.convert_to_tensor, inputs)
    with tapped(Taps()) as seen:
        model(inputs, training=False)
    # A point and the stop behind it see one tensor.
    names = _names_of_points(seen, taken)
    behind = {
        name: place
        for name, (_, point, _) in zip(names, seen.points, strict=True)
        for place, stopped in enumerate(seen.stops)
        if stopped is point
    }
    if not behind:
        return {}

    def errors(of: str, tensors: Sequence[Tensor]) -> list[Tensor | None]:
        added = [ops.zeros_like(tensor) for tensor in tensors]
        meeting = lambda given: tapped(Taps(**{of: given}))  # noqa: E731
        return metrics.arriving_errors(model, inputs, labels, meeting, added, loss, sample_weight)

    delivered = errors("at_points", [point for _, point, _ in seen.points])
    with backpropagation():
        exact = errors("at_stops", seen.stops)
    return {
        name: _compared(arrived, exact[behind[name]])
        for name, arrived in zip(names, delivered, strict=True)
        if name in behind and arrived is not None and exact[behind[name]] is not None
    }


def _names_of_points(seen: Taps, taken: Sequence[str]) -> list[str]:
    """Names of points, numbered where several models inside a model have one name."""
    owners: dict[str, list[Any]] = {name: [None] for name in taken}
    for name, _, owner in seen.points:
        known = owners.setdefault(name, [])
        if not any(one is owner for one in known):
            known.append(owner)
    return [
        name
        if len(owners[name]) == 1
        else f"{name}#{[one is owner for one in owners[name]].index(True) + 1}"
        for name, _, owner in seen.points
    ]
