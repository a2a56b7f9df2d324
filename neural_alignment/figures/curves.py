"""Accuracy and losses against epochs ([A] figure 2; [P] figure 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from neural_alignment.figures import style
from neural_alignment.figures.material import Drawn, Material, NotDrawn, Row
from neural_alignment.figures.reader import Group, grouped
from neural_alignment.figures.summary import Summary, summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Column of metrics.csv, what stands on the axis, and its factor.
_MEASURES = (
    ("val_top1", "top-1 on validation (%)", 100.0),
    ("loss", "loss in training", 1.0),
    ("val_loss", "loss on validation", 1.0),
)
_WIDE = 20.0  # a span that a linear axis does not show


def draw(material: Material) -> Drawn:
    """Accuracy and losses against epochs: a line a group, a band of ± 1 sd over seeds.

    Args:
        material: runs.

    Returns:
        The figure, and mean, sd and number of runs of each measure, group and epoch.

    Raises:
        NotDrawn: no measure is a number.
    """
    groups = grouped(material.runs)
    figure, axes = style.panels(len(_MEASURES))
    table: list[Row] = []
    for panel, (measure, label, factor) in zip(axes, _MEASURES, strict=True):
        for index, group in enumerate(groups):
            points = over_epochs([run.metrics for run in group.runs], measure, factor)
            line(panel, points, index, _with_seeds(group) if panel is axes[0] else None)
            table += [
                {"measure": measure, "group": group.label, "epoch": epoch, **one.row()}
                for epoch, one in points.items()
            ]
        style.whole_epochs(panel)
        panel.set_ylabel(label)
        means = [row["mean"] for row in table if row["measure"] == measure]
        if measure != "val_top1" and means and 0.0 < _WIDE * min(means) < max(means):
            panel.set_yscale("log")
        if measure == "val_top1":
            material.notes += _without_delay(panel, groups, table)
    if not table:
        raise NotDrawn("Expected numbers in metrics.csv. Received: none that is finite")
    style.legend_above(figure)
    material.notes += _uneven(groups)
    return Drawn(figure, table)


def _without_delay(panel: Axes, groups: Sequence[Group], table: Sequence[Row]) -> list[str]:
    """Leaves accuracies by chance, of epochs in which R alone trains, below the axis."""
    delays = {
        group.label: max(run.number("delay_epochs", 0.0) for run in group.runs) for group in groups
    }
    trained = [row["mean"] for row in table if row["epoch"] > delays[row["group"]]]
    if not trained:
        return []
    least = min(trained)
    below = {
        row["group"]: f"{delays[row['group']]:g}"
        for row in table
        if row["epoch"] <= delays[row["group"]] and row["mean"] < least
    }
    if below:
        panel.set_ylim(bottom=least - 0.05 * max(max(trained) - least, 1.0))
    return [
        f"{label}: accuracies up to epoch {delay}, as delay_epochs trains R alone till then, lie "
        "below the axis"
        for label, delay in below.items()
    ]


def _with_seeds(group: Group) -> str:
    count = len(group.runs)
    return group.label if count == 1 else f"{group.label} ({count} seeds)"


def _uneven(groups: Sequence[Group]) -> list[str]:
    """Says which groups have runs of different lengths: their means change their number of runs."""
    found = []
    for group in groups:
        ends = sorted({run.metrics[-1]["epoch"] for run in group.runs})
        if len(ends) > 1:
            shown = ", ".join(f"{end:g}" for end in ends)
            found.append(
                f"{group.label}: the runs end after {shown} epochs; a mean is over those that have "
                "the epoch"
            )
    return found


def over_epochs(
    tables: Sequence[Sequence[Row]], measure: str, factor: float = 1.0
) -> dict[float, Summary]:
    """A measure over runs, by epoch.

    Args:
        tables: of each run, rows with "epoch" and the measure.
        measure: a column.
        factor: to multiply with.

    Returns:
        Epoch to summary over the runs that have it, ascending; without epochs that no number is of.
    """
    found: dict[float, list[float]] = {}
    for rows in tables:
        for row in rows:
            found.setdefault(row["epoch"], []).append(row.get(measure, math.nan) * factor)
    summaries = {epoch: summarise(found[epoch]) for epoch in sorted(found)}
    return {epoch: one for epoch, one in summaries.items() if one.count}


def line(
    panel: Axes, points: dict[float, Summary], index: int, label: str | None = None, **look: object
) -> None:
    """Draws a mean with a band of ± 1 standard deviation where there are several runs.

    Args:
        panel: to draw in.
        points: x to summary.
        index: of the series, which says how it looks.
        label: for the legend.
        **look: options of `Axes.plot`, in the place of the series' own.
    """
    options = look or style.series(index, len(points))
    xs, means = list(points), [one.mean for one in points.values()]
    panel.plot(xs, means, label=label and style.in_legend(label), **options)
    if any(one.count > 1 for one in points.values()):
        low = [one.mean - one.spread for one in points.values()]
        high = [one.mean + one.spread for one in points.values()]
        panel.fill_between(xs, low, high, color=options["color"], alpha=0.18, linewidth=0)
