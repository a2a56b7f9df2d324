"""The page's charts: Matplotlib's SVG, as text to be put into an image's address."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.figure import Figure

from neural_alignment.figures import style
from neural_alignment.report.runs import Shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CURVES = {
    "val_top1": "top-1 (%)",
    "loss": "training loss",
    "val_loss": "validation loss",
    "alignment_loss": "alignment loss R",
}
_LAYERS = {
    "weight_angle": "Angle of W and B (degrees)",
    "norm_ratio": "|B| / |W|",
    "error_angle": "Angle of the errors (degrees)",
}
_SIZE = (4.4, 2.9)


def curves(runs: Sequence[Shown]) -> dict[str, str]:
    """What was measured of the whole network, every run in one chart.

    Args:
        runs: of the page.

    Returns:
        Title to an image's address.
    """
    return {
        title: _image(lambda axes, name=name: _draw_curves(axes, runs, name), title)
        for name, title in _CURVES.items()
        if any(_measured(each, name) for each in runs)
    }


def layers(runs: Sequence[Shown]) -> dict[str, list[tuple[str, str]]]:
    """What was measured of each layer, a chart for each run, on one scale.

    Args:
        runs: of the page.

    Returns:
        Title to the runs' names and images' addresses; no title of what no run has.
    """
    found = {}
    for name, title in _LAYERS.items():
        having = [each for each in runs if each.run.measures(name)]
        top = max((v for each in having for _, v in _points(each, name)), default=0.0)
        images = [
            (each.name, _image(lambda axes, e=each: _draw_layers(axes, e, name, top), each.name))  # noqa: B023
            for each in having
        ]
        if images:
            found[title] = images
    return found


def _measured(shown: Shown, name: str) -> bool:
    """Whether a column of metrics.csv is there, and ever a number other than 0."""
    values = (row.get(name, math.nan) for row in shown.run.metrics)
    return any(math.isfinite(value) and value for value in values)


def _points(shown: Shown, name: str) -> list[tuple[float, float]]:
    rows = (row for rows in shown.run.layers.values() for row in rows)
    return [(r["epoch"], r[name]) for r in rows if math.isfinite(r.get(name, math.nan))]


def _draw_curves(axes: Axes, runs: Sequence[Shown], name: str) -> None:
    for index, each in enumerate(runs):  # a run looks the same in every chart
        rows = each.run.metrics
        if not _measured(each, name):
            continue
        values = [row[name] * (100.0 if name == "val_top1" else 1.0) for row in rows]
        look = style.series(index, len(rows))
        label = style.in_legend(each.name)
        axes.plot([row["epoch"] for row in rows], values, label=label, **look)
    values = [row.get(name, math.nan) for each in runs for row in each.run.metrics]
    positive = all(value > 0.0 for value in values if math.isfinite(value))
    if name in ("loss", "val_loss") and positive:
        axes.set_yscale("log")
    axes.set_ylabel(_CURVES[name])
    if len(runs) > 1:
        style.legend_above(axes.figure)


def _draw_layers(axes: Axes, shown: Shown, name: str, top: float) -> None:
    names = list(shown.run.layers)
    for index, layer in enumerate(names):
        rows = [r for r in shown.run.layers[layer] if math.isfinite(r.get(name, math.nan))]
        look = style.of_depth(index, len(names), len(rows))
        axes.plot([r["epoch"] for r in rows], [r[name] for r in rows], **look)
    axes.set_ylim(0.0, 1.05 * top or 1.0)
    axes.set_ylabel(_LAYERS[name])
    style.depth_key(axes.figure, [axes], names)


def _image(draw: Callable[[Any], None], salt: str) -> str:
    # Text as outlines: it looks the same wherever the page is read.
    with style.context(), matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": salt}):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        draw(axes)
        style.whole_epochs(axes)
        held = io.BytesIO()
        with style.letters_told(axes.get_ylabel()):
            figure.savefig(held, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(held.getvalue()).decode()}"
