"""`neural-alignment report`: one HTML page about runs."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence

from neural_alignment import config
from neural_alignment.cli import environment
from neural_alignment.cli.parse import Program, help_text, parse, wants_help
from neural_alignment.cli.running import run
from neural_alignment.config.options import (
    PathText,
    UsageError,
    define_group,
    option,
    path_of,
    read_group,
    settings_of,
)
from neural_alignment.exits import DONE
from neural_alignment.figures.tables import RunReadError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What is to be written."""

    output: PathText = option("report.html", "the HTML file", main=True)


_PROGRAM = Program(
    usage="usage: neural-alignment report RUN [RUN...] [--output=FILE]",
    about="Writes one HTML page about runs, side by side, with all that it shows inside it: "
    "settings that differ from the defaults, curves, every layer's angles and norms, times.",
    define=lambda fv: define_group(Report, fv),
    sections=lambda: [("Page", settings_of(Report))],
    page="docs/runs.md",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the page that a command line asks for; may be called again in the same process.

    Args:
        argv: the command line, the program's name first; None: this process's.

    Returns:
        The exit code: 0; 1 for an error; 2 for wrong usage.
    """
    return run(_main, argv, (RunReadError, environment.UnusableError))


def _main(argv: Sequence[str]) -> int:
    if wants_help(argv):
        sys.stdout.write(help_text(_PROGRAM, full=True))
        return DONE
    fv, given = parse(_PROGRAM, config.expand(argv, presets=False))
    wanted = read_group(Report, fv)
    if not given:
        raise UsageError("expected run directories. Received: none")
    folders = [path_of("RUN", folder) for folder in given]
    environment.require("report", *environment.NEEDS["report"])
    from neural_alignment import report

    for note in report.write(folders, wanted.output):
        environment.say(f"note: {note}\n")
    sys.stdout.write(f"{wanted.output}\n")
    return DONE
