"""What holds where a flag is not given: by data set, model and rule, or as the run recorded it.

The table is `defaults.toml`. What it fills in is written before the command line, so every flag
that is given wins, and a run's flags.cfg names it (`--defaults=NAME,...`), so that the run keeps it
when the table changes.
"""

from __future__ import annotations

import functools
import pathlib
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from neural_alignment import data, models
from neural_alignment.config.flags import (
    DATA_FLAGS,
    MODEL_FLAGS,
    flag_text,
    parsed,
    run_folder,
)
from neural_alignment.runs import record

_TABLE = pathlib.Path(__file__).with_name("defaults.toml")
_KEYS = ("dataset", "model", "alignment")


@functools.cache
def rows() -> tuple[Mapping[str, Any], ...]:
    """The rows of the table, in order."""
    return tuple(tomllib.loads(_TABLE.read_text(encoding="utf-8"))["defaults"])


def of(dataset: str, model: str, alignment: str) -> dict[str, str]:
    """What is filled in for a data set, a model and a rule.

    Args:
        dataset: its name.
        model: its name.
        alignment: the rule's name, or "backprop".

    Returns:
        Flag name to text; nothing where the table knows nothing of them.
    """
    run = dict(zip(_KEYS, (dataset, model, alignment), strict=True))
    found: dict[str, Any] = {}
    for row in rows():
        if all(run[key] in several(row.get(key, run[key])) for key in _KEYS):
            found |= row["flags"]
    return {name: flag_text(value) for name, value in found.items()}


def several(names: str | Sequence[str]) -> tuple[str, ...]:
    """The names of a row, which may be one."""
    return (names,) if isinstance(names, str) else tuple(names)


def fill(argv: Sequence[str], fv: flags.FlagValues) -> list[str]:
    """The command line with what is filled in before it.

    Args:
        argv: the command line, presets and flagfiles expanded.
        fv: its flags.

    Returns:
        The command line. As it was with a preset or with `--defaults`, which a run's flags.cfg has;
        with what the run recorded where its directory is there.
    """
    if fv["preset"].value is not None or fv["defaults"].value is not None:
        return list(argv)
    run = [fv[key].value or "backprop" for key in _KEYS]
    file = run_folder(fv["workdir"].value, *run, fv["seed"].value) / "flags.cfg"
    if file.is_file():
        filled = record.filled([line for line in record.read(file) if line.startswith("-")])
    else:
        filled = of(*run)
    taken = {*data.options(run[0]), *models.options(run[1])}
    filled = {
        name: text
        for name, text in filled.items()
        if not fv[name].present and (name in taken or name not in {*DATA_FLAGS, *MODEL_FLAGS})
    }
    lines = [f"--{name}={text}" for name, text in filled.items()]
    return [*argv[:1], *lines, f"--defaults={','.join(filled) or record.NONE}", *argv[1:]]


def filled(argv: Sequence[str]) -> flags.FlagValues:
    """The flags of a training job's command line, with what is filled in.

    Args:
        argv: the command line, presets and flagfiles expanded.

    Returns:
        Parsed flags.

    Raises:
        UsageError: an unknown flag, or a value that it does not take.
    """
    return parsed(fill(argv, parsed(argv)))
