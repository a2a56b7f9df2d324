"""A run's tables as figures take them: a row an epoch, in order, whatever became of the file."""

from __future__ import annotations

import csv
import io
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from neural_alignment.messages import one_line

Row = dict[str, Any]


class RunReadError(ValueError):
    """A folder that holds no run, or a table that cannot be read."""


def read(
    path: pathlib.Path, needed: Sequence[str], layer: str | None = None
) -> tuple[list[Row], list[str]]:
    """Reads a table of a run.

    A last line that was cut short, by a full disk or a copy of a file being written, is left out;
    rows are put in the order of their epochs, and of several of one epoch the last one counts.

    Args:
        path: of the CSV file.
        needed: columns that it has to have, "epoch" and "global_step" among them.
        layer: the column that is a text, and of which each epoch has a row for each value; None:
            an epoch has one row.

    Returns:
        The rows, numbers as numbers, none where there is no such file; and what was not as a run
        leaves it.

    Raises:
        RunReadError: it is no such table.
    """
    if not path.exists():
        return [], []
    try:
        text = path.read_text(encoding="utf-8-sig")
        if not text.strip():
            return [], [f"{path} is empty"]
        read_rows, notes = _rows(text, needed, layer)
    except (OSError, ValueError, csv.Error) as error:
        raise RunReadError(
            f"Expected a table of a run with the columns {', '.join(needed)} in {path}. "
            f"Received: {one_line(error)}. Put it back as it was, or leave that run out"
        ) from error
    by_key = {(row["epoch"], row[layer] if layer else None): row for row in read_rows}
    if len(by_key) < len(read_rows):
        notes.append("has epochs more than once: the last row of each counts")
    rows = sorted(by_key.values(), key=lambda row: row["epoch"])
    return rows, [f"{path} {note}" for note in notes]


def _rows(text: str, needed: Sequence[str], layer: str | None) -> tuple[list[Row], list[str]]:
    reader = csv.reader(io.StringIO(text))
    columns = next(reader)
    missing = [name for name in needed if name not in columns]
    if missing:
        raise ValueError(f"no column {missing[0]}")
    rows: list[Row] = []
    torn: ValueError | None = None
    for cells in reader:
        if not cells:
            continue
        if torn is not None:
            raise torn
        try:
            rows.append(_row(columns, cells, layer))
        except ValueError as error:
            torn = ValueError(f"line {reader.line_num}: {error}")
            if text.endswith("\n") and len(cells) >= len(columns):
                raise torn from error
    return rows, [] if torn is None else ["ends within a row, which is left out"]


def _row(columns: Sequence[str], cells: Sequence[str], layer: str | None) -> Row:
    if len(cells) != len(columns):
        raise ValueError(f"{len(cells)} cells under {len(columns)} columns")
    row = {
        name: text if name == layer else float(text)
        for name, text in zip(columns, cells, strict=True)
    }
    lost = [name for name in ("epoch", "global_step") if not math.isfinite(row[name])]
    if lost:
        raise ValueError(f"{row[lost[0]]} as {lost[0]}")
    return row
