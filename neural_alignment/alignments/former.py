"""What rules and code written for version 0.1 may still rely on, with a warning."""

from __future__ import annotations

import functools
import importlib
import inspect
import warnings
from collections.abc import Callable
from typing import Any

_PACKAGE = "neural_alignment.alignments"
# What had its place in `alignments/alignment.py`.
_MOVED = {
    **dict.fromkeys(("get", "names", "register", "rule", "serialize"), f"{_PACKAGE}.registry"),
    "ProjectionAlignment": f"{_PACKAGE}.projecting",
    "draw_seed": "neural_alignment.noise",
}


def moved(module: str, name: str) -> Any:
    """What is elsewhere now.

    Args:
        module: that was asked for it.
        name: of what has moved.

    Returns:
        What has moved, with a DeprecationWarning for the caller of the module's `__getattr__`.

    Raises:
        AttributeError: nothing of that name has.
    """
    if name not in _MOVED:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    place = _MOVED[name]
    public = _PACKAGE if place.startswith(_PACKAGE) else place
    message = f"{module}.{name} has moved: import it from {public}."
    warnings.warn(message, DeprecationWarning, stacklevel=3)
    return getattr(importlib.import_module(place), name)


def let_take_no_linear(rule: type) -> None:
    """Lets a rule's methods go without the keyword `linear`, the layer's map, of version 0.2.

    Args:
        rule: a class whose own methods are looked at; warned of where it is defined.
    """
    for name in ("variables", "backward_kernel", "update"):
        method = rule.__dict__.get(name)
        if method is not None and not _takes_linear(method):
            warnings.warn(
                f"Expected {rule.__name__}.{name} to take the keyword `linear`, the layer's "
                "map, as of version 0.2. It is called without it.",
                DeprecationWarning,
                stacklevel=3,
            )
            setattr(rule, name, _without_linear(method))


def _takes_linear(method: Callable[..., Any]) -> bool:
    parameters = inspect.signature(method).parameters.values()
    return any(p.name == "linear" or p.kind is p.VAR_KEYWORD for p in parameters)


def _without_linear(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, *args: Any, linear: Any = None, **kwargs: Any) -> Any:
        del linear
        return method(self, *args, **kwargs)

    return call
