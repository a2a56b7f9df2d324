"""What comes with the package's extras, and the line to type where a part of it is missing."""

from __future__ import annotations

import importlib
import importlib.util
import types
from collections.abc import Sequence

# The extra that installs a module. Keras and NumPy come with the package itself.
EXTRAS = {
    "absl": "train",
    "rich": "train",
    "tensorboard": "train",
    "tensorflow_datasets": "train",
    "requests": "train",
    "PIL": "train",
    "hyperopt": "search",
    "matplotlib": "figures",
    "h5py": "figures",
    "sklearn": "figures",
    "pyspark": "spark",
    "tensorflow": "cpu",
    "jax": "jax",
    "torch": "torch",
}
BACK_ENDS = ("tensorflow", "jax", "torch")
# What a person calls a module, where it is not its name.
_CALLED = {
    "absl": "absl-py",
    "tensorflow": "TensorFlow 2.19 to 2.21",
    "tensorflow_datasets": "TensorFlow Datasets",
    "PIL": "Pillow",
    "sklearn": "scikit-learn",
    "jax": "JAX",
    "torch": "PyTorch",
}


class MissingPackageError(ImportError):
    """A package that an extra brings is not installed; the message is the line that installs it."""


def missing(*modules: str) -> list[str]:
    """Which modules are not installed; imports none.

    Args:
        modules: keys of `EXTRAS`.
    """
    return [name for name in modules if not _is_installed(name)]


def require(what: str, *modules: str) -> None:
    """Checks that modules are installed, without importing them.

    Args:
        what: needs them, for the message.
        modules: keys of `EXTRAS`.

    Raises:
        MissingPackageError: some are not installed.
    """
    if lacking := missing(*modules):
        raise MissingPackageError(message(what, lacking), name=lacking[0])


def load(module: str) -> types.ModuleType:
    """Imports a module, and says what to install where it needs what is not there.

    Args:
        module: its name.

    Returns:
        The module.

    Raises:
        ImportError: where it imports a module of `EXTRAS` that is not installed, the message is the
            line to type.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name in EXTRAS and missing(name):
            raise ImportError(message(f"`import {module}`", [name]), name=name) from error
        raise


def message(what: str, lacking: Sequence[str]) -> str:
    """What to say of missing modules.

    Args:
        what: needs them.
        lacking: keys of `EXTRAS`.

    Returns:
        A line that ends with the one to type.
    """
    return (
        f"Expected {called(lacking)} to be installed. Received: no module named "
        f"{', '.join(lacking)}, which {what} needs. {line(lacking)}"
    )


def called(lacking: Sequence[str]) -> str:
    """Modules as a person calls them: "JAX, hyperopt and TensorFlow".

    Args:
        lacking: keys of `EXTRAS`.
    """
    *others, last = [_CALLED.get(name, name) for name in lacking]
    return f"{', '.join(others)} and {last}" if others else last


def line(lacking: Sequence[str]) -> str:
    """The line to type, for an installed package and for a clone.

    Args:
        lacking: keys of `EXTRAS`.
    """
    extras = ",".join(dict.fromkeys(EXTRAS[name] for name in lacking))
    builds = " (or gpu, or tpu, in the place of cpu)" if "tensorflow" in lacking else ""
    return (
        f'Install it: pip install "neural-alignment[{extras}]"{builds}; in a clone of the '
        f'repository: pip install -e ".[{extras}]".'
    )


def back_end_message(module: str) -> str:
    """What to say where the back end that Keras is to run on is not installed.

    Args:
        module: one of `BACK_ENDS`.

    Returns:
        A line; where another back end is there, it says how to choose that one.
    """
    others = [name for name in BACK_ENDS if name != module]
    here = " or ".join(f"KERAS_BACKEND={name}" for name in others if _is_installed(name))
    chosen = f" Or run on what is installed: set {here}." if here else ""
    return message(f"Keras with KERAS_BACKEND={module}", [module]) + chosen


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # a module without a spec, which somebody has put into sys.modules
        return True
