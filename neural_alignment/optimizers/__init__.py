"""Optimizers: a list of (loss, optimizer) pairs, update rules, functions of the global step.

The names are known without Keras; everything else is imported when first used, and with it every
class that a `.keras` file may name.
"""

from __future__ import annotations

import importlib
from typing import Any

from neural_alignment.optimizers.registry import get, names, register, rule

_MODULES = {
    "adagrad": ("Adagrad",),
    "adam": ("Adam",),
    "by_epoch": ("CosineDecay", "Piecewise"),
    "gd": ("GradientDescent",),
    "momentum": ("Momentum",),
    "noisy": ("Noisy",),
    "optimizers": (
        "Clip",
        "apply_gradients",
        "average_gradients",
        "compute_gradients",
        "minimize",
    ),
    "radam": ("RAdam",),
    "rate_scheduler": (),
    "rmsprop": ("RMSprop",),
    "routed": ("RoutedOptimizer",),
    "swats": ("SWATS", "SWRATS"),
}
_EXPORTS = {name: module for module, exported in _MODULES.items() for name in exported}

__all__ = ["get", "names", "rate_scheduler", "register", "rule", *_EXPORTS]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS and name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = name if name in _MODULES else _EXPORTS[name]
    if module != "optimizers":  # that one is the trainer's, and TensorFlow's
        register_classes()
    found = importlib.import_module(f"{__name__}.{module}")
    return found if name in _MODULES else getattr(found, name)


def register_classes() -> None:
    """Imports every class that a `.keras` file may name."""
    for module in _MODULES:
        if module != "optimizers":
            importlib.import_module(f"{__name__}.{module}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
