"""What a search maximises: accuracy, alignment, or both."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

OBJECTIVES = ("top1", "angle", "both")
LABELS = {
    "top1": "top-1 on validation",
    "angle": "1 - mean angle of W and B / 90°",
    "both": "mean of top-1 and 1 - mean angle / 90°",
}


def score(objective: str, measured: Mapping[str, float]) -> float:
    """The score of a trial; higher is better.

        top1    val_top1
        angle   1 - mean_angle / 90       1 where every B is aligned with its W, 0 at right angles
        both    the mean of the two

    Args:
        objective: one of `OBJECTIVES`.
        measured: val_top1 (a fraction) and, but for top1, mean_angle (degrees).

    Returns:
        The score.
    """
    if objective == "top1":
        return measured["val_top1"]
    aligned = 1.0 - measured["mean_angle"] / 90.0
    return aligned if objective == "angle" else (measured["val_top1"] + aligned) / 2.0


def mean_angle(run_directory: Path) -> float | None:
    """The mean over layers of the angle between W and B, after a run's last epoch.

    Args:
        run_directory: of the run.

    Returns:
        Degrees; None where layers.csv has no angles, as with backpropagation.
    """
    try:
        with open(run_directory / "layers.csv", newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return None
    last = [row for row in rows if row.get("global_step") == rows[-1].get("global_step")]
    try:
        angles = [float(row["weight_angle"]) for row in last]
    except (KeyError, TypeError, ValueError):
        return None
    if not angles or not all(map(math.isfinite, angles)):
        return None
    return math.fsum(angles) / len(angles)


def parts(measured: Mapping[str, float]) -> str:
    """What a score was made of, in parentheses; "" where that is the score itself."""
    if "mean_angle" not in measured:
        return ""
    return f" (top-1 {measured['val_top1']:.2%}, {measured['mean_angle']:.1f}°)"
