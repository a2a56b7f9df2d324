"""Old places of names that have moved: they work, with a warning, for one more version."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any


def moved(module: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a module whose names are elsewhere.

    Args:
        module: the old module's `__name__`.
        places: old name to "new.module" or, where the name changed too, "new.module:new_name".

    Returns:
        A function for the old module to call `__getattr__`; it warns of every use, and raises
        AttributeError for a name that is not in `places`.
    """

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        place, _, new_name = places[name].partition(":")
        new_name = new_name or name
        warnings.warn(
            f"{module}.{name} is {place}.{new_name} now; the old place goes with the next version.",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(importlib.import_module(place), new_name)

    return get
