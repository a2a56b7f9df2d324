"""Angles and norms of the layers: against epochs, coloured by depth, and at the end of training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from neural_alignment.figures import style
from neural_alignment.figures.curves import line, over_epochs
from neural_alignment.figures.material import Drawn, Material, NotDrawn, Row
from neural_alignment.figures.reader import Group, Run, grouped
from neural_alignment.figures.summary import summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HAS_KERNELS = (
    "backprop, direct and frozen have no kernel B; train with a rule that has one "
    "(--alignment=symmetric, say)."
)
_REMEDIES = {
    "weight_angle": _HAS_KERNELS,
    "norm_ratio": _HAS_KERNELS,
    "error_angle": "Train with --path_metrics; under frozen no error arrives.",
}
_WORDS = {
    "weight_angle": "W and B in layers.csv",
    "norm_ratio": "W and B in layers.csv",
    "error_angle": "error angles in layers.csv",
}


def draw_angles(material: Material) -> Drawn:
    """Angle of W and B of every layer against epochs ([K] figure S4; [A] figure 3a).

    Args:
        material: runs.

    Returns:
        The figure, and mean and sd of each group, layer and epoch.

    Raises:
        NotDrawn: no run has such angles.
    """
    return _against_epochs(material, "weight_angle")


def draw_error_angles(material: Material) -> Drawn:
    """Angle of the error that arrives at every layer to backpropagation's ([A] figure 3b).

    Args:
        material: runs.

    Returns:
        The figure, and mean and sd of each group, layer and epoch.

    Raises:
        NotDrawn: no run has measured it.
    """
    return _against_epochs(material, "error_angle")


def draw_norm_ratios(material: Material) -> Drawn:
    """Norm ratio |B| / |W| of every layer against epochs ([K] figure S4).

    Args:
        material: runs.

    Returns:
        The figure, and mean and sd of each group, layer and epoch.

    Raises:
        NotDrawn: no run has it.
    """
    return _against_epochs(material, "norm_ratio")


def draw_by_depth(material: Material) -> Drawn:
    """Angles after the last epoch by layer, from input to output ([P]; [A] figure 3).

    Args:
        material: runs.

    Returns:
        The figure, and mean and sd of each group and layer.

    Raises:
        NotDrawn: no run has angles.
    """
    groups = _groups(material, "weight_angle", "error_angle")
    networks: dict[tuple[str, ...], list[Group]] = {}
    for group in groups:
        networks.setdefault(group.layers, []).append(group)
    shown = [
        (layers, measure)
        for layers, of_network in networks.items()
        for measure in ("weight_angle", "error_angle")
        if any(_at_end(run, measure) for group in of_network for run in group.runs)
    ]
    if not shown:
        raise NotDrawn(
            "Expected angles of the last epoch in layers.csv. Received: "
            f"{', '.join(str(run.folder) for group in groups for run in group.runs)} without. Let "
            "the run go on with the same command; kernels that are not finite have no angle"
        )
    width = min(4.6, 2.4 + 0.14 * max(map(len, networks)))
    figure, axes = style.panels(len(shown), width=width, height=2.9)
    table: list[Row] = []
    for panel, (layers, measure) in zip(axes, shown, strict=True):
        for group in networks[layers]:
            table += _final(panel, group, measure, material.index(group))
        style.named_ticks(panel, layers)
        panel.set_ylabel(style.MEASURES[measure])
    _in_degrees(axes, table)
    style.legend_above(figure)
    return Drawn(figure, table)


def _at_end(run: Run, measure: str) -> bool:
    """Whether a run's layers have a measure after the last epoch."""
    return any(math.isfinite(run.at_end(name).get(measure, math.nan)) for name in run.layers)


def _final(panel: Axes, group: Group, measure: str, index: int) -> list[Row]:
    rows: list[Row] = []
    for layer in group.layers:
        values = [run.at_end(layer).get(measure, math.nan) for run in group.runs]
        one = summarise(values)
        rows.append({"measure": measure, "group": group.label, "layer": layer, **one.row()})
    if any(row["runs"] for row in rows):
        spread = [0.0 if math.isnan(row["sd"]) else row["sd"] for row in rows]
        means = [row["mean"] for row in rows]
        look = style.series(index)
        look["label"] = style.in_legend(group.label)
        panel.errorbar(range(len(rows)), means, yerr=spread, **look)
    return rows


def _groups(material: Material, measure: str, other: str | None = None) -> list[Group]:
    """The groups of runs that have a measure, or another one."""
    material.leave_out_backprop()
    asked = [measure, *([other] if other else [])]
    runs = material.having(
        lambda run: any(map(run.measures, asked)),
        "angles in layers.csv" if other else _WORDS[measure],
        _REMEDIES[measure],
    )
    return [_of_one_network(material, group) for group in grouped(runs)]


def _of_one_network(material: Material, group: Group) -> Group:
    """A group's runs whose layers have the names of the first one's; the others are noted."""
    alike = [run for run in group.runs if set(run.layers) == set(group.layers)]
    for run in group.runs:
        if run not in alike:
            material.notes.append(
                f"{run.folder} is left out: its layers {', '.join(run.layers)} are called "
                f"otherwise than those of {group.runs[0].folder}"
            )
    return dataclasses.replace(group, runs=alike)


def _against_epochs(material: Material, measure: str) -> Drawn:
    groups = _groups(material, measure)
    figure, axes = style.panels(len(groups), sharey=True, sharex=True)
    table: list[Row] = []
    columns = style.columns(len(groups))
    for index, (panel, group) in enumerate(zip(axes, groups, strict=True)):
        for depth, layer in enumerate(group.layers):
            points = over_epochs(_rows(group.runs, layer), measure)
            look = style.of_depth(depth, len(group.layers), len(points))
            line(panel, points, depth, **look)
            table += [
                {"measure": measure, "group": group.label, "layer": layer, "epoch": epoch}
                | one.row()
                for epoch, one in points.items()
            ]
        panel.set_title(style.in_lines(group.label))
        style.whole_epochs(panel)
        panel.tick_params(labelbottom=True)
        if measure == "norm_ratio":
            panel.axhline(1.0, color=style.GREY, linewidth=0.8, zorder=0)
        if index % columns == 0:
            panel.set_ylabel(style.MEASURES[measure])
    if measure != "norm_ratio":
        _in_degrees(axes, table)
    _keys(figure, axes, groups)
    return Drawn(figure, table)


def _rows(runs: Sequence[Run], layer: str) -> list[Sequence[Row]]:
    return [run.layers[layer] for run in runs]


def _in_degrees(axes: Sequence[Axes], table: Sequence[Row]) -> None:
    """One scale of degrees on all panels, which nothing lies outside of."""
    spread = [0.0 if math.isnan(row["sd"]) else row["sd"] for row in table]
    tops = [row["mean"] + sd for row, sd in zip(table, spread, strict=True) if row["runs"]]
    most = min(180.0, max(tops))
    end, step = next(pair for pair in ((95, 30), (125, 30), (185, 45)) if most < pair[0])
    for panel in axes:
        panel.set_ylim(0.0, end)
        panel.set_yticks(range(0, end, step))


def _keys(figure: Figure, axes: Sequence[Axes], groups: Sequence[Group]) -> None:
    """One key where all networks have the same layers, else one for each panel."""
    if all(group.layers == groups[0].layers for group in groups):
        style.depth_key(figure, axes, groups[0].layers)
        return
    for panel, group in zip(axes, groups, strict=True):
        style.depth_key(figure, [panel], group.layers)
