"""Neural Alignment: Keras layers with a separate backward kernel, and the rules that train it.

The subpackages are imported when first used (PEP 562), so that flags and `--help` need no
TensorFlow: `import neural_alignment as na; na.layers.Dense(10, alignment="symmetric")`.

`keras.saving.load_model` knows the layers, optimizers and schedules of a model once this package is
imported, before Keras or after it.
"""

from __future__ import annotations

import importlib
import types
from typing import Any

from neural_alignment import extras, registration

__version__ = "0.2.0"

_SUBPACKAGES = (
    "alignments",
    "callbacks",
    "data",
    "figures",
    "layers",
    "maps",
    "metrics",
    "models",
    "optimizers",
    "training",
)

__all__ = ["__version__", "from_preset", "load_model", "require_tensorflow", *_SUBPACKAGES]  # noqa: PLE0604


def require_tensorflow() -> None:
    """Checks that TensorFlow is installed, without importing it.

    Raises:
        ImportError: no TensorFlow is there; the message is the line that installs it.
    """
    try:
        extras.require("training", "tensorflow")
    except ImportError as error:
        raise ImportError(str(error)) from None


def load_model(path: Any, **options: Any) -> Any:
    """Loads a `.keras` file whose layers, optimizers and schedules may be of this package.

    Args:
        path: of the file.
        options: of `keras.saving.load_model`.

    Returns:
        A Keras model, compiled as it was saved.
    """
    import keras

    return keras.saving.load_model(path, **options)


def from_preset(name: str, steps_per_epoch: int, batch_size: int | None = None) -> Any:
    """Rule and optimizer of a published setting, for a Keras model of one's own.

    Args:
        name: of the preset, such as "wm_tpe".
        steps_per_epoch: whole batches in an epoch, for the schedules.
        batch_size: where it is another than the preset's.

    Returns:
        A `neural_alignment.config.made.Preset`: `alignment`, `optimizer`, `l2`, `weight_decay`,
        `batch_size`, `epochs`.

    Raises:
        ValueError: there is no such preset, or one that `fit` cannot do.
    """
    made = importlib.import_module(f"{__name__}.config.made")
    return made.from_preset(name, steps_per_epoch, batch_size)


def __getattr__(name: str) -> types.ModuleType:
    if name not in _SUBPACKAGES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return extras.load(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))


registration.register_with_keras()
