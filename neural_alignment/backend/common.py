"""What two of the back ends do alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from neural_alignment import backend

Tensor = Any


def read(variable: Any) -> Tensor:
    """A variable's value; that of the stateless call where there is one.

    Args:
        variable: a `keras.Variable` or a tensor.

    Returns:
        A tensor.
    """
    return keras.ops.convert_to_tensor(variable)


def after(inputs: Tensor, reads: Sequence[Tensor]) -> Tensor:
    """The inputs as they are, where no update comes before a read that is written before it.

    Args:
        inputs: x.
        reads: values of the variables.

    Returns:
        x.
    """
    del reads
    return inputs


def replica() -> int:
    """Number of this replica: one program runs on all devices."""
    return 0


def replica_number() -> int:
    """This replica's number, while tracing: that of the one program."""
    return 0


class LayerLosses:
    """Where a layer keeps its losses: as Keras has it."""


def provide_step(
    model: keras.Model, layers: Sequence[Any], updates: Callable[[Any], Any]
) -> Callable[[], None]:
    """Gives layers the number of updates that the model's optimizer has made.

    Args:
        model: compiled.
        layers: with `set_step_source`.
        updates: from an optimizer to that number.

    Returns:
        Takes it away again.
    """
    for layer in layers:
        # Read when the layer is called: a number read now would stay as it is.
        layer.set_step_source(lambda: backend.read(updates(model.optimizer)))

    def undo() -> None:
        for layer in layers:
            layer.set_step_source(None)

    return undo
