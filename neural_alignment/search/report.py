"""What a search found: numbers, and the plots of [K] Fig. S2 and of the settings."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from neural_alignment.search import objectives
from neural_alignment.search.objectives import LABELS
from neural_alignment.search.plan import Plan
from neural_alignment.search.space import FlagValue, Parameter
from neural_alignment.search.store import Record, Store, write_text
from neural_alignment.search.table import best_record, describe
from neural_alignment.search.trial import command_line

_INK, _GREY, _ON, _OFF = "#222222", "#b0b0b0", "#0072b2", "#d55e00"
_COLUMNS = 3


@dataclass(frozen=True, kw_only=True)
class Importance:
    """The scores with a boolean choice on, and with it off.

    Args:
        name: The choice.
        on: Mean, standard error of the mean (NaN for fewer than two) and number with it on.
        off: The same with it off.
    """

    name: str
    on: tuple[float, float, int]
    off: tuple[float, float, int]

    @property
    def difference(self) -> float:
        """Mean score on minus mean score off; NaN if one of them has no trial."""
        return self.on[0] - self.off[0]


@dataclass(frozen=True, kw_only=True)
class OptionScores:
    """The scores with each option of a choice.

    Args:
        name: The choice.
        options: Option to mean, standard error of the mean (NaN for fewer than two) and number of
            trials.
    """

    name: str
    options: Mapping[FlagValue, tuple[float, float, int]]

    @property
    def trials(self) -> int:
        """Trials with a score that have the choice."""
        return sum(number for _, _, number in self.options.values())

    @property
    def range(self) -> float:
        """Highest mean less lowest; 0 where fewer than two options have a trial."""
        means = [mean for mean, _, number in self.options.values() if number]
        return max(means) - min(means) if means else 0.0


def best_so_far(records: Sequence[Record]) -> list[tuple[int, float]]:
    """(trial, highest score of the trials up to it), from the first trial with a score on."""
    curve, best = [], -math.inf
    for record in sorted(records, key=lambda record: record.trial):
        if record.state == "done":
            best = max(best, record.score)
        if best > -math.inf:
            curve.append((record.trial, best))
    return curve


def option_scores(plan: Plan, records: Sequence[Record]) -> list[OptionScores]:
    """The scores with each option of each choice, booleans among them.

    Args:
        plan: The search's plan.
        records: Its records; failed ones have no score and do not count.

    Returns:
        The choices, those first whose options' mean scores differ most.
    """
    found = []
    for parameter in plan.space.walk():
        if not parameter.options:
            continue
        scores: dict[FlagValue, list[float]] = {one.value: [] for one in parameter.options}
        for record in records:
            if record.state == "done" and parameter.name in record.settings:
                scores[record.settings[parameter.name]].append(record.score)
        by_option = {option: _mean_sem(values) for option, values in scores.items()}
        found.append(OptionScores(name=parameter.name, options=by_option))
    return sorted(found, key=lambda one: one.range, reverse=True)


def importances(plan: Plan, records: Sequence[Record]) -> list[Importance]:
    """What each boolean choice is worth, the most helpful first ([K] Fig. S2).

    Mean and s.e.m. (standard deviation with n - 1, over √n) of the score over the done trials that
    have the choice on, and over those that have it off. Choices that one side lacks come last.

    Args:
        plan: The search's plan.
        records: Its records; failed ones have no score and do not count.
    """
    booleans = {p.name for p in plan.space.walk() if p.distribution == "boolean"}
    found = [
        Importance(name=one.name, on=one.options[True], off=one.options[False])
        for one in option_scores(plan, records)
        if one.name in booleans
    ]
    return sorted(
        found,
        key=lambda item: -math.inf if math.isnan(item.difference) else item.difference,
        reverse=True,
    )


def flagfile(plan: Plan, record: Record, searchdir: Path) -> str:
    """The settings of a trial as a flagfile for the whole schedule."""
    flags = {**plan.final_flags(record.settings), "workdir": str(searchdir / "best")}
    lines = [
        f"# Trial {record.trial} of a search of {plan.space.name}: score {record.score}"
        f" ({LABELS[plan.objective]})"
        f" after {plan.max_epochs:g} of {plan.space.schedule_epochs:g} epochs of the schedule.",
        "# Train the whole schedule with: neural-alignment train --flagfile=best.cfg",
        *command_line(flags),
    ]
    return "\n".join(lines) + "\n"


def write_best(plan: Plan, store: Store) -> Path | None:
    """Writes best.cfg; None, and no file, if no trial has a score."""
    best = best_record(store.records)
    if best is None:
        return None
    path = store.directory / "best.cfg"
    write_text(path, flagfile(plan, best, store.directory))
    return path


def show(plan: Plan, store: Store, console: Console) -> None:
    """Prints the results: counts, failures, the best settings, the importance of the choices."""
    records = store.records
    done = [record for record in records if record.state == "done"]
    unrecorded = len(store.unrecorded())
    if store.damage:
        console.print(f"{store.damage} Start the search again to recover its trial.", style="red")
    console.print(
        f"{plan.space.name} ({plan.algorithm}, seed {plan.seed}, score: "
        f"{LABELS[plan.objective]}): {len(records)} trials ended, "
        f"{len(done)} with a score, {unrecorded} under way or interrupted.",
        soft_wrap=True,
    )
    kinds = [record.failure for record in records if record.failure]
    for kind in sorted(set(kinds)):
        first = next(record for record in records if record.failure == kind)
        console.print(
            f"  failed, {kind}: {kinds.count(kind)} (trial {first.trial}: {first.reason})",
            markup=False,
        )
    best = best_record(records)
    if best is None:
        console.print("No trial has a score.")
        return
    made_of = objectives.parts(best.measured)
    console.print(f"best score {best.score:.6g}{made_of}, trial {best.trial}: ", end="")
    console.print(describe(plan.space, best.settings), markup=False)
    table = Table(title="best so far")
    for column in ("trial", "score", "settings"):
        table.add_column(column, overflow="fold")
    seen = -math.inf
    by_number = {record.trial: record for record in records}
    for trial, score in best_so_far(records):
        if score > seen:
            seen = score
            settings = describe(plan.space, by_number[trial].settings)
            table.add_row(str(trial), f"{score:.4f}", settings)
    console.print(table)
    choices = importances(plan, records)
    if choices:
        console.print(_importance_table(choices))


def plot(plan: Plan, store: Store) -> list[Path]:
    """Draws the results into DIRECTORY/report.

    Returns:
        The files: best_so_far.png, settings.png, and importance.png if there are boolean choices.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    if best_record(store.records) is None:
        return []
    label = LABELS[plan.objective]
    directory = store.directory / "report"
    directory.mkdir(exist_ok=True)
    figures = {"best_so_far": Figure(figsize=(6, 4), layout="constrained")}
    _draw_best(figures["best_so_far"], plan, store.records)
    continuous = [parameter for parameter in plan.space.walk() if parameter.continuous]
    if continuous:
        rows = math.ceil(len(continuous) / _COLUMNS)
        size = (3.2 * min(_COLUMNS, len(continuous)), 2.8 * rows)
        figures["settings"] = Figure(figsize=size, layout="constrained")
        _draw_settings(figures["settings"], continuous, store.records, label)
    choices = importances(plan, store.records)
    if choices:
        size = (6.5, 1.6 + 0.35 * len(choices))
        figures["importance"] = Figure(figsize=size, layout="constrained")
        _draw_importance(figures["importance"], choices, label)
    paths = []
    for name, figure in figures.items():
        paths.append(directory / f"{name}.png")
        figure.savefig(paths[-1], dpi=150)
    return paths


def _draw_best(figure, plan: Plan, records: Sequence[Record]) -> None:
    axes = figure.subplots()
    done = [record for record in records if record.state == "done"]
    failed = [record for record in records if record.state == "failed"]
    axes.plot(
        [record.trial for record in done],
        [record.score for record in done],
        "o",
        color=_GREY,
        markersize=4,
        label="trial",
    )
    trials, scores = zip(*best_so_far(records), strict=True)
    axes.step(trials, scores, where="post", color=_ON, label="best so far")
    if failed:
        floor = min(record.score for record in done)
        axes.plot(
            [record.trial for record in failed],
            [floor] * len(failed),
            "x",
            color=_OFF,
            markersize=5,
            label="failed (no score)",
        )
    axes.set_ylabel(LABELS[plan.objective])
    axes.set_xlabel(f"trial of {plan.space.name} ({plan.algorithm}, seed {plan.seed})")
    axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    _plain(axes)


def _draw_settings(
    figure, parameters: Sequence[Parameter], records: Sequence[Record], label: str
) -> None:
    columns = min(_COLUMNS, len(parameters))
    rows = math.ceil(len(parameters) / columns)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for position, axes in enumerate(grid.flat):
        if position >= len(parameters):
            axes.set_visible(False)
            continue
        parameter = parameters[position]
        points = [
            (record.settings[parameter.name], record.score, record.trial)
            for record in records
            if record.state == "done" and parameter.name in record.settings
        ]
        if points:
            values, scores, trials = zip(*points, strict=True)
            drawn = axes.scatter(values, scores, c=trials, cmap="viridis", s=16, clip_on=False)
            if position == 0:
                figure.colorbar(drawn, ax=grid, label="trial", shrink=0.8)
        if parameter.distribution == "loguniform":
            axes.set_xscale("log")
        axes.set_xlim(parameter.low, parameter.high)
        axes.set_xlabel(parameter.name)
        if position % columns == 0:
            axes.set_ylabel(label)
        _plain(axes)


def _draw_importance(figure, choices: Sequence[Importance], label: str) -> None:
    axes = figure.subplots()
    places = range(len(choices))
    for side, colour, shift in (("off", _OFF, 0.14), ("on", _ON, -0.14)):
        values = [getattr(choice, side) for choice in choices]
        axes.errorbar(
            [mean for mean, _, _ in values],
            [place + shift for place in places],
            xerr=[0.0 if math.isnan(sem) else sem for _, sem, _ in values],
            fmt="o",
            color=colour,
            capsize=3,
            markersize=5,
            label=side,
        )
    axes.set_yticks(list(places), [choice.name for choice in choices])
    axes.set_ylim(len(choices) - 0.5, -0.5)
    axes.set_xlabel(f"{label}, mean ± s.e.m.")
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    axes.grid(axis="y", color="#eeeeee")
    axes.set_axisbelow(True)
    _plain(axes)


def _plain(axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK, labelsize=8)


def _importance_table(choices: Sequence[Importance]) -> Table:
    table = Table(title="importance of the boolean choices (score, mean ± s.e.m.)")
    for column in ("choice", "on", "trials", "off", "trials", "on − off"):
        table.add_column(column, justify="left" if column == "choice" else "right", overflow="fold")
    for choice in choices:
        table.add_row(
            choice.name,
            _mean_text(choice.on),
            str(choice.on[2]),
            _mean_text(choice.off),
            str(choice.off[2]),
            "" if math.isnan(choice.difference) else f"{choice.difference:+.4f}",
        )
    return table


def _mean_text(value: tuple[float, float, int]) -> str:
    mean, sem, number = value
    if not number:
        return "–"
    return f"{mean:.4f}" if math.isnan(sem) else f"{mean:.4f} ± {sem:.4f}"


def _mean_sem(scores: Sequence[float]) -> tuple[float, float, int]:
    number = len(scores)
    if not number:
        return math.nan, math.nan, 0
    mean = math.fsum(scores) / number
    if number == 1:
        return mean, math.nan, 1
    variance = math.fsum((score - mean) ** 2 for score in scores) / (number - 1)
    return mean, math.sqrt(variance / number), number
