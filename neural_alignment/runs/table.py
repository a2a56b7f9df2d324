"""A run's tables: CSV files whose rows belong to epochs."""

from __future__ import annotations

import csv
import io
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from neural_alignment import atomic
from neural_alignment.runs.directory import RunDirectoryError, cannot_write
from neural_alignment.runs.steps import whole_steps

METRICS = ("epoch", "global_step", "loss", "alignment_loss", "val_loss", "val_top1", "val_top5")
KERNEL_METRICS = ("weight_angle", "norm_ratio")
LAYER_METRICS = ("epoch", "global_step", "layer", *KERNEL_METRICS, "alignment_loss")
# On request: what takes a batch to measure, and how the pairs of weights go together.
PATH_METRICS = (
    *("projection_angle", "local_gradient_angle", "error_angle", "error_norm", "backprop_norm"),
    *("weight_correlation", "one_way", "both_ways"),
)
# How long an epoch took, and how many steps of it this was.
TIMES = ("epoch", "global_step", "steps", "train_seconds", "other_seconds")


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
            with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
                try:
                    self.rows = [dict(row) for row in csv.DictReader(file)]
                except csv.Error as error:
                    raise RunDirectoryError(
                        f"Expected a table in {path}. Received: {error}. Put the file back as it "
                        "was, or give another --workdir."
                    ) from error
        for row in self.rows:
            whole = set(row) == set(self._columns) and None not in row.values()  # none is cut
            if not whole or not row["global_step"].isdigit() or not _is_number(row["epoch"]):
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
        try:
            atomic.write_text(self.path, text.getvalue())
        except OSError as error:
            raise cannot_write(error) from error


def steps_after(epochs: float, row: Mapping[str, Any]) -> int:
    """The whole steps of so many epochs, as a run of that length takes them: one at least.

    Args:
        epochs: whole or not.
        row: of the run's metrics.csv, which says how many steps an epoch has.

    Returns:
        The number of steps.
    """
    steps_per_epoch = float(row["global_step"]) / float(row["epoch"])
    return max(1, whole_steps(epochs, steps_per_epoch))


def has_ended(row: Mapping[str, Any], epochs: float) -> bool:
    """Whether a run has the last step of its length, which may lie before the end of an epoch.

    Args:
        row: the last of its metrics.csv.
        epochs: that it is to train; NaN: not known.
    """
    if not float(row["epoch"]) > 0.0 or not math.isfinite(epochs):
        return False
    return float(row["global_step"]) >= steps_after(epochs, row)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _text(value: Any) -> str:
    return repr(float(value)) if isinstance(value, float) else str(value)
