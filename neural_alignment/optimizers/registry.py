"""The update rules' names, and where each class is. Imports nothing heavy."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from neural_alignment.messages import did_you_mean

# A class, or the module of this package and the class in it.
_CLASSES: dict[str, type | str] = {
    "gd": "gd:GradientDescent",
    "momentum": "momentum:Momentum",
    "adagrad": "adagrad:Adagrad",
    "rmsprop": "rmsprop:RMSprop",
    "adam": "adam:Adam",
    "radam": "radam:RAdam",
    "swats": "swats:SWATS",
    "swrats": "swats:SWRATS",
}

# Whose update is linear in the gradients.
LINEAR = ("gd", "momentum")


def names() -> tuple[str, ...]:
    """The names that `get` knows, sorted."""
    return tuple(sorted(_CLASSES))


def register(name: str) -> Callable[[type], type]:
    """Class decorator: makes an optimizer known by `name` to `get`, flags and tests.

    Args:
        name: of the update rule.

    Returns:
        The decorator; it returns the class unchanged.

    Raises:
        ValueError: the name is taken.
    """
    if name in _CLASSES:
        raise ValueError(f"Expected a new optimizer name. Received: {name!r}, which is taken.")

    def add(cls: type) -> type:
        _CLASSES[name] = cls
        return cls

    return add


def rule(name: str) -> type:
    """The class registered under a name.

    Args:
        name: of the update rule.

    Returns:
        A subclass of `keras.optimizers.Optimizer`.

    Raises:
        ValueError: there is no such update rule.
    """
    if name not in _CLASSES:
        raise ValueError(
            f"Expected an optimizer's name: {', '.join(names())}. "
            f"Received: {name!r}{did_you_mean(name, names())}."
        )
    found = _CLASSES[name]
    if isinstance(found, str):
        module, _, class_name = found.partition(":")
        found = getattr(importlib.import_module(f"{__package__}.{module}"), class_name)
        _CLASSES[name] = found
    return found


def get(name: str, **options: Any) -> Any:
    """An optimizer by name.

    Args:
        name: one of `names()`.
        options: of its class: `learning_rate` (a number or a schedule), its own, and those of
            every Keras optimizer.

    Returns:
        A `keras.optimizers.Optimizer`.

    Raises:
        ValueError: an unknown name, an unknown option or one out of range.
    """
    return rule(name)(**options)
