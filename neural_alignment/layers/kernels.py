"""Which layers send the error below through a kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from neural_alignment import keras_private
from neural_alignment.layers import table


def kernels_in(
    layer: keras.layers.Layer, skipped: Callable[[keras.layers.Layer], bool]
) -> list[keras.layers.Layer]:
    """The layers, a layer itself or inside it, that send the error below through a kernel.

    Args:
        layer: any.
        skipped: whether to leave out a layer and all it holds.

    Returns:
        Layers, each once, in the order of `layer`.
    """
    found = [layer] if has_kernel(layer) else []
    if table.class_with_rule(type(layer)) is None:  # attention's EinsumDense are its own
        for part in keras_private.sublayers(layer):
            found += [inner for inner in kernels_in(part, skipped) if inner not in found]
    return [] if found and skipped(layer) else found


def has_kernel(layer: keras.layers.Layer) -> bool:
    """Whether a layer has a kernel of its own: a trained weight that the error is multiplied with.

    A weight that is one factor or summand an element is none: a norm's scale, PReLU's slopes,
    positions that are added. An Embedding sends no error below.

    Args:
        layer: built.

    Returns:
        Whether the layer's rule, if it had one, would matter.
    """
    if table.class_with_rule(type(layer)) is not None:
        return True
    if type(layer) is keras.layers.Embedding:
        return False
    shapes = _shapes(layer)
    return any(
        weight.name.endswith("kernel") or not _is_elementwise(tuple(weight.shape), *shapes)
        for weight in keras_private.made_trainable(layer)
        if len(weight.shape) > 1
    )


def _shapes(layer: keras.layers.Layer) -> tuple[list[Sequence[Any]], list[Sequence[Any]]]:
    """The shapes of a layer's inputs and outputs without the batch, where they are known."""
    found = []
    for side in ("input", "output"):
        try:
            tensors = keras.tree.flatten(getattr(layer, side))
        except (AttributeError, ValueError):  # called by another layer only
            tensors = []
        found.append([tensor.shape[1:] for tensor in tensors])
    return found[0], found[1]


def _is_elementwise(
    weight: tuple[int, ...], inputs: list[Sequence[Any]], outputs: list[Sequence[Any]]
) -> bool:
    while weight and weight[0] == 1:
        weight = weight[1:]
    if not any(_broadcasts(weight, shape) for shape in outputs):
        return False
    if any(_broadcasts(weight, shape) for shape in inputs):
        return True
    # A kernel, from the input's features at each position, may look like the output by chance.
    return not any(
        weight and before and weight[0] == before[-1] and before[:-1] == after[:-1]
        for before in inputs
        for after in outputs
    )


def _broadcasts(weight: tuple[int, ...], shape: Sequence[Any]) -> bool:
    return len(weight) <= len(shape) and all(
        size in (1, of) for size, of in zip(reversed(weight), reversed(shape), strict=False)
    )
