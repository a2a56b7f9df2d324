"""Optimizers that a rule cannot bear: told when training starts, by every callback of ours."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from neural_alignment import keras_private, ties
from neural_alignment.alignments import AlignmentWarning
from neural_alignment.layers.aligned import sites
from neural_alignment.layers.site import Site
from neural_alignment.metrics import named_sites
from neural_alignment.optimizers import linear, stability
from neural_alignment.optimizers.clock import unscaled
from neural_alignment.optimizers.routed import RoutedOptimizer


def check(model: keras.Model) -> None:
    """Warns of backward kernels that training drives away from R's minimum or their W, or of 0.

    Args:
        model: a compiled model.

    Raises:
        ValueError: a rule wants updates that are linear in the gradients, and the optimizer's are
            not; of several optimizers, W and B of a rule that ties their gradients go to two.
    """
    optimizer = unscaled(getattr(model, "optimizer", None))
    if optimizer is not None and not isinstance(optimizer, RoutedOptimizer):  # which looks itself
        for variable in model.trainable_variables:
            _check_variable(optimizer, variable)
    found = (*_doubts(model), *_doubts_of_tied_kernels(model), *_doubts_of_fixed_kernels(model))
    for doubt in dict.fromkeys(found):
        # Always from this place, so that Python's default filter shows each text once.
        warnings.warn(doubt, AlignmentWarning, stacklevel=1)


def check_called(model: keras.Model) -> None:
    """Warns, after an epoch, of layers that are called as in inference while they are trained.

    Args:
        model: that was trained by `fit`.
    """
    idle = [
        name
        for name, site in named_sites(model).items()
        if (site.alignment.has_loss or site.alignment.updates_itself)
        and site.layer.trainable
        and not site.has_learnt
    ]
    if not idle:
        return
    lost = f"R of {', '.join(idle)} is not made, nor B moved"
    if "training" in inspect.signature(model.call).parameters:
        told = (
            f"{lost}: their layers are called with training=False, as in self.base(x, "
            "training=False), or not at all. Call what trains without it, or freeze it "
            "(layer.trainable = False)."
        )
    else:
        told = (
            f"{type(model).__name__}.call takes no `training`, so that Keras calls its layers as "
            f"in inference, and {lost}. Write call(self, inputs, training=None)."
        )
    warnings.warn(told, AlignmentWarning, stacklevel=1)


def _check_variable(optimizer: Any, variable: Any) -> None:
    own = keras_private.optimizer_of(optimizer, variable)
    linear.check(own, [variable])
    forward = ties.forward_kernel(variable)
    if forward is None or not forward.trainable:
        return
    other = keras_private.optimizer_of(optimizer, forward)
    if own is not other and _settings(own) != _settings(other):
        raise ValueError(
            "Expected one optimizer for both kernels of a rule that ties their gradients: W and B "
            f"meet only if both take the same steps. Received: {own.name!r} for {variable.path!r} "
            f"and {other.name!r} for {forward.path!r}"
        )


def _settings(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    return {**optimizer.get_config(), "name": type(optimizer)}


def _doubts(model: keras.Model) -> Iterator[str]:
    swings = []
    for site in sites(model):
        optimizer = _of_backward_kernel(site, getattr(model, "optimizer", None))
        if stability.momentum_and_limit(optimizer)[1] is None:
            continue
        rate = float(ops.convert_to_numpy(optimizer.learning_rate))
        swings.append(stability.swing(site.alignment, optimizer, rate))
        doubt = stability.overshoot(site.alignment, optimizer, rate)
        if doubt is not None:
            yield f"{type(site.alignment).__name__}: {doubt}"
    doubt = stability.amplification(swings)
    if doubt is not None:
        yield f"Symmetric: {doubt} (optimizers.RoutedOptimizer)"


def _doubts_of_tied_kernels(model: keras.Model) -> Iterator[str]:
    """Of a B that gets W's gradient, and whose W does not take the steps that it gives."""
    held, constrained = [], []
    for variable in model.trainable_variables:
        forward = ties.forward_kernel(variable)
        if forward is not None and not forward.trainable:
            held.append(variable.path)
        elif forward is not None and forward.constraint is not None:
            constrained.append(variable.path)
    if held:
        yield (
            "B gets W's gradient, and W is not trained by it, since it is frozen or LoRA's factors "
            "move it: they part. Expected a frozen layer (layer.trainable = False), or with LoRA a "
            f"rule that does not tie the gradients. Received: {', '.join(held)}"
        )
    if constrained:
        yield (
            "B gets W's gradient, and W a constraint behind every update, which B has not: they "
            "part where it acts. Expected no kernel_constraint with a rule that ties the "
            f"gradients. Received: {', '.join(constrained)}"
        )


def _doubts_of_fixed_kernels(model: keras.Model) -> Iterator[str]:
    """Of a B that nothing moves and that is 0, as that of a head whose kernel begins at 0."""
    silent = []
    for site in sites(model):
        rule, kernel = site.alignment, site.variables.get("backward_kernel")
        moves = rule.tie_grad or rule.has_loss or rule.updates_itself
        if kernel is not None and not moves and not np.any(ops.convert_to_numpy(kernel)):
            silent.append(site.path)
    if silent:
        yield (
            "B is 0 and stays so: no error goes below. Expected a kernel_initializer that draws, "
            "as B is drawn by it too, with a rule that does not train B. Received: zeros in "
            f"{', '.join(silent)}"
        )


def _of_backward_kernel(site: Site, optimizer: Any) -> Any:
    optimizer = unscaled(optimizer)
    if isinstance(optimizer, RoutedOptimizer):
        tied = site.alignment.tie_grad
        return optimizer.optimizer if tied else optimizer.alignment_optimizer
    return optimizer
