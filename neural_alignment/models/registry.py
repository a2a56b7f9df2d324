"""The models' names, and where each is built. Imports nothing heavy."""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from neural_alignment import alignments
from neural_alignment.registry import Registry, check_options

if TYPE_CHECKING:
    import keras

Builder = Callable[..., "keras.Model"]

RESNET_DEPTHS = (18, 34, 50, 101, 152, 200)
CIFAR_RESNET_DEPTHS = (20, 32, 44, 56)

_BUILDERS: Registry[Builder] = Registry(
    "a model",
    {name: f"{__package__}.basic:{name}" for name in ("fc", "conv", "lenet5")},
)
# The builder's arguments that a model's name fixes.
_FIXED: dict[str, dict[str, Any]] = {}
for _depth in RESNET_DEPTHS:
    _BUILDERS[f"resnet{_depth}"] = f"{__package__}.resnet_v1:resnet_v1"
    _BUILDERS[f"resnet{_depth}_v2"] = f"{__package__}.resnet_v2:resnet_v2"
    _FIXED[f"resnet{_depth}"] = _FIXED[f"resnet{_depth}_v2"] = {"depth": _depth}
for _depth in CIFAR_RESNET_DEPTHS:
    _BUILDERS[f"resnet{_depth}"] = f"{__package__}.resnet_cifar:resnet_cifar"
    _FIXED[f"resnet{_depth}"] = {"depth": _depth}


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
    return _BUILDERS.register(name)


def options(name: str) -> tuple[str, ...]:
    """The options that `get(name, ...)` takes.

    Args:
        name: one of `names()`.

    Returns:
        The names of the builder's arguments, without those that the model's name fixes.

    Raises:
        ValueError: no such model.
    """
    made = _BUILDERS[name]
    known = _arguments(made) if isinstance(made, str) else inspect.signature(made).parameters
    return tuple(option for option in known if option not in _FIXED.get(name, {}))


def builder(name: str) -> Builder:
    """The function that builds a model, imported.

    Args:
        name: one of `names()`.

    Returns:
        The function, with the arguments that the model's name fixes, too.

    Raises:
        ValueError: no such model.
    """
    return _BUILDERS.load(name)


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
    check_options(f"the model {name!r}", options(name), kwargs)
    if "input_shape" not in kwargs:
        raise ValueError(
            f"Expected input_shape for the model {name!r}, the shape of one example, such as "
            "(224, 224, 3). Received: none."
        )
    build = functools.partial(builder(name), **_FIXED.get(name, {}))
    rule = alignments.get(kwargs.get("alignment"))
    if rule is None or not rule.of_model:
        return build(**kwargs)
    from neural_alignment.layers import align  # imports Keras

    return align(build(**kwargs | {"alignment": None}), rule)


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
