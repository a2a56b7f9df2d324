"""The former place of `neural_alignment.cli.command` and of the scripts' exit codes."""

from neural_alignment.deprecation import moved

_EXITS = "neural_alignment.exits"

__getattr__ = moved(__name__, {name: _EXITS for name in ("FAILED", "INTERRUPTED", "USAGE")})
