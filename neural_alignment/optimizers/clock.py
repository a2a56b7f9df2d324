"""One clock: the number of updates of the weights."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

Tensor = Any


def updates(optimizer: Any) -> Tensor:
    """How often an optimizer has updated the weights; a batch that is only accumulated is none.

    Args:
        optimizer: a `keras.optimizers.Optimizer`: ours, Keras's, or one of Keras's wrappers.

    Returns:
        An integer scalar, a variable or a tensor: to be read when it is needed.

    Raises:
        ValueError: no Keras optimizer, or one whose parts do not update together.
    """
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise ValueError(
            "Expected a model compiled with a Keras optimizer, whose updates are the global step. "
            f"Received: optimizer={optimizer!r}. Compile the model with one, or train in "
            "`with neural_alignment.layers.training_step(global_step):`, which gives the step."
        )
    optimizer = unscaled(optimizer)  # what is around it may leave batches out
    parts = getattr(optimizer, "optimizers", None)  # keras.optimizers.MultiOptimizer
    if not parts:
        return optimizer.iterations
    return ops.floor_divide(optimizer.iterations, common_accumulation(parts))


def unscaled(optimizer: Any) -> Any:
    """The optimizer that Keras's `LossScaleOptimizer` is around; any other one as it is.

    Args:
        optimizer: a `keras.optimizers.Optimizer`, or what a model has in the place of one.

    Returns:
        The optimizer whose update rule it is.
    """
    return getattr(optimizer, "inner_optimizer", optimizer)


def batches_per_update(optimizer: Any) -> int:
    """How many batches an optimizer accumulates before it updates the weights.

    Args:
        optimizer: a `keras.optimizers.Optimizer`.

    Returns:
        Its `gradient_accumulation_steps`, or those of the optimizers inside; 1 for none.

    Raises:
        ValueError: the optimizers inside differ.
    """
    optimizer = unscaled(optimizer)
    parts = getattr(optimizer, "optimizers", None)
    if parts:
        return common_accumulation(parts)
    routed = getattr(optimizer, "batches_per_update", None)
    return routed or optimizer.gradient_accumulation_steps or 1


def common_accumulation(optimizers: Any) -> int:
    """How many batches make one update of each of several optimizers.

    Args:
        optimizers: that are applied to every batch together.

    Returns:
        Their `gradient_accumulation_steps`, 1 for none.

    Raises:
        ValueError: they differ.
    """
    batches = [batches_per_update(one) for one in optimizers]
    if len(set(batches)) > 1:
        raise ValueError(
            "Expected optimizers that update together, with the same gradient_accumulation_steps. "
            f"Received: {[(one.name, n) for one, n in zip(optimizers, batches, strict=True)]}. "
            "Give each the same number, or none."
        )
    return batches[0]
