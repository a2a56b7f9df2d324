"""Records that cannot be used: an error that names shard and index, and a count up to a limit."""

from __future__ import annotations

import logging
import re
import threading

_log = logging.getLogger(__name__)


class BadRecordError(ValueError):
    """A record that cannot be used; the message names its shard and index."""


class BadRecords:
    """Counts corrupt images, each once, and stops at a limit.

    The count is of one process: each of several workers has its own, and a resumed run starts anew.

    Args:
        limit: how many different records may be skipped.

    Raises:
        ValueError: limit < 0.
    """

    def __init__(self, limit: int = 0) -> None:
        if limit < 0:
            raise ValueError(f"Expected max_bad_records >= 0. Received: {limit}.")
        self.limit = limit
        self._found: dict[tuple[str, int], None] = {}
        self._lock = threading.Lock()

    @property
    def found(self) -> tuple[tuple[str, int], ...]:
        """(shard, index in it) of every corrupt image met so far, in that order."""
        return tuple(self._found)

    def add(self, path: str, index: int) -> None:
        """Counts a record.

        Args:
            path: its shard.
            index: its place there.

        Raises:
            BadRecordError: that is one more than the limit.
        """
        with self._lock:
            if (path, index) in self._found:
                return
            self._found[path, index] = None
            count = len(self._found)
        if count > self.limit:
            raise BadRecordError(
                f"{path}, record {index}: Expected an image that can be decoded. Received: a "
                f"corrupt one, the {_ordinal(count)} of this process. Repair it, or allow more "
                f"with max_bad_records (now {self.limit})."
            )
        _log.warning("%s, record %d: corrupt image %d, skipped", path, index, count)


def describe_error(error: BaseException) -> str | None:
    """The one line that matters in what TensorFlow raises for a bad record.

    Args:
        error: what iterating a pipeline raised.

    Returns:
        The message, or None where the error is another.
    """
    match = re.search(rf"{BadRecordError.__name__}: (.*)", str(error))
    return match[1].strip() if match else None


def _ordinal(number: int) -> str:
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number // 10 % 10 == 1 else suffix}"
