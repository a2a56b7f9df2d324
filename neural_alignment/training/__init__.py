"""Training: the step, the loop, checkpoints, callbacks, flags. Imported when first used."""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "AlignmentMetrics": "callbacks",
    "Evaluator": "loop",
    "GlobalStep": "callbacks",
    "Plan": "loop",
    "Step": "step",
    "Trainer": "loop",
}

__all__ = sorted(_EXPORTS)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
