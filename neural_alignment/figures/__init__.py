"""Figures of what training measured, and of what the papers derive."""

from __future__ import annotations

from typing import Any

from neural_alignment import extras

_EXPORTS = {
    "draw": "neural_alignment.figures.drawing",
    "plot_history": "neural_alignment.figures.history",
}

__all__ = sorted(_EXPORTS)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(extras.load(_EXPORTS[name]), name)
