"""Figures of what training measured."""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {"plot_history": "neural_alignment.figures.history"}

__all__ = sorted(_EXPORTS)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
