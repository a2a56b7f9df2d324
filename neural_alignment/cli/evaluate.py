"""`neural-alignment evaluate`: validates a checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from neural_alignment.cli import command


def main(argv: Sequence[str] | None = None) -> int:
    """Validates as a command line says; may be called again in the same process.

    Args:
        argv: the command line, the script's name first; None: this process's.

    Returns:
        The exit code.
    """
    return command.run("evaluate", argv)


if __name__ == "__main__":
    sys.exit(main())
