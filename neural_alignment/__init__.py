"""Neural Alignment: Keras layers with a separate backward kernel, and the rules that train it.

The subpackages are imported when first used (PEP 562), so that flags and `--help` need no
TensorFlow: `import neural_alignment as na; na.layers.Dense(10, alignment="symmetric")`.
"""

from __future__ import annotations

import importlib
import importlib.util
import types

__version__ = "0.1.0"

_SUBPACKAGES = ("alignments", "data", "layers", "maps", "models", "optimizers", "training")

__all__ = ["__version__", "require_tensorflow", *_SUBPACKAGES]  # noqa: PLE0604


def require_tensorflow() -> None:
    """Checks that TensorFlow is installed, without importing it.

    Raises:
        ImportError: no TensorFlow is there; the message is the line that installs it.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise ImportError(
            "Expected TensorFlow 2.19 to 2.21 to be installed. Received: no module named "
            '"tensorflow". Install the build for this machine: pip install "neural-alignment[cpu]" '
            '(or [gpu], [tpu]); in a clone of the repository: pip install -e ".[cpu]".'
        )


def __getattr__(name: str) -> types.ModuleType:
    if name not in _SUBPACKAGES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "tensorflow":
            require_tensorflow()  # says what to install, where that is the cause
        raise


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
