"""Which of Keras's layers have a version here."""

from __future__ import annotations

from typing import Any

import keras

from neural_alignment.alignments import Alignment
from neural_alignment.layers import attention, conv_transpose, convolutional, depthwise, separable
from neural_alignment.layers.aligned import Aligned
from neural_alignment.layers.dense import Dense
from neural_alignment.layers.einsum_dense import EinsumDense

# Keras's class to ours, whose config is Keras's with `alignment` in it. One row a layer: align,
# strip, their errors and their report follow it.
VERSIONS: dict[type[keras.layers.Layer], type[keras.layers.Layer]] = {
    keras.layers.Dense: Dense,
    keras.layers.EinsumDense: EinsumDense,
    keras.layers.Conv1D: convolutional.Conv1D,
    keras.layers.Conv2D: convolutional.Conv2D,
    keras.layers.Conv3D: convolutional.Conv3D,
    keras.layers.DepthwiseConv1D: depthwise.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D: depthwise.DepthwiseConv2D,
    keras.layers.SeparableConv1D: separable.SeparableConv1D,
    keras.layers.SeparableConv2D: separable.SeparableConv2D,
    keras.layers.Conv1DTranspose: conv_transpose.Conv1DTranspose,
    keras.layers.Conv2DTranspose: conv_transpose.Conv2DTranspose,
    keras.layers.Conv3DTranspose: conv_transpose.Conv3DTranspose,
    keras.layers.MultiHeadAttention: attention.MultiHeadAttention,
    keras.layers.GroupQueryAttention: attention.GroupQueryAttention,
}
STOCK = {ours: stock for stock, ours in VERSIONS.items()}
_WITH_RULE: tuple[Any, ...] = (Aligned, *STOCK)


def class_with_rule(cls: type) -> type[keras.layers.Layer] | None:
    """The class that takes `alignment=` for layers of a class; None where there is none."""
    return cls if issubclass(cls, _WITH_RULE) else VERSIONS.get(cls)


def version_of(layer: keras.layers.Layer) -> type[keras.layers.Layer] | None:
    """The class in which a layer can follow a rule; None where it cannot, as when quantized."""
    return None if layer.quantization_mode is not None else class_with_rule(type(layer))


def rule_of(layer: keras.layers.Layer) -> Alignment | None:
    """The rule that a layer follows."""
    return layer.alignment if isinstance(layer, _WITH_RULE) else None


def are_versions(cls: type, other: type) -> bool:
    """Whether two classes are Keras's and ours of the same layer, in either order."""
    return VERSIONS.get(cls) is other or VERSIONS.get(other) is cls


def names() -> str:
    """The classes that have a version here, for a message."""
    return ", ".join(ours.__name__ for ours in STOCK)
