"""The libraries that figures need, or one message that says how to get them."""

from __future__ import annotations

import importlib
from types import ModuleType


class MissingLibraryError(ImportError):
    """A library that is not installed; the message has the command that installs it."""


def require(name: str) -> ModuleType:
    """A library of the extra `[figures]`.

    Args:
        name: of the module.

    Returns:
        The module.

    Raises:
        MissingLibraryError: it cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingLibraryError(
            f"Expected {name.partition('.')[0]} for figures. Received: it is not installed "
            f'({error}). Install it with pip install "neural-alignment[figures]".'
        ) from error
