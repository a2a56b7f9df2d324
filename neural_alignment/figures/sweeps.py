"""Accuracy after training against one setting: noise, sparsity, the network."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from neural_alignment.config.flags import MODEL_FLAGS
from neural_alignment.figures import style
from neural_alignment.figures.labels import data_set
from neural_alignment.figures.material import Drawn, Material, NotDrawn, Row
from neural_alignment.figures.reader import Group, Run, grouped
from neural_alignment.figures.summary import Summary, summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NOISE_FLAGS = (
    "use_noisy_global_opt",
    "use_noisy_alignment_opt",
    "noisy_opt_variance",
    "noisy_global_opt_variance",
    "noisy_alignment_opt_variance",
)
# A product path is kept as its factors where they are sparse; dense ones train alike as R Q.
_SPARSITY_FLAGS = ("density", "factored")
_DEFAULT_VARIANCE = 1.0
_AXIS = "top-1 (%)"


def top1(run: Run) -> float:
    """The accuracy after a run's last epoch, in per cent."""
    return 100.0 * run.metrics[-1]["val_top1"]


def noise_variance(run: Run) -> float:
    """The variance of the noise on a run's updates; 0 where none of its optimizers is noisy.

    Where both are, that of the loss's optimizer.
    """
    for optimizer in ("global", "alignment"):
        if run.flags.get(f"use_noisy_{optimizer}_opt") == "true":
            common = run.number("noisy_opt_variance", _DEFAULT_VARIANCE)
            return run.number(f"noisy_{optimizer}_opt_variance", common)
    return 0.0


def noisy_places(run: Run) -> str:
    """Which of a run's two optimizers are noisy, in words for a label; "" where none is.

    Where both are with variances of their own, that of the alignment optimizer is said, too.
    """
    places = [
        word
        for word, optimizer in (("J", "global"), ("R", "alignment"))
        if run.flags.get(f"use_noisy_{optimizer}_opt") == "true"
    ]
    if len(places) < 2:
        return "".join(f"noise on {place}'s updates" for place in places)
    common = run.number("noisy_opt_variance", _DEFAULT_VARIANCE)
    other = run.number("noisy_alignment_opt_variance", common)
    own = f", of variance {other:g} on R's" if other != noise_variance(run) else ""
    return f"noise on J's and R's updates{own}"


def sparsity(run: Run) -> float:
    """The share of a run's feedback weights that are fixed at zero, in per cent."""
    return 100.0 * (1.0 - run.number("density", 1.0))


def network(run: Run) -> str:
    """A run's network, in a word: its model and its own layers."""
    given = [run.flags[name] for name in ("layers_list", "filters_list") if name in run.flags]
    layers = [text or "none" for text in given]
    return " ".join([run.flags.get("model", "fc"), *layers])


def _natural(name: str) -> list[int | str]:
    """A key that puts resnet18 before resnet101."""
    parts = re.split(r"(\d+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def draw_noise(material: Material) -> Drawn:
    """Accuracy against the variance of noise on updates, mean ± s.e.m. ([K] figures 5 and S1).

    A rule that no run of has noise, as backpropagation, is a line across. Noise on the updates of J
    and on those of R are lines apart.

    Args:
        material: runs, of several variances and seeds.

    Returns:
        The figure, and mean, sd and s.e.m. of each group and variance.

    Raises:
        NotDrawn: no two runs differ in their noise.
    """
    found = _by_place(material.runs)
    if not any(len(points) > 1 for _, points in found):
        raise NotDrawn(
            "Expected runs that differ in the variance of their updates' noise. Received: none "
            "that do. Train with --use_noisy_alignment_opt (or --use_noisy_global_opt) and several "
            "--noisy_opt_variance=V"
        )
    figure, (panel,) = style.panels(1, 4.4, 3.2)
    table = _lines(panel, found, "variance", error="sem", runs=material.runs)
    noisy = {run.rule for group, _ in found for run in group.runs}
    table += _across(
        panel, [run for run in material.runs if run.rule not in noisy], "variance", material.runs
    )
    positive = [x for _, points in found for x in points if x > 0.0]
    panel.set_xscale("symlog", linthresh=min(positive), linscale=0.6)
    panel.set_xlim(-0.15 * min(positive), 1.6 * max(positive))
    panel.set_xlabel("variance of the noise on updates")
    panel.set_ylabel(f"{_AXIS}, mean ± s.e.m.")
    style.legend_above(figure)
    return Drawn(figure, table)


def draw_sparsity(material: Material) -> Drawn:
    """Accuracy against the share of feedback weights fixed at zero, mean ± sd ([P] figure 6).

    Backpropagation, which has no such weights, is a line across.

    Args:
        material: runs of several densities.

    Returns:
        The figure, and mean and sd of each group and share.

    Raises:
        NotDrawn: no two runs differ in their density.
    """
    found = _swept(material.runs, sparsity, _SPARSITY_FLAGS)
    if not any(len(points) > 1 for _, points in found):
        raise NotDrawn(
            "Expected runs that differ in the density of their feedback weights. Received: none "
            "that do. Train with several --density=D (0.1 fixes 90 % at zero)"
        )
    swept = {run.folder for group, _ in found for run in group.runs}
    fixed = [r for r in material.runs if "density" not in r.flags and r.folder not in swept]
    figure, (panel,) = style.panels(1, 4.4, 3.2)
    table = _lines(panel, found, "sparsity", error="sd", runs=material.runs)
    table += _across(panel, fixed, "sparsity", material.runs)
    panel.set_xlabel("feedback weights fixed at zero (%)")
    panel.set_ylabel(f"{_AXIS}, mean ± sd")
    style.legend_above(figure)
    return Drawn(figure, table)


def draw_architectures(material: Material) -> Drawn:
    """Accuracy of a rule's settings across networks, mean ± sd ([K] figure S5).

    Args:
        material: runs of several networks.

    Returns:
        The figure, and mean and sd of each group and network.

    Raises:
        NotDrawn: no settings were trained on two networks.
    """
    flags = ("model", *MODEL_FLAGS)
    networks = _networks(material.runs, flags)
    found = _swept(
        material.runs, lambda run: networks[run.folder], flags, lambda points: len(points) > 1
    )
    if not found:
        raise NotDrawn(
            "Expected runs of the same settings on several networks. Received: none that are. "
            "Train with several --model=NAME, and every other flag that differs given"
        )
    names = sorted({x for _, points in found for x in points}, key=_natural)
    figure, (panel,) = style.panels(1, 2.2 + 0.7 * len(names), 3.2)
    table: list[Row] = []
    for index, (group, points) in enumerate(found):
        shift = 0.5 * ((index + 0.5) / len(found) - 0.5)
        look = {**style.series(index), "linestyle": "none", "label": style.in_legend(group.label)}
        panel.errorbar(
            [names.index(x) + shift for x in points],
            [one.mean for one in points.values()],
            yerr=[one.spread for one in points.values()],
            **look,
        )
        table += [{"group": group.label, "network": x, **one.row()} for x, one in points.items()]
    style.named_ticks(panel, names)
    panel.set_ylabel(f"{_AXIS}, mean ± sd")
    style.legend_above(figure)
    return Drawn(figure, table)


def _networks(runs: Sequence[Run], flags: Sequence[str]) -> dict[pathlib.Path, str]:
    """Each run's network in words, with its options where its group has the like with others."""
    names = {}
    for group in grouped(runs, without=flags):
        alike: dict[str, list[Run]] = {}
        for run in group.runs:
            alike.setdefault(network(run), []).append(run)
        for name, its in alike.items():
            apart = [flag for flag in flags if len({run.flags.get(flag) for run in its}) > 1]
            for run in its:
                options = [f"{flag}={run.flags[flag]}" for flag in apart if flag in run.flags]
                names[run.folder] = ", ".join([name, *options])
    return names


_Points = dict[Any, Summary]


def _by_place(runs: Sequence[Run]) -> list[tuple[Group, _Points]]:
    """The groups that sweep the noise, those with noise in different places apart."""
    by_place: dict[str, list[Run]] = {}
    for run in runs:
        by_place.setdefault(noisy_places(run), []).append(run)
    clean = by_place.pop("", [])
    found = []
    for place, noisy in by_place.items():
        for group, points in _swept([*noisy, *clean], noise_variance, _NOISE_FLAGS):
            label = f"{group.label}, {place}" if len(by_place) > 1 else group.label
            found.append((dataclasses.replace(group, label=label), points))
    return found


def _by_setting(
    runs: Sequence[Run], setting: Callable[[Run], Any], flags: Sequence[str]
) -> list[tuple[Group, _Points]]:
    """For each group of runs that differ in one setting, the summary at each of its values."""
    found = []
    for group in grouped(runs, without=flags):
        by_value: dict[Any, dict[str, float]] = {}
        for run in group.runs:  # a seed counts once, however its setting is spelled
            by_value.setdefault(setting(run), {}).setdefault(run.seed, top1(run))
        found.append((group, {x: summarise(by_value[x].values()) for x in sorted(by_value)}))
    return found


def _swept(
    runs: Sequence[Run],
    setting: Callable[[Run], Any],
    flags: Sequence[str],
    is_sweep: Callable[[_Points], bool] = any,
) -> list[tuple[Group, _Points]]:
    """The groups that sweep the setting; by default those where it is ever other than 0."""
    found = _by_setting(runs, setting, flags)
    swept = [run for group, points in found if is_sweep(points) for run in group.runs]
    return _by_setting(swept, setting, flags)  # once more, as labels look at the other groups


def _in_full(group: Group, runs: Sequence[Run]) -> str:
    """A group's label, with its data set where the runs of the figure have several."""
    own = data_set(group.runs[0].given)
    several = len({data_set(run.given) for run in runs}) > 1
    return f"{group.label}, {own}" if several and own not in group.label else group.label


def _lines(
    panel: Axes,
    found: Sequence[tuple[Group, _Points]],
    column: str,
    error: str,
    runs: Sequence[Run],
) -> list[Row]:
    table: list[Row] = []
    for index, (group, points) in enumerate(found):
        label = _in_full(group, runs)
        panel.errorbar(
            list(points),
            [one.mean for one in points.values()],
            yerr=[one.error if error == "sem" else one.spread for one in points.values()],
            label=style.in_legend(label),
            **style.series(index),
        )
        table += [{"group": label, column: x, **one.row()} for x, one in points.items()]
    return table


def _across(panel: Axes, fixed: Sequence[Run], column: str, runs: Sequence[Run]) -> list[Row]:
    """A line across, with a band of ± 1 sd, for each group that the setting does not reach."""
    table: list[Row] = []
    for index, group in enumerate(grouped(fixed)):
        one = summarise(map(top1, group.runs))
        dots = (0, (1, 1 + index))
        label = _in_full(group, runs)
        shown = style.in_legend(label)
        panel.axhline(one.mean, color="#000000", linestyle=dots, label=shown)
        low, high = one.mean - one.spread, one.mean + one.spread
        panel.axhspan(low, high, color=style.GREY, alpha=0.2, linewidth=0)
        table.append({"group": label, column: "", **one.row()})
    return table
