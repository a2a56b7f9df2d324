"""Rules that are exact only where updates are linear in the gradients, and optimizers that are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from neural_alignment import ties
from neural_alignment.optimizers.clock import unscaled
from neural_alignment.optimizers.gd import GradientDescent
from neural_alignment.optimizers.momentum import Momentum


def check(optimizer: Any, variables: Sequence[Any], clips: bool = False) -> None:
    """Refuses an optimizer for kernels that it would train to something else.

    Args:
        optimizer: a `keras.optimizers.Optimizer`; one of Keras's for scaled losses may be around
            it.
        variables: that it updates.
        clips: whether gradients are clipped before they come to it.

    Raises:
        ValueError: a variable wants updates that are linear in the gradients, and these are not.
    """
    optimizer = unscaled(optimizer)
    wanting = [variable.path for variable in variables if ties.requires_linear(variable)]
    if wanting and (clips or not _is_linear(optimizer)):
        raise ValueError(
            "Expected gradient descent or momentum, without clipping, for a rule that is exact "
            "only where updates are linear in the gradients (product with factored=False). "
            f"Received: {_described(optimizer, clips)}, for {wanting}. Take another optimizer, or "
            "factored=True."
        )


def check_scaled(optimizer: Any, name: str, value: float, clips: bool = False) -> None:
    """Refuses an optimizer whose update does not scale with the gradient.

    Args:
        optimizer: a `keras.optimizers.Optimizer`.
        name: of what scales a gradient in the rate's place, for the message.
        value: its value.
        clips: whether gradients are clipped before they come to it.

    Raises:
        ValueError: it does not.
    """
    if clips or not _is_linear(unscaled(optimizer)):
        raise ValueError(
            f"Expected gradient descent or momentum, without clipping, with {name}={value:g}, as a "
            "factor of the gradient is one of the rate there alone. "
            f"Received: {_described(optimizer, clips)}."
        )


def _described(optimizer: Any, clips: bool) -> str:
    name = getattr(optimizer, "name", optimizer)
    return f"{name!r}, a {type(optimizer).__name__}{', behind clipping' if clips else ''}"


def _is_linear(optimizer: Any) -> bool:
    known = (GradientDescent, Momentum, keras.optimizers.SGD)
    # On PyTorch Keras makes an SGD of a class of its own.
    own = type(optimizer) in known or type(optimizer).__module__.startswith("keras.")
    if not (own and isinstance(optimizer, known)):
        return False
    clips = (optimizer.clipnorm, optimizer.global_clipnorm, optimizer.clipvalue)
    return clips == (None, None, None)
