"""How far the backward path is from the forward path: angles and norms ([K] section 4, [A] fig. 3).

Angles are in degrees between flattened tensors; 0 where both point the same way, 90 where one of
them is zero. The first functions are of tensors alone; those at the end measure a model.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from neural_alignment import backend, keras_private, one_batch
from neural_alignment.layers import Aligned
from neural_alignment.layers.aligned import Call, probe, sites
from neural_alignment.layers.site import Site
from neural_alignment.maps import Linear

Tensor = Any
Loss = Callable[[Any, Any], Tensor]


def angle(first: Tensor, second: Tensor) -> Tensor:
    """Angle between two tensors as vectors: `2 atan2(|a - b|, |a + b|)` of their unit vectors.

    The form keeps small angles that `acos` of a float32 cosine would lose.

    Args:
        first: any shape.
        second: the same shape.

    Returns:
        A float32 scalar, degrees in [0, 180]; NaN where a tensor has elements that are not finite.
    """
    a, b = (_unit(as_float32(t)) for t in (first, second))
    apart, along = _norm(a - b), _norm(a + b)
    degrees = 2.0 * ops.arctan2(apart, along) * (180.0 / math.pi)
    return ops.where(ops.equal(apart + along, 0.0), 90.0, degrees)


def as_float32(x: Tensor) -> Tensor:
    """A tensor or variable as float32."""
    return ops.cast(ops.convert_to_tensor(x), "float32")


def _norm(x: Tensor) -> Tensor:
    return ops.sqrt(squared_norm(x))


def _ratio(x: Tensor, y: Tensor) -> Tensor:
    """x / y, and 0 where y is 0."""
    zero = ops.equal(y, 0.0)
    return ops.where(zero, 0.0, x / ops.where(zero, 1.0, y))


def _unit(x: Tensor) -> Tensor:
    # Scaled by the largest element first, so that squares neither overflow nor vanish.
    x = _ratio(x, ops.max(ops.abs(x)))
    return _ratio(x, _norm(x))


def squared_norm(x: Tensor) -> Tensor:
    """Squared norm, `sum x^2`.

    Args:
        x: any shape.

    Returns:
        A scalar.
    """
    return ops.sum(ops.square(x))


def mean_square(x: Tensor) -> Tensor:
    """Mean square, `mean x^2`.

    Args:
        x: any shape.

    Returns:
        A scalar.
    """
    return ops.mean(ops.square(x))


def weight_angle(forward_kernel: Tensor, backward_kernel: Tensor) -> Tensor:
    """Angle between vec(W) and vec(B) ([K] figure 3).

    Args:
        forward_kernel: W.
        backward_kernel: B, W's shape.

    Returns:
        A scalar, degrees.
    """
    return angle(forward_kernel, backward_kernel)


def norm_ratio(forward_kernel: Tensor, backward_kernel: Tensor) -> Tensor:
    """Size of the backward kernel over the forward kernel's, `|B|_F / |W|_F`.

    Args:
        forward_kernel: W.
        backward_kernel: B.

    Returns:
        A scalar; 0 where both are zero.
    """
    backward_norm, forward_norm = (
        _norm(as_float32(kernel)) for kernel in (backward_kernel, forward_kernel)
    )
    return _ratio(backward_norm, forward_norm)


def projection_angle(
    linear: Linear, inputs: Tensor, forward_kernel: Tensor, backward_kernel: Tensor
) -> Tensor:
    """Angle between `x W` and `x B` ([K] section 4).

    Args:
        linear: the layer's bilinear map.
        inputs: x, `[batch, ...]`.
        forward_kernel: W.
        backward_kernel: B.

    Returns:
        A scalar, degrees.
    """
    return angle(linear.apply(inputs, forward_kernel), linear.apply(inputs, backward_kernel))


def local_gradient_angle(
    linear: Linear,
    inputs: Tensor,
    upstream: Tensor,
    forward_kernel: Tensor,
    backward_kernel: Tensor,
) -> Tensor:
    """Angle between the pseudogradient `dy B^T` and `dy W^T` of the same upstream ([K] section 4).

    Args:
        linear: the layer's bilinear map.
        inputs: x, for its shape.
        upstream: dy, the error at the layer's output before bias and activation.
        forward_kernel: W.
        backward_kernel: B.

    Returns:
        A scalar, degrees.
    """
    return angle(
        linear.input_gradient(inputs, backward_kernel, upstream),
        linear.input_gradient(inputs, forward_kernel, upstream),
    )


def named_sites(model: keras.Model) -> dict[str, Site]:
    """Every kernel under a rule, by a name that the model alone determines.

    The layer's name, after those of the models and layers it is in: `head`, `left/conv1`; then the
    kernel's, where a layer has several. A name that Keras gave, such as `dense_3`, has a number
    that depends on what was made before: it is counted in the order of the model instead,
    `dense#1`, `dense#2`, and so are layers of equal names in one place.

    Args:
        model: a built model.

    Returns:
        Name to site, in the order of the model; a layer that is used twice is there once.
    """
    named: dict[str, Site] = {}
    seen: set[int] = set()

    def visit(parent: Any, prefix: str) -> None:
        children = keras_private.child_layers(parent)
        for name, child in zip(_sibling_names(children), children, strict=True):
            if id(child) in seen:
                continue
            seen.add(id(child))
            for site in child.sites if isinstance(child, Aligned) else ():
                several = f"/{site.place.name}" if site.place.name else ""
                named[f"{prefix}{name}{several}"] = site
            visit(child, f"{prefix}{name}/")

    visit(model, "")
    return named


def _sibling_names(layers: Sequence[Any]) -> list[str]:
    bases = []
    for layer in layers:
        kind = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)
        kind = re.sub(r"([a-z])([A-Z])", r"\1_\2", kind).lower()
        automatic = re.fullmatch(rf"{re.escape(kind)}(_\d+)?", layer.name) is not None
        bases.append((kind if automatic else layer.name, automatic))
    return [
        f"{base[0]}#{bases[: index + 1].count(base)}"
        if base[1] or bases.count(base) > 1
        else base[0]
        for index, base in enumerate(bases)
    ]


def _by_path(model: keras.Model) -> dict[str, Site]:
    found = sites(model)
    paths = [site.path for site in found]
    return {
        path if paths.count(path) == 1 else f"{path}#{paths[: index + 1].count(path)}": site
        for index, (path, site) in enumerate(zip(paths, found, strict=True))
    }


def names_by_key(model: keras.Model, of: Mapping[str, Site] | None = None) -> dict[Any, str]:
    """A site's key to its name.

    Args:
        model: a built model.
        of: name to site, such as `named_sites` gives; None names each by its path.

    Returns:
        The names.
    """
    return {site.key: name for name, site in (_by_path(model) if of is None else of).items()}


def number(x: Tensor) -> float:
    """A scalar as a Python number."""
    return float(ops.convert_to_numpy(x))


def kernel_metrics(
    model: keras.Model, of: Mapping[str, Site] | None = None
) -> dict[str, dict[str, float]]:
    """Weight angle and norm ratio of every kernel under a rule.

    Args:
        model: a built model.
        of: name to site, such as `named_sites` gives; None names each by its path.

    Returns:
        Name to `{"weight_angle": degrees, "norm_ratio": |B| / |W|}`.
    """
    measured = {}
    for name, site in (_by_path(model) if of is None else of).items():
        kernel, backward = as_float32(site.forward_kernel), site.backward_kernel_value()
        measured[name] = {
            "weight_angle": number(weight_angle(kernel, backward)),
            "norm_ratio": number(norm_ratio(kernel, backward)),
        }
    return measured


def path_metrics(
    model: keras.Model,
    inputs: Any,
    labels: Any,
    loss: Loss | None = None,
    of: Mapping[str, Site] | None = None,
    sample_weight: Any = None,
) -> dict[str, dict[str, float]]:
    """Projection and local gradient angle of every kernel under a rule, on one batch.

    The model runs in inference mode; the upstream errors are those the rule delivers.

    Args:
        model: a built model.
        inputs: a batch; a list or dict of arrays where the model has several inputs.
        labels: its labels, as loss takes them.
        loss: `loss(labels, outputs)`; None is the loss that the model is compiled with.
        of: name to site, such as `named_sites` gives; None names each by its path.
        sample_weight: of the batch, for the compiled loss.

    Returns:
        Name to `{"projection_angle": degrees, "local_gradient_angle": degrees}`. A layer called
        more than once counts with its last call; one that no error reaches has no local gradient
        angle.

    Raises:
        ValueError: a model without a loss, sample weights for a loss that takes none, or a batch
            of no examples, or of anything but arrays.
    """
    calls, upstreams = upstream_errors(model, inputs, labels, loss, sample_weight)
    names = names_by_key(model, of)
    measured = {}
    for call, upstream in zip(calls, upstreams, strict=True):
        if call.site.key not in names:
            continue
        kernel, backward = as_float32(call.site.forward_kernel), call.site.backward_kernel_value()
        linear, x = call.site.linear, as_float32(call.inputs)
        angles = {"projection_angle": projection_angle(linear, x, kernel, backward)}
        if upstream is not None:
            angles["local_gradient_angle"] = local_gradient_angle(
                linear, x, as_float32(upstream), kernel, backward
            )
        measured[names[call.site.key]] = {name: number(one) for name, one in angles.items()}
    return measured


def upstream_errors(
    model: keras.Model,
    inputs: Any,
    labels: Any,
    loss: Loss | None = None,
    sample_weight: Any = None,
) -> tuple[list[Call], list[Tensor | None]]:
    """The error that arrives at every aligned layer's output, before bias and activation.

    Args:
        model: a built model, run in inference mode.
        inputs: a batch, as the model takes it.
        labels: its labels.
        loss: `loss(labels, outputs)`; None is the loss that the model is compiled with.
        sample_weight: of the batch, for the compiled loss.

    Returns:
        The calls in their order, and dy of each; None where no error arrives.

    Raises:
        ValueError: a model without a loss, or sample weights for a loss that takes none.
    """
    inputs, labels, sample_weight = one_batch.tensors(inputs, labels, sample_weight, loss)
    with probe() as calls:
        model(inputs, training=False)
    # Not the projections themselves: JAX differentiates by what goes in alone.
    added = [ops.zeros_like(call.projection) for call in calls]
    return calls, arriving_errors(model, inputs, labels, probe, added, loss, sample_weight)


def arriving_errors(
    model: keras.Model,
    inputs: Any,
    labels: Any,
    meeting: Callable[[Sequence[Tensor]], contextlib.AbstractContextManager[Any]],
    added: Sequence[Tensor],
    loss: Loss | None = None,
    sample_weight: Any = None,
) -> list[Tensor | None]:
    """The errors that arrive where zeros are added inside a model.

    Args:
        model: a built model, run in inference mode.
        inputs: a batch, as the model takes it.
        labels: its labels.
        meeting: a context of tensors, in which the model is called and adds them.
        added: the zeros.
        loss: `loss(labels, outputs)`; None is the loss that the model is compiled with.
        sample_weight: of the batch, for the compiled loss.

    Returns:
        The gradient of the loss for each; None where no error arrives. Of a model that computes in
        float16 in float32: the loss was scaled meanwhile.

    Raises:
        ValueError: a model without a loss, or sample weights for a loss that takes none.
    """
    inputs, labels, sample_weight = one_batch.tensors(inputs, labels, sample_weight, loss)
    of_outputs = one_batch.loss_of(model, loss, sample_weight)
    if not added:
        return []

    def errors(scale: float) -> list[Tensor | None]:
        def value(tensors: Sequence[Tensor]) -> tuple[Tensor, None]:
            with meeting(tensors):
                outputs = model(inputs, training=False)
            return scale * ops.cast(of_outputs(inputs, labels, outputs), "float32"), None

        return backend.value_and_gradients(value, added)[1]

    found = _unscaled(errors) if _has_float16(model) else errors(1.0)
    # JAX has zeros where nothing arrives.
    return [error if _arrives(error) else None for error in found]


def _has_float16(model: keras.Model) -> bool:
    return any(layer.compute_dtype == "float16" for layer in keras_private.flatten_layers(model))


def _unscaled(errors: Callable[[float], list[Tensor | None]]) -> list[Tensor | None]:
    """Errors through float16, of a loss as large as fits: below 6e-8 there is nothing in it."""
    for scale in (2.0**power for power in range(24, -1, -4)):
        found = errors(scale)
        finite = [
            bool(ops.convert_to_numpy(ops.all(ops.isfinite(e)))) for e in found if e is not None
        ]
        if all(finite):
            break
    return [None if e is None else ops.cast(e, "float32") / scale for e in found]


def _arrives(upstream: Tensor | None) -> bool:
    return upstream is not None and bool(ops.convert_to_numpy(ops.any(ops.not_equal(upstream, 0))))
