"""What every schedule is: a frozen object that the global step alone decides."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
from keras import ops

from neural_alignment.optimizers import validation

Tensor = Any


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Base of the schedules: a frozen dataclass whose fields are its config."""

    def __call__(self, step: Tensor | int) -> Tensor:
        """The value at a step.

        Args:
            step: global step, a Python int or an integer tensor or variable.

        Returns:
            float32 of the step's shape, a scalar.
        """
        return ops.cast(self._value(ops.cast(step, "int32")), "float32")

    def _value(self, step: Tensor) -> Tensor:
        raise NotImplementedError(f"Expected {type(self).__name__} to define _value(step).")

    def get_config(self) -> dict[str, Any]:
        """Every field by name."""
        return dataclasses.asdict(self)

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # a frozen dataclass normalising its own field


def register(cls: type[Schedule]) -> type[Schedule]:
    """Class decorator: a schedule that `.keras` files may name."""
    return keras.saving.register_keras_serializable("neural_alignment")(cls)


def increasing(name: str, epochs: Any) -> tuple[float, ...]:
    """Epochs above 0 that increase, as a tuple of floats.

    Args:
        name: of the argument, for the message.
        epochs: what was given.

    Returns:
        The epochs.

    Raises:
        ValueError: an epoch that is not a finite number above 0, or is not after the one before.
    """
    checked = tuple(validation.number(name, epoch, above=0.0) for epoch in epochs)
    if any(later <= earlier for earlier, later in zip(checked, checked[1:], strict=False)):
        raise ValueError(f"Expected {name} to be increasing epochs. Received: {name}={checked}")
    return checked


# The margin keeps products like 0.7 * 10 * 10 = 70.00000000000001 from costing a step.
def first_step(boundary: float) -> int:
    """The first step that is not before a boundary, in steps."""
    return math.ceil(boundary - 1e-6)


def last_step(boundary: float) -> int:
    """The last step that is not after a boundary, in steps."""
    return math.floor(boundary + 1e-6)
