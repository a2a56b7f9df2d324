"""The update rules' names, and where each class is. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from neural_alignment.registry import Registry

_CLASSES: Registry[type] = Registry(
    "an optimizer",
    {
        "adagrad": f"{__package__}.adagrad:Adagrad",
        "adam": f"{__package__}.adam:Adam",
        "gd": f"{__package__}.gd:GradientDescent",
        "momentum": f"{__package__}.momentum:Momentum",
        "radam": f"{__package__}.radam:RAdam",
        "rmsprop": f"{__package__}.rmsprop:RMSprop",
        "swats": f"{__package__}.swats:SWATS",
        "swrats": f"{__package__}.swats:SWRATS",
    },
)

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
    return _CLASSES.register(name)


def rule(name: str) -> type:
    """The class registered under a name.

    Args:
        name: of the update rule.

    Returns:
        A subclass of `keras.optimizers.Optimizer`.

    Raises:
        ValueError: there is no such update rule.
    """
    return _CLASSES.load(name)


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
