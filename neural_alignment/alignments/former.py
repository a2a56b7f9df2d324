"""What rules written for version 0.1 may still rely on, with a warning."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any


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
