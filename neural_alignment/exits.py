"""Exit codes of the scripts."""

import signal

DONE = 0
FAILED = 1
USAGE = 2
# sysexits.h's EX_TEMPFAIL: run the same command again to go on.
INTERRUPTED = 75


class Interrupted(RuntimeError):
    """Told to stop by a signal; what was under way will be taken up.

    Args:
        number: the signal.
        words: what the user reads; None: that the same command goes on.
        code: the exit code; None: as shells have it, 128 + the number.
    """

    def __init__(self, number: int, words: str | None = None, code: int | None = None) -> None:
        name = signal.Signals(number).name
        super().__init__(words or f"Stopped by {name}; the same command goes on.")
        self.number = number
        self.code = 128 + number if code is None else code


class RefusedError(RuntimeError):
    """A program that was started refused its flags or data, as it would those of others to come."""
