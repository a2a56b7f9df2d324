"""Gives the layers of a Keras model a learning rule, and takes it off again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras

from neural_alignment import alignments
from neural_alignment.layers.convolutional import Conv1D, Conv2D, Conv3D
from neural_alignment.layers.dense import Dense

_STOCK = {
    keras.layers.Dense: Dense,
    keras.layers.Conv1D: Conv1D,
    keras.layers.Conv2D: Conv2D,
    keras.layers.Conv3D: Conv3D,
}
_ALIGNED = {ours: stock for stock, ours in _STOCK.items()}


def align(model: keras.Model, alignment: Any, skip: str | Iterable[str] = ()) -> keras.Model:
    """A copy of a model whose Dense and convolutional layers follow a learning rule.

    Kernels and biases are copied; backward kernels are new.

    Args:
        model: a built Sequential or functional model.
        alignment: a rule's name, its config, an `Alignment`.
        skip: names of layers that stay as they are, such as those of a type without a rule.

    Returns:
        The new model, to be compiled.

    Raises:
        ValueError: an unknown rule, a name to skip that no layer has, or a layer with a kernel of a
            type that has no such layer here.
        TypeError: an unknown option of the rule.
    """
    rule = alignments.get(alignment)
    skip = (skip,) if isinstance(skip, str) else tuple(skip)
    known = [
        layer.name
        for layer in model._flatten_layers(include_self=False)
        if not isinstance(layer, keras.Model)
    ]
    for name in skip:
        if name not in known:
            raise ValueError(
                f"Expected names of layers to skip: {', '.join(known)}. Received: {name!r}"
            )

    def with_rule(layer: keras.layers.Layer) -> keras.layers.Layer:
        if layer.name in skip or isinstance(layer, keras.Model):
            return _same(layer)
        if type(layer) in _STOCK or type(layer) in _ALIGNED:
            ours = _STOCK.get(type(layer), type(layer))
            config = layer.get_config() | {"alignment": alignments.serialize(rule)}
            return ours.from_config(config)
        if any(weight.name.endswith("kernel") for weight in layer.weights):
            known = ", ".join(stock.__name__ for stock in _STOCK)
            raise ValueError(
                f"Expected layers with a kernel to be of {known}, which can follow a rule. "
                f"Received: {layer.name!r}, a {type(layer).__name__}. Name it in `skip` to leave "
                "it to backpropagation."
            )
        return _same(layer)

    return _clone(model, with_rule)


def strip(model: keras.Model) -> keras.Model:
    """A copy of a model with Keras's own layers, trained by backpropagation.

    Args:
        model: a built Sequential or functional model.

    Returns:
        The new model with the same kernels and biases, to be compiled.
    """

    def without_rule(layer: keras.layers.Layer) -> keras.layers.Layer:
        if type(layer) not in _ALIGNED:
            return _same(layer)
        config = layer.get_config()
        del config["alignment"]
        return _ALIGNED[type(layer)].from_config(config)

    return _clone(model, without_rule)


def _same(layer: keras.layers.Layer) -> keras.layers.Layer:
    return type(layer).from_config(layer.get_config())


def _clone(
    model: keras.Model, convert: Callable[[keras.layers.Layer], keras.layers.Layer]
) -> keras.Model:
    if not isinstance(model, keras.Sequential) and not hasattr(model, "_operations"):
        raise ValueError(
            "Expected a Sequential or functional model. Received: "
            f"{model.name!r}, a {type(model).__name__}."
        )
    clone = keras.models.clone_model(model, clone_function=convert, recursive=True)
    values = {weight.path: weight for weight in model.weights}
    for weight in clone.weights:
        if weight.path in values:
            weight.assign(values[weight.path])
    return clone
