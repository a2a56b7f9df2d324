"""The table of benchmarks/gpu.py: rows that are filled in as it goes, in a file."""

from __future__ import annotations

import csv
import os
import pathlib
from typing import Any

COLUMNS = (
    "network",
    "batch",
    "dtype",
    "mode",
    "step",
    "ms",
    "ratio",
    "lower",
    "upper",
    "floor",
    "tflops",
    "mib",
    "compile_s",
    "rounds",
    "note",
)


class Table:
    """The rows so far, written whole to a CSV file whenever one changes.

    Args:
        path: of the file.
        device: that is measured, and the versions, for its first line.
    """

    def __init__(self, path: pathlib.Path, device: str) -> None:
        self.path = path
        self.device = device
        self.rows: dict[tuple[str, str, str], dict[str, Any]] = {}

    def set(self, network: str, mode: str, step: str, **values: Any) -> None:
        """Sets columns of a row."""
        row = self.rows.setdefault((network, mode, step), {"network": network, "mode": mode})
        row.update(step=step, **values)

    def write(self) -> None:
        """Writes all rows."""
        text = self.path.with_suffix(".part")
        with open(text, "w", newline="") as file:
            file.write(f"# {self.device}\n")
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows.values())
        os.replace(text, self.path)

    def markdown(self) -> str:
        """The rows as a Markdown table."""
        shown = ("network", "mode", "step", "ms", "ratio", "floor", "tflops", "mib", "note")
        lines = [self.device, "", f"| {' | '.join(shown)} |", "|---" * len(shown) + "|"]
        lines += [
            f"| {' | '.join(str(row.get(key, '')) for key in shown)} |"
            for row in self.rows.values()
        ]
        return "\n".join(lines)
