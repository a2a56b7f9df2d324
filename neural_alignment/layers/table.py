"""Which of Keras's layers have a version here."""

from __future__ import annotations

import keras

from neural_alignment.layers.aligned import Aligned
from neural_alignment.layers.convolutional import Conv1D, Conv2D, Conv3D
from neural_alignment.layers.dense import Dense

# Keras's class to ours, whose config is Keras's with `alignment` in it. One row a layer: align,
# strip, their errors and their report follow it.
VERSIONS: dict[type[keras.layers.Layer], type[Aligned]] = {
    keras.layers.Dense: Dense,
    keras.layers.Conv1D: Conv1D,
    keras.layers.Conv2D: Conv2D,
    keras.layers.Conv3D: Conv3D,
}
STOCK = {ours: stock for stock, ours in VERSIONS.items()}


def class_with_rule(cls: type) -> type[Aligned] | None:
    """The class that takes `alignment=` for layers of a class; None where there is none."""
    return cls if issubclass(cls, Aligned) else VERSIONS.get(cls)


def version_of(layer: keras.layers.Layer) -> type[Aligned] | None:
    """The class in which a layer can follow a rule; None where it cannot, as when quantized."""
    return None if layer.quantization_mode is not None else class_with_rule(type(layer))


def are_versions(cls: type, other: type) -> bool:
    """Whether two classes are Keras's and ours of the same layer, in either order."""
    return VERSIONS.get(cls) is other or VERSIONS.get(other) is cls


def names() -> str:
    """Keras's classes that have a version here, for a message."""
    return ", ".join(stock.__name__ for stock in VERSIONS)
