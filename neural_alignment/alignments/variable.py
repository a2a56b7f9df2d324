"""What a rule asks a layer to make."""

import dataclasses
from collections.abc import Callable
from typing import Any

Tensor = Any


@dataclasses.dataclass(frozen=True)
class Variable:
    """What a rule asks the layer to make.

    Args:
        shape: of the variable.
        initializer: a Keras initializer.
        trainable: whether an optimizer may change it.
    """

    shape: tuple[int, ...]
    initializer: Callable[..., Tensor]
    trainable: bool
