"""One line of what an error says, for people."""

from __future__ import annotations

import re

_NODE = re.compile(r"\s*\{\{[^{}]*\}\}\s*|\s*\[\[[^\[\]]*\]\]\s*")
_NOISE = re.compile(r"^(Graph execution error|Detected at node|Errors may have originated)")


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
