"""The run directory: the flags it was started with, and its tables of metrics."""

from __future__ import annotations

import csv
import io
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from neural_alignment.training.flags import TRAIN_EPOCHS

# A run may be resumed with other values of these: they change where things are or how often they
# are written, not what is computed.
MAY_CHANGE = frozenset(
    {
        "checkpoint_max",
        "data_dir",
        "download",
        "epochs_per_checkpoint",
        "gcp_project",
        "gpu",
        "iterations_per_loop",
        "load_checkpoint",
        "load_step",
        "max_epochs",
        "preset",
        "tpu_name",
        "tpu_zone",
        "validate_first",
        "workdir",
    }
)
# Flag that may be raised, and its default.
MAY_GROW = {"train_epochs": TRAIN_EPOCHS}

METRICS = ("epoch", "global_step", "loss", "alignment_loss", "val_loss", "val_top1", "val_top5")


class RunDirectoryError(RuntimeError):
    """A run directory of a run with other flags, or that cannot be read or written."""


def write_flags(folder: pathlib.Path, values: Mapping[str, str]) -> None:
    """Writes `flags.cfg`, a flagfile that repeats the run in another run directory.

    Args:
        folder: the run directory.
        values: flag name to its line in a flagfile.
    """
    lines = (line for name, line in sorted(values.items()) if name != "workdir")
    _write_atomically(folder / "flags.cfg", "".join(f"{line}\n" for line in lines))


def check_flags(folder: pathlib.Path, values: Mapping[str, str]) -> None:
    """Refuses to resume a run with flags that would make another run of it.

    Args:
        folder: the run directory.
        values: flag name to its line in a flagfile, those at their defaults left out.

    Raises:
        RunDirectoryError: names every flag that differs, and both values.
    """
    path = folder / "flags.cfg"
    if not path.exists():
        return
    before = {_flag_name(line): line for line in path.read_text().splitlines() if line.strip()}
    differences = []
    for name in sorted((set(before) | set(values)) - MAY_CHANGE):
        old, new = before.get(name), values.get(name)
        if old == new or (name in MAY_GROW and _grows(old, new, MAY_GROW[name])):
            continue
        differences.append(f"  was {old or f'--{name} not given'}, now {new or 'not given'}")
    if differences:
        raise RunDirectoryError(
            f"{folder} holds a run with other flags:\n"
            + "\n".join(differences)
            + "\nGive the flags it was started with, or another --workdir."
        )


def _grows(old: str | None, new: str | None, default: float) -> bool:
    def epochs(line: str | None) -> float:
        return default if line is None else float(line.partition("=")[2])

    return epochs(new) >= epochs(old)


def _flag_name(line: str) -> str:
    return line.strip().removeprefix("--").partition("=")[0]


class Table:
    """A CSV file whose rows belong to epochs; rewritten whole and moved into place at each change.

    Args:
        path: of the file.
        columns: its header; "epoch" and "global_step" among them.

    Raises:
        RunDirectoryError: the file is no such table.
    """

    def __init__(self, path: pathlib.Path, columns: Sequence[str]) -> None:
        self.path = path
        self._columns = tuple(columns)
        self.rows: list[dict[str, str]] = []
        if path.exists():
            with path.open(newline="") as file:
                self.rows = [dict(row) for row in csv.DictReader(file)]
        for row in self.rows:
            if set(row) != set(self._columns) or not (row["global_step"] or "").isdigit():
                raise RunDirectoryError(
                    f"Expected a table with the columns {', '.join(columns)} in {path}. "
                    f"Received the row: {row}. Put the file back as it was, or give another "
                    "--workdir."
                )

    def truncate(self, step: int, every: int = 1) -> None:
        """Drops the rows that a resumed run writes again.

        Args:
            step: rows of later steps go.
            every: so do rows whose step is not a multiple of it.
        """
        self.rows = [
            row
            for row in self.rows
            if int(row["global_step"]) <= step and int(row["global_step"]) % every == 0
        ]

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds rows and writes the file.

        Args:
            rows: a value for each column; floats are written with every digit.

        Raises:
            RunDirectoryError: it could not be written, because there is no space left, say.
        """
        self.rows += [{name: _text(row[name]) for name in self._columns} for row in rows]
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        _write_atomically(self.path, text.getvalue())


def _text(value: Any) -> str:
    return repr(float(value)) if isinstance(value, float) else str(value)


def _write_atomically(path: pathlib.Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise RunDirectoryError(
            f"could not write {path}: {error.strerror}. What it held is still there. Make space or "
            "check the folder, then run the same command again."
        ) from error
