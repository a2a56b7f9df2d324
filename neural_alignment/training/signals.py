"""Signals that ask a job to stop: it finishes the step it is at, and saves."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

# SIGHUP is that of a terminal that was closed.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def interrupt_on_stop_signals() -> None:
    """Makes the stop signals raise KeyboardInterrupt, but those that are ignored (`nohup`)."""
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


@contextlib.contextmanager
def noted(note: Callable[[int], None]) -> Iterator[None]:
    """Has the first of each stop signal noted instead of ending the process; a second is as usual.

    Signals that are ignored stay so, and off the main thread all are somebody else's.

    Args:
        note: called with a signal's number.
    """

    def handle(number: int, frame: Any) -> None:
        note(number)
        signal.signal(number, before[number])

    before: dict[int, Any] = {}
    try:
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handle)
    except ValueError:  # not in the main thread
        before.clear()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
