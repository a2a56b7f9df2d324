"""Copies a model layer by layer, so that each layer can be given another class on the way."""

from __future__ import annotations

import inspect
import types
import warnings
from collections.abc import Callable
from typing import Any

import keras

from neural_alignment import keras_private
from neural_alignment.layers import matching, parts


def from_config(
    layer: keras.layers.Layer, cls: type[keras.layers.Layer] | None = None, **changes: Any
) -> Any:
    """A new layer from a layer's config.

    Args:
        layer: whose config it is.
        cls: the class to make; None is the layer's own.
        **changes: to the config; `...` takes an argument away.

    Returns:
        The layer, with the layer's name, dtype policy and functions, not yet built.

    Raises:
        ValueError: the layer has no config, or none that makes it again.
    """
    scope = keras.saving.custom_object_scope(_custom_objects(layer))
    functions = dict(parts.own_functions(layer))
    try:
        # Keras warns of lambdas, which would not be found again in a file.
        with (
            keras_private.unsafe_deserialization(),
            scope,
            warnings.catch_warnings(action="ignore"),
        ):
            config = {**layer.get_config(), **changes}
            config = {name: value for name, value in config.items() if value is not ...}
            if _takes_functions(type(layer)):
                config |= {name: functions[name] for name in config.keys() & functions}
            copy = (cls or type(layer)).from_config(config)
    except Exception as error:
        reason = str(error).strip().partition("\n\n")[0] or type(error).__name__
        raise ValueError(
            "Expected layers that `from_config(get_config())` makes again. Received: "
            f"{parts.described(layer)}, where it fails: {reason[:500]}"
        ) from error
    _copy_details(layer, copy)
    return copy


def _takes_functions(cls: Any) -> bool:
    """Whether a config may hold functions as they are: a `from_config` of its own reads them."""
    own = cls.from_config.__func__.__module__
    return own.startswith("keras.") and not issubclass(cls, keras.layers.Lambda)


def _custom_objects(layer: keras.layers.Layer) -> dict[str, Any]:
    """Classes and functions that the config names, and Keras might not find, or find another."""
    found: dict[str, Any] = {}
    for part in [layer, *keras_private.flatten_layers(layer)]:
        for value in [part, *vars(part).values()]:
            named: Any
            if isinstance(value, types.FunctionType):
                named = value
            elif hasattr(value, "get_config"):
                named = type(value)
            else:
                continue
            if not named.__module__.startswith("keras."):
                found[keras.saving.get_registered_name(named)] = named
    return found


def _copy_details(layer: keras.layers.Layer, copy: keras.layers.Layer) -> None:
    """What a config may leave out: name and dtype of a custom layer, the globals of a function."""
    copy.name = layer.name
    copy.autocast = layer.autocast
    keras_private.copy_remat_mode(layer, copy)
    # Configs, since Keras cannot compare a map of policies.
    serialize = keras.dtype_policies.serialize
    if serialize(copy.dtype_policy) != serialize(layer.dtype_policy):
        copy.dtype_policy = layer.dtype_policy
    for name, function in parts.own_functions(layer):
        if callable(getattr(copy, name, None)):
            setattr(copy, name, function)
    inner, copied = keras_private.sublayers(layer), keras_private.sublayers(copy)
    if len(inner) == len(copied):
        for part, part_copy in zip(inner, copied, strict=True):
            _copy_details(part, part_copy)


class Copier:
    """Copies one model and remembers which layer became which.

    Args:
        model: a Sequential or functional model.
        version: makes the layer that takes a layer's place; None copies it as it is.
        stays_whole: whether a wrapper is copied as it is, with what it holds.
    """

    def __init__(
        self,
        model: keras.Model,
        version: Callable[[keras.layers.Layer], keras.layers.Layer | None],
        stays_whole: Callable[[keras.layers.Layer], bool],
    ) -> None:
        self._model = model
        self._version = version
        self._stays_whole = stays_whole
        self._copies: dict[int, tuple[keras.Operation, keras.Operation]] = {}
        self.converted: set[int] = set()

    @property
    def pairs(self) -> list[tuple[keras.layers.Layer, keras.layers.Layer]]:
        """(layer, its copy), the model and nested models too."""
        pairs = self._copies.values()
        return [pair for pair in pairs if isinstance(pair[0], keras.layers.Layer)]

    def copy(self, operation: keras.Operation) -> keras.Operation:
        """The copy of a layer, a model or another operation: the same at every call."""
        if id(operation) not in self._copies:
            self._copies[id(operation)] = operation, self._copy(operation)
        return self._copies[id(operation)][1]

    def _copy(self, operation: keras.Operation) -> keras.Operation:
        if not isinstance(operation, keras.layers.Layer):
            if isinstance(operation, keras.Function):
                raise ValueError(
                    "Expected layers, models and operations of keras.ops in a model. Received: "
                    f"{parts.described(operation)}. Make a keras.Model of it."
                )
            return keras_private.copy_operation(operation)
        if parts.is_graph(operation):
            return self._copy_graph(operation)
        if parts.is_opened(operation) and not self._stays_whole(operation):
            return self._copy_wrapper(operation)
        version = self._version(operation)
        if version is None:
            return from_config(operation)
        self.converted.add(id(operation))
        return version

    def _copy_graph(self, model: keras.Model) -> keras.Model:
        if isinstance(model, keras.Sequential):
            layers = [self.copy(layer) for layer in keras_private.sublayers(model)]
            copy = type(model)(layers, name=model.name)
        else:
            inputs = keras.tree.map_structure(
                lambda tensor: self.copy(keras_private.origin(tensor)).output, model.input
            )
            outputs = keras_private.run_graph(model, inputs, self._call, self.copy)
            copy = type(model)(inputs, outputs, name=model.name)
        copy.dtype_policy = model.dtype_policy
        return copy

    def _copy_wrapper(self, wrapper: keras.layers.Wrapper) -> keras.layers.Wrapper:
        copy = type(wrapper)(**{**wrapper.get_config(), "layer": self.copy(wrapper.layer)})
        keras_private.copy_remat_mode(wrapper, copy)
        return copy

    def _call(self, operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = keras.tree.map_structure(self._weight_in_copy, (args, kwargs))
        # Layers with a rule take a mask, for R; stock versions of most have no such argument.
        if "mask" in kwargs and "mask" not in inspect.signature(operation.call).parameters:
            del kwargs["mask"]
        return operation(*args, **kwargs)

    def _weight_in_copy(self, argument: Any) -> Any:
        """The copy's weight in place of the model's, where a call has one as its argument."""
        if not isinstance(argument, keras.Variable):
            return argument
        for layer in parts.leaves(self._model, self._stays_whole):
            if any(variable is argument for variable in layer.variables):
                copy = self.copy(layer)
                parts.build_like(layer, copy)
                weights = matching.Weights()
                weights.match(layer, copy, id(layer) in self.converted)
                return weights.partner(argument)
        return argument
