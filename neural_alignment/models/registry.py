"""The models' names, and where each is built. Imports nothing heavy."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from neural_alignment import alignments
from neural_alignment.messages import did_you_mean

if TYPE_CHECKING:
    import keras

Builder = Callable[..., "keras.Model"]

RESNET_DEPTHS = (18, 34, 50, 101, 152, 200)
CIFAR_RESNET_DEPTHS = (20, 32, 44, 56)

# A builder and the arguments that its name fixes; a builder is a function, or where to import it.
_BUILDERS: dict[str, tuple[Builder | str, dict[str, Any]]] = {
    "fc": ("neural_alignment.models.basic:fc", {}),
    "conv": ("neural_alignment.models.basic:conv", {}),
    "lenet5": ("neural_alignment.models.basic:lenet5", {}),
}
for _depth in RESNET_DEPTHS:
    _BUILDERS[f"resnet{_depth}"] = (
        "neural_alignment.models.resnet_v1:resnet_v1",
        {"depth": _depth},
    )
    _BUILDERS[f"resnet{_depth}_v2"] = (
        "neural_alignment.models.resnet_v2:resnet_v2",
        {"depth": _depth},
    )
for _depth in CIFAR_RESNET_DEPTHS:
    _BUILDERS[f"resnet{_depth}"] = (
        "neural_alignment.models.resnet_cifar:resnet_cifar",
        {"depth": _depth},
    )


def names() -> tuple[str, ...]:
    """The names that `get` knows, in the order of the docs."""
    return tuple(_BUILDERS)


def register(name: str) -> Callable[[Builder], Builder]:
    """Decorator: registers a builder `f(input_shape, ..., alignment=None) -> keras.Model`.

    Args:
        name: the name `get` and `--model` will know.

    Returns:
        The decorator; it returns the builder unchanged.

    Raises:
        ValueError: the name is taken.
    """
    if name in _BUILDERS:
        raise ValueError(f"Expected a new model name. Received: {name!r}, which is taken.")

    def add(builder: Builder) -> Builder:
        _BUILDERS[name] = (builder, {})
        return builder

    return add


def options(name: str) -> tuple[str, ...]:
    """The options that `get(name, ...)` takes.

    Args:
        name: one of `names()`.

    Returns:
        The names of the builder's arguments, without those that the model's name fixes.

    Raises:
        ValueError: no such model.
    """
    builder, fixed = _entry(name)
    known = inspect.signature(builder).parameters if callable(builder) else _arguments(builder)
    return tuple(option for option in known if option not in fixed)


def get(name: str, **kwargs: Any) -> keras.Model:
    """Builds a model by name.

    Args:
        name: one of `names()`.
        **kwargs: the builder's options, `options(name)`: `input_shape` (without the batch),
            `num_classes`, `alignment`, and its own.

    Returns:
        A functional Keras model that ends in logits.

    Raises:
        ValueError: unknown name or option, or an option's value makes no sense.
    """
    builder, fixed = _builder(name)
    valid = options(name)
    unknown = sorted(set(kwargs) - set(valid))
    if unknown:
        raise ValueError(
            f"Expected options of the model {name!r}: {', '.join(valid)}. "
            f"Received: {', '.join(unknown)}."
        )
    if "input_shape" not in kwargs:
        raise ValueError(
            f"Expected input_shape for the model {name!r}, the shape of one example, such as "
            "(224, 224, 3). Received: none."
        )
    rule = alignments.get(kwargs.get("alignment"))
    if rule is None or not rule.of_model:
        return builder(**fixed, **kwargs)
    from neural_alignment.layers import align  # imports Keras

    return align(builder(**fixed, **kwargs | {"alignment": None}), rule)


def _arguments(builder: str) -> list[str]:
    """The arguments of a builder, read off its source: importing it would import TensorFlow."""
    module, _, function = builder.partition(":")
    source = pathlib.Path(importlib.util.find_spec(module).origin).read_text()
    (found,) = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == function
    )
    return [argument.arg for argument in (*found.args.args, *found.args.kwonlyargs)]


def _entry(name: str) -> tuple[Builder | str, dict[str, Any]]:
    if name not in _BUILDERS:
        raise ValueError(
            f"Expected a model: {', '.join(names())}. "
            f"Received: {name!r}{did_you_mean(name, names())}."
        )
    return _BUILDERS[name]


def _builder(name: str) -> tuple[Builder, dict[str, Any]]:
    builder, fixed = _entry(name)
    if isinstance(builder, str):
        module, _, function = builder.partition(":")
        builder = getattr(importlib.import_module(module), function)
    return builder, fixed
