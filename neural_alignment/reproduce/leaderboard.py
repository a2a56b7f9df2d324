"""Every rule on every task, sorted by accuracy, from run directories."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import pathlib
import statistics
from collections.abc import Iterable, Sequence

from neural_alignment import alignments, config
from neural_alignment.config.flags import default_of
from neural_alignment.figures.labels import data_set
from neural_alignment.figures.reader import Group, Run, grouped, read
from neural_alignment.reproduce.results import in_markdown
from neural_alignment.runs import record
from neural_alignment.runs.table import has_ended

_PRESET = "# --preset="


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A rule on a task.

    Args:
        task: data set and network.
        rule: and the options that tell it from others of its name.
        settings: the preset, or "defaults" where flags and classes had the last word.
        epochs: that were trained.
        seeds: how many runs.
        top1: mean accuracy after the last epoch, in per cent.
        top1_sd: over seeds; 0 for one.
        weight_angle: of W and B, mean over layers and seeds, in degrees; NaN: there is no B.
        error_angle: of the error that arrives to backpropagation's, likewise; NaN: not measured.
        operations: of the layer's size, that R adds to the three of a step of backpropagation;
            None: of a rule that is not known here.
    """

    task: str
    rule: str
    settings: str
    epochs: float
    seeds: int
    top1: float
    top1_sd: float
    weight_angle: float
    error_angle: float
    operations: int | None


_FIELDS = tuple(field.name for field in dataclasses.fields(Row))


def rows(folders: Iterable[str | pathlib.Path]) -> tuple[list[Row], Sequence[str]]:
    """The rows of runs, task by task, the most accurate rule first.

    Args:
        folders: run directories, or folders that hold some.

    Returns:
        Rows; and what was left out, and why.

    Raises:
        RunReadError: a folder that holds no run.
    """
    found = read(folders)
    ended = [run for run in found.runs if _is_whole(run) and _is_number(run)]
    tasks: dict[str, list[Run]] = {}
    for run in ended:
        tasks.setdefault(_task(run), []).append(run)
    made = [
        _row(task, group)
        for task, runs in sorted(tasks.items())
        for group in grouped(runs)
    ]  # fmt: skip
    others = {str(run.folder): run for run in found.runs if run not in ended}
    notes = [note for note in found.notes if not note.startswith(tuple(f"{o} " for o in others))]
    for folder, run in others.items():
        why = "its last top-1 is no number" if _is_whole(run) else "it has not ended"
        if math.isnan(run.epochs_meant):
            why = "its flags.cfg does not say how many train_epochs it was to have"
        notes.append(f"{folder} is left out: {why}")
    notes += [f"{folder} is left out: it is a search" for folder in found.searches]
    return sorted(made, key=lambda row: (row.task, -row.top1)), notes


def _is_whole(run: Run) -> bool:
    return has_ended(run.metrics[-1], run.epochs_meant)


def _is_number(run: Run) -> bool:
    return math.isfinite(run.metrics[-1]["val_top1"])


def _task(run: Run) -> str:
    model = run.flags.get("model", default_of("model"))
    given = (run.flags[name] for name in ("layers_list", "filters_list") if name in run.flags)
    layers = next((text or "without hidden layers" for text in given), "")
    pixels = f", {run.flags['image_size']} pixels" if "image_size" in run.flags else ""
    return f"{data_set(run.given)}, {f'{model} {layers}'.strip().replace(',', '-')}{pixels}"


def _operations(run: Run) -> int | None:
    """What the rule says of its R; None of a rule, or of options, that this version has not."""
    if run.rule not in alignments.names():
        return 0 if run.rule == "backprop" else None
    options = ("alignment", *alignments.rule(run.rule).option_names())
    given = (f"--{name}={text}" for name, text in run.flags.items() if name in options)
    try:
        return config.read(config.parsed(["train", *given])).rule.make().extra_operations
    except (TypeError, ValueError):
        return None


def _row(task: str, group: Group) -> Row:
    top1 = [100.0 * run.metrics[-1]["val_top1"] for run in group.runs]
    return Row(
        task=task,
        rule=group.label,
        settings=_preset(group.runs[0].folder),
        epochs=group.runs[0].metrics[-1]["epoch"],
        seeds=len(top1),
        top1=statistics.fmean(top1),
        top1_sd=statistics.stdev(top1) if len(top1) > 1 else 0.0,
        weight_angle=_angle(group, "weight_angle"),
        error_angle=_angle(group, "error_angle"),
        operations=_operations(group.runs[0]),
    )


def _preset(folder: pathlib.Path) -> str:
    lines = record.read(folder / "flags.cfg")
    named = [line.removeprefix(_PRESET) for line in lines if line.startswith(_PRESET)]
    return named[0] if named else "defaults"


def _angle(group: Group, measure: str) -> float:
    ends = [run.at_end(layer) for run in group.runs for layer in run.layers]
    last = [row.get(measure, math.nan) for row in ends]
    numbers = [value for value in last if math.isfinite(value)]
    return statistics.fmean(numbers) if numbers else math.nan


def to_csv(table: Iterable[Row]) -> str:
    """The rows as CSV.

    Args:
        table: rows.

    Returns:
        The text.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_FIELDS)
    for row in table:
        values = (getattr(row, name) for name in _FIELDS)
        writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in values])
    return text.getvalue()


def from_csv(text: str) -> list[Row]:
    """The rows of `to_csv`'s text.

    Args:
        text: as `to_csv` made it.

    Returns:
        Rows.
    """
    kinds = {"task": str, "rule": str, "settings": str, "seeds": int, "operations": _whole}
    return [
        Row(**{name: kinds.get(name, float)(cell) for name, cell in line.items()})
        for line in csv.DictReader(io.StringIO(text))
    ]


def _whole(text: str) -> int | None:
    return int(text) if text else None


HEAD = (
    *("rule", "top-1 %", "angle of W, B", "angle of the errors", "added operations"),
    *("epochs", "seeds", "settings"),
)


def cells(row: Row) -> tuple[str, ...]:
    """A row as people read it, under `HEAD`."""
    spread = f" ± {row.top1_sd:.2f}" if row.seeds > 1 else ""
    angles = ("–" if math.isnan(a) else f"{a:.0f}°" for a in (row.weight_angle, row.error_angle))
    operations = "–" if row.operations is None else str(row.operations)
    return (
        *(row.rule, f"{row.top1:.2f}{spread}", *angles, operations),
        *(f"{row.epochs:g}", str(row.seeds), row.settings),
    )


def to_markdown(table: Iterable[Row]) -> str:
    """The rows as Markdown, a table for each task.

    Args:
        table: rows, those of a task together.

    Returns:
        The text.
    """
    by_task: dict[str, list[Row]] = {}
    for row in table:
        by_task.setdefault(row.task, []).append(row)
    return in_markdown(HEAD, ((task, map(cells, of_it)) for task, of_it in by_task.items()))
