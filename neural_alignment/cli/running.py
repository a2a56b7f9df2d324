"""What commands over runs share: tables, errors as one message each, and exit codes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from neural_alignment.cli import environment
from neural_alignment.config.options import UsageError
from neural_alignment.exits import FAILED, USAGE, Interrupted
from neural_alignment.messages import of_system

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Where nobody says how wide a file or a pipe is: wider than every table.
_WIDE = 240
_ROOM = 80


def run(
    main: Callable[[Sequence[str]], int],
    argv: Sequence[str] | None,
    errors: tuple[type[Exception], ...],
    stopped: Interrupted | None = None,
) -> int:
    """Calls a command, with errors that a user can act on as one message each.

    Args:
        main: takes the command line, the program's name first, and gives the exit code.
        argv: the command line; None: this process's.
        errors: of the command, beside wrong usage and the system's.
        stopped: what is said and given where Ctrl-C ends the command; None: that it was stopped.

    Returns:
        The exit code: the command's; 1 for an error; 2 for wrong usage; 128 + the signal's number,
        or what `stopped` has, where it was told to stop.
    """
    with environment.guarded_stdout():
        try:
            return main(list(sys.argv if argv is None else argv))
        except UsageError as error:
            return _say(f"error: {error}", USAGE)
        except Interrupted as interrupted:
            return _say(interrupted, interrupted.code)
        except KeyboardInterrupt:
            stopped = stopped or Interrupted(signal.SIGINT, "Stopped.")
            return _say(stopped, stopped.code)
        except OSError as error:
            return _say(f"error: {of_system(error)}", FAILED)
        except errors as error:
            return _say(f"error: {error}", FAILED)


def to_stdout() -> Console:
    """Where a command prints, as wide as the terminal; in a file or a pipe wider than its tables.

    Returns:
        rich's console.
    """
    from rich.console import Console

    told = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if told else _WIDE)


def table(title: str, head: Sequence[str]) -> Table:
    """A table whose cells are whole in a narrow terminal, and a rule's name in one line of 80.

    Args:
        title: above it.
        head: of its columns.

    Returns:
        The table, without rows.
    """
    from rich.table import Table

    made = Table(title=title, title_justify="left", title_style="")
    has_room = to_stdout().width >= _ROOM
    for i, column in enumerate(head):
        made.add_column(column, overflow="fold", no_wrap=has_room and i == 0)
    return made


def _say(message: object, code: int) -> int:
    environment.say(f"{message}\n")
    return code
