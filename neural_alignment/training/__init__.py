"""Training: the step, the loop, a run as a Keras model again. Imported when first used."""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "AlignmentMetrics": "neural_alignment.callbacks",
    "Evaluator": "neural_alignment.training.loop",
    "GlobalStep": "neural_alignment.callbacks",
    "Plan": "neural_alignment.training.loop",
    "Step": "neural_alignment.training.step",
    "Trainer": "neural_alignment.training.loop",
    "load_run": "neural_alignment.training.restore",
}

__all__ = sorted(_EXPORTS)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
