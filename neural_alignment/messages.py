"""Words for people: what errors say, hints at misspelt names, sizes and folders, each in a line."""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Iterable
from typing import Any

_NODE = re.compile(r"\s*\{\{[^{}]*\}\}:?\s*|\s*\[\[[^\[\]]*\]\]\s*|\s*\[Op:\w+\](?: name:.*)?")
# What XLA says of an operation it has no code for: the operation, and its place in the model.
_UNCOMPILABLE = re.compile(
    r"unsupported operations when trying to compile graph .*?: (\w+) .*?\{\{node ([^{}]*)\}\}",
    re.DOTALL,
)
_ERROR = re.compile(r"(\w+\.)*\w*(Error|Exception)\b|error: ")
_UNITS = ("kB", "MB", "GB", "TB")
# What to do where something may not be written; of an error of the system.
_REMEDIES = {
    errno.EROFS: ". Give a folder that may be written",
    errno.EEXIST: ". It is a file: give a folder",
    errno.ENOTDIR: ". A part of it is a file: give a folder",
    errno.EISDIR: ". It is a folder: give a file",
}
# What TensorFlow says of a graph's error before and behind what went wrong.
_NOISE = re.compile(
    r"^(<stack traces unavailable>|Graph execution error|Detected at node"
    r"|Errors may have originated|File \"[^\"]*\", line \d+, in |The stack trace below excludes"
    r"|Stack trace for op definition)"
)


def one_line(error: BaseException) -> str:
    """What an error says, in a line: a path with a system's error, no node of a graph.

    Args:
        error: of Python or of TensorFlow.

    Returns:
        The line, without a full stop; the error's type where it says nothing.
    """
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}"
    text = str(getattr(error, "message", None) or error)
    lines = [_NODE.sub(" ", line).strip() for line in text.splitlines()]
    told = [line for line in lines if line and not _NOISE.match(line)]
    return told[0][:400].rstrip(" .:") if told else type(error).__name__


def uncompilable(error: BaseException) -> str | None:
    """What XLA could not compile, where that is what an error says.

    Args:
        error: of TensorFlow.

    Returns:
        As "PyFunc at model/host/PyFunc"; None of another error.
    """
    found = _UNCOMPILABLE.search(str(getattr(error, "message", None) or error))
    return f"{found[1]} at {found[2]}" if found else None


def told(error: BaseException) -> str:
    """An error's type and what it says.

    Args:
        error: of any library.

    Returns:
        As "DataLossError, corrupted record at 12".
    """
    line, name = one_line(error), type(error).__name__
    return name if line == name else f"{name}, {line}"


def last_line(text: str) -> str:
    """The last line of an output that says anything; "" where none does."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def last_words(text: str) -> str:
    """The line of a job's output that says best why it ended: the last error's, or the last.

    Args:
        text: what it printed.

    Returns:
        As "ValueError: ...", "error: ...".
    """
    errors = [line.strip() for line in text.splitlines() if _ERROR.match(line.strip())]
    return errors[-1] if errors else last_line(text) or "it printed nothing"


def did_you_mean(name: Any, known: Iterable[str]) -> str:
    """A hint at the known name that is closest to a misspelt one.

    Args:
        name: what was given.
        known: the names there are.

    Returns:
        As " (did you mean 'mirror'?)"; nothing where none is close.
    """
    close = difflib.get_close_matches(str(name), known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


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


def of_system(error: OSError) -> str:
    """What an error of the system, or one of ours that is of its kind, says to the user.

    Args:
        error: with a number and a path, or with a message of our own.

    Returns:
        The whole path, what is wrong with it, and what to do where it may not be written; or the
        message as it is.
    """
    if not error.strerror:
        return str(error)
    named = isinstance(error.filename, str | os.PathLike)
    where = f"{os.path.abspath(error.filename)}: " if named else ""
    return f"{where}{error.strerror}{_REMEDIES.get(error.errno, '')}"


def contents(folder: str) -> str:
    """What a folder holds, in words.

    Args:
        folder: a path.

    Returns:
        The first names in it; or "no such folder", "a file", "an empty folder".
    """
    if not os.path.isdir(folder):
        return "a file" if os.path.exists(folder) else "no such folder"
    names = sorted(os.listdir(folder))
    return f"{', '.join(names[:3])}{' ...' if len(names) > 3 else ''}" or "an empty folder"


def duration(seconds: float | None) -> str:
    """A time as people read it: `0:42`, `12:03`, `1:05:00`.

    Args:
        seconds: how long; None: not known.

    Returns:
        Minutes and seconds, with hours where there are any; "?" where it is not known.
    """
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
