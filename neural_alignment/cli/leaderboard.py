"""`neural-alignment leaderboard RUNS`: every rule on every task, from run directories."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import sys
from collections.abc import Sequence

from neural_alignment import atomic, config
from neural_alignment.cli import environment
from neural_alignment.cli.parse import Program, help_text, parse, wants_help
from neural_alignment.cli.running import run, table, to_stdout
from neural_alignment.config.options import (
    PathText,
    UsageError,
    define_group,
    option,
    path_of,
    read_group,
    settings_of,
)
from neural_alignment.exits import DONE, FAILED
from neural_alignment.figures.tables import RunReadError
from neural_alignment.reproduce import leaderboard


@dataclasses.dataclass(frozen=True, kw_only=True)
class Board:
    """Where the table goes."""

    outdir: PathText | None = option(
        None, "folder for leaderboard.csv and leaderboard.md, beside what is printed", main=True
    )


_PROGRAM = Program(
    usage="usage: neural-alignment leaderboard RUNS [RUNS...] [--outdir=DIR]",
    about="Sorts rules by accuracy, task by task, from run directories or folders of them; runs "
    "that differ by their seed alone are one row.",
    define=lambda fv: define_group(Board, fv),
    sections=lambda: [("Leaderboard", settings_of(Board))],
    page="docs/leaderboard.md",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the table that a command line asks for; may be called again in the same process.

    Args:
        argv: the command line, the program's name first; None: this process's.

    Returns:
        The exit code: 0; 1 for an error; 2 for wrong usage.
    """
    return run(_main, argv, (RunReadError, RuntimeError))


def _main(argv: Sequence[str]) -> int:
    if wants_help(argv):
        sys.stdout.write(help_text(_PROGRAM, full=True))
        return DONE
    fv, folders = parse(_PROGRAM, config.expand(argv, presets=False))
    board = read_group(Board, fv)
    if not folders:
        raise UsageError("expected run directories, or folders of them. Received: none")
    environment.require("leaderboard", "rich")
    paths = [path_of("RUNS", folder) for folder in folders]
    rows, notes = leaderboard.rows(paths)
    _show(rows)
    if board.outdir is not None and rows:
        folder = pathlib.Path(board.outdir)
        folder.mkdir(parents=True, exist_ok=True)
        files = {"leaderboard.csv": leaderboard.to_csv, "leaderboard.md": leaderboard.to_markdown}
        for name, made in files.items():
            atomic.write_text(folder / name, made(rows), shared=True)
            sys.stdout.write(f"{folder / name}\n")
    for note in notes:
        environment.say(f"note: {note}\n")
    if not rows:
        environment.say("error: Expected runs that have ended. Received: none\n")
    return DONE if rows else FAILED


def _show(rows: Sequence[leaderboard.Row]) -> None:
    console = to_stdout()
    for task, of_it in itertools.groupby(rows, key=lambda row: row.task):
        shown = table(task, leaderboard.HEAD)
        for row in of_it:
            shown.add_row(*leaderboard.cells(row))
        console.print(shown)


if __name__ == "__main__":
    sys.exit(main())
