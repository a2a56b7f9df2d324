"""Signals that ask a job to stop: it finishes the step it is at, and saves."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

# SIGHUP is that of a terminal that was closed.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def interrupts() -> contextlib.AbstractContextManager[None]:
    """Has the stop signals raise KeyboardInterrupt meanwhile, but those that are ignored."""
    return handled(lambda number: signal.default_int_handler)


def noted(note: Callable[[int], None]) -> contextlib.AbstractContextManager[None]:
    """Has the first of each stop signal noted instead of ending the process; a second is as usual.

    Signals that are ignored stay so, and off the main thread all are somebody else's.

    Args:
        note: called with a signal's number.
    """

    def handler(number: int) -> Any:
        before = signal.getsignal(number)

        def handle(number: int, frame: Any) -> None:
            note(number)
            signal.signal(number, before)

        return handle

    return handled(handler)


@contextlib.contextmanager
def handled(handler: Callable[[int], Any]) -> Iterator[None]:
    """Handles the stop signals meanwhile, but those that are ignored.

    Args:
        handler: from a signal's number to what handles it.
    """
    before: dict[int, Any] = {}
    try:
        for number in STOP_SIGNALS:
            # `nohup` and a shell's background jobs ignore some, and mean it.
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handler(number))
    except ValueError:  # not in the main thread
        before.clear()
    try:
        yield
    finally:
        for number, handle in before.items():
            signal.signal(number, handle)
