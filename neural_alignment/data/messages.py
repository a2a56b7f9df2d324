"""What an error of TensorFlow, or of a library, comes to in one line that a user can read."""

from __future__ import annotations

import re

# What TensorFlow adds for those who debug its graphs.
_GRAPH = re.compile(r"\{\{(function_)?node .*?\}\}:?\s*|\s*\[Op:\w+\].*$")
_UNITS = ("kB", "MB", "GB", "TB")


def reason(error: BaseException) -> str:
    """An error's first line, without TensorFlow's names of graph nodes and the full stop.

    Args:
        error: of any library.

    Returns:
        The line, "" where the error has none.
    """
    line = str(error).strip().partition("\n")[0]
    if isinstance(error, OSError) and error.strerror:  # not its number
        line = error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"
    return _GRAPH.sub("", line).strip().rstrip(".")


def told(error: BaseException) -> str:
    """An error's class and `reason`.

    Args:
        error: of any library.

    Returns:
        As "DataLossError, corrupted record at 12".
    """
    line = reason(error)
    return f"{type(error).__name__}, {line}" if line else type(error).__name__


def size(count: float) -> str:
    """A number of bytes with a unit in which it is not 0.

    Args:
        count: bytes.

    Returns:
        As "512 bytes", "3.46 MB".
    """
    if count < 999.5:
        return "1 byte" if round(count) == 1 else f"{count:.0f} bytes"
    for unit in _UNITS:
        count /= 1000
        if count < 999.5:
            return f"{count:.3g} {unit}"
    return f"{count:.0f} {unit}"
