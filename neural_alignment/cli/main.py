"""`neural-alignment COMMAND`, and the same as `python -m neural_alignment COMMAND`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from neural_alignment import __version__, extras
from neural_alignment.exits import DONE, FAILED, USAGE
from neural_alignment.messages import did_you_mean

# A command, and its line in the help; the module of the same name has its `main`.
COMMANDS = {
    "train": "trains a model with a learning rule, or takes a run up again",
    "evaluate": "validates a checkpoint of a run",
    "search": "searches training settings, or reports on a search",
    "figures": "draws figures of runs, of searches, and of the papers' theory",
    "report": "writes one HTML page about runs: settings, curves, angles, times",
    "leaderboard": "sorts rules by accuracy, task by task, from run directories",
    "reproduce": "runs what a published figure or table needs, and compares",
    "prepare": "turns ImageNet, or class folders of images, into TFRecords",
}


def usage() -> str:
    """The commands, a line each."""
    lines = [f"  {name:<12}{about}" for name, about in COMMANDS.items()]
    return "\n".join(
        [
            "usage: neural-alignment COMMAND [--FLAG=VALUE ...]",
            "",
            *lines,
            "",
            "neural-alignment COMMAND --help lists a command's flags.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: the command line, the program's name first; None: this process's.

    Returns:
        The command's exit code; 2 where there is no such command.
    """
    given = list(sys.argv if argv is None else argv)[1:]
    if not given or given[0] in ("-h", "--help", "help"):
        sys.stdout.write(f"{usage()}\n")
        return DONE if given else USAGE
    if given[0] in ("--version", "version"):
        sys.stdout.write(f"neural-alignment {__version__}\n")
        return DONE
    name, *rest = given
    if name not in COMMANDS:
        sys.stderr.write(
            f"Expected a command: {', '.join(COMMANDS)}. Received: {name!r}"
            f"{did_you_mean(name, COMMANDS)}.\n{usage()}\n"
        )
        return USAGE
    program = f"neural-alignment {name}"
    try:
        extras.require(f"`{program}`", "absl")
    except ImportError as error:
        sys.stderr.write(f"error: {error}\n")
        return FAILED
    return importlib.import_module(f"neural_alignment.cli.{name}").main([program, *rest])


def script(command: str) -> int:
    """Runs a command for a script in front of it, with this process's arguments.

    Args:
        command: a key of `COMMANDS`.

    Returns:
        The command's exit code.
    """
    return main(["neural-alignment", command, *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
