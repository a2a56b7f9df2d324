"""What a Keras model is made of, as conversion sees it."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any

import keras

from neural_alignment import keras_private

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def described(layer: keras.Operation) -> str:
    """A layer for a message: `'head', a Dense`."""
    return f"{layer.name!r}, a {type(layer).__name__}"


def is_keras_own(cls: type) -> bool:
    """Whether a class is one of Keras's."""
    return cls.__module__.startswith("keras.")


def is_graph(layer: keras.Operation) -> bool:
    """Whether a layer is a Sequential or functional model whose layers are converted one by one.

    A class of the user's is, if Keras's arguments make it; another one is copied from its config.
    """
    if isinstance(layer, keras.Sequential):
        own = {"layers"}
    elif isinstance(layer, keras.Model) and isinstance(layer, keras.Function):
        own = {"inputs", "outputs"}
    else:
        return False
    parameters = list(inspect.signature(type(layer).__init__).parameters.values())[1:]
    kinds = {parameter.kind for parameter in parameters}
    named = {parameter.name for parameter in parameters if parameter.kind not in _VARIADIC}
    takes_own = own <= named or inspect.Parameter.VAR_POSITIONAL in kinds
    takes_name = "name" in named or inspect.Parameter.VAR_KEYWORD in kinds
    return takes_own and takes_name and named <= own | {"name", "trainable"}


def is_opened(layer: keras.Operation) -> bool:
    """Whether a layer is a wrapper whose layer is converted inside it."""
    return type(layer) is keras.layers.TimeDistributed


def leaves(
    model: keras.Model, stays_whole: Callable[[keras.layers.Layer], bool]
) -> list[keras.layers.Layer]:
    """The layers that conversion copies or replaces as one, in the model's order, each once.

    Args:
        model: Sequential or functional; nested ones are gone into.
        stays_whole: whether a wrapper that could be gone into is not.

    Returns:
        Layers, wrappers, and models that have no graph.
    """
    found: dict[int, keras.layers.Layer] = {}
    seen: set[int] = set()

    def visit(layer: keras.layers.Layer) -> None:
        if id(layer) in seen:
            return
        seen.add(id(layer))
        if is_graph(layer) or (is_opened(layer) and not stays_whole(layer)):
            for inner in keras_private.sublayers(layer):
                visit(inner)
        else:
            found[id(layer)] = layer

    visit(model)
    return list(found.values())


def own_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """A layer's weights and seeds without those of the layers inside it."""
    inner = {id(v) for part in keras_private.sublayers(layer) for v in part.variables}
    return [variable for variable in layer.variables if id(variable) not in inner]


def own_functions(layer: keras.layers.Layer) -> Iterator[tuple[str, types.FunctionType]]:
    """The Python functions among a layer's attributes: an activation, a Lambda's function."""
    for name, value in vars(layer).items():
        if isinstance(value, types.FunctionType) and name not in bookkeeping():
            yield name, value


def flat(value: Any) -> list[Any]:
    """What lists, tuples and dicts hold; keys need not be sortable, as for `keras.tree`."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, (list, tuple)):
        return [value]
    return [leaf for part in value for leaf in flat(part)]


@functools.cache
def bookkeeping() -> frozenset[str]:
    """The attributes that Keras gives every layer; among them functions it wraps `build` in."""
    return frozenset(vars(keras.layers.Layer()).keys() | vars(keras.Model()).keys())


def build_like(layer: keras.layers.Layer, copy: keras.layers.Layer) -> None:
    """Builds a copy that nothing has called yet, as the layer was built, its LoRA too."""
    if layer.built and not copy.built:
        config = layer.get_build_config()
        if config:
            copy.build_from_config(config)
    # Of a layer that another one makes, as attention's, the maker's config says nothing of it.
    if getattr(layer, "lora_enabled", False) and not copy.lora_enabled:
        config = layer.get_config()
        alpha = {name: config[name] for name in ("lora_alpha",) if name in config}
        copy.enable_lora(config["lora_rank"], **alpha)
