"""Modules that are imported when first used, so that flags and `--help` need no TensorFlow."""

from __future__ import annotations

import types
from typing import Any

from neural_alignment import extras


class LazyModule(types.ModuleType):
    """Stands for the module `name`; imports it at the first attribute access."""

    def __getattr__(self, attribute: str) -> Any:
        return getattr(extras.load(self.__name__), attribute)


keras = LazyModule("keras")
tf = LazyModule("tensorflow")
