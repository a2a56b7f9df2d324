"""What a recipe's runs came to, beside what was published: rows, CSV and Markdown."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import pathlib
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence

from neural_alignment.config.flags import flag_text
from neural_alignment.figures import tables as tables_of_runs
from neural_alignment.reproduce.jobs import Job
from neural_alignment.reproduce.recipe import FlagValue, Published, Recipe
from neural_alignment.runs.directory import recorded
from neural_alignment.runs.record import NONE
from neural_alignment.runs.table import METRICS, TIMES, Table, steps_after

_FRACTIONS = ("val_top1", "val_top5")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One quantity of one series.

    Args:
        quantity: in words, with its unit.
        series: the line or column.
        value: of the sweep, as text; "" without.
        published: the mean, or a number for each layer; empty: not published.
        published_sd: None: not published.
        ours: as `published`; empty: there is no run.
        ours_sd: over seeds, as many numbers; NaN-free, 0 for one seed.
        seeds: how many runs.
        seconds: that a run trained and validated, on the mean; None: not known.
    """

    quantity: str
    series: str
    value: str
    published: tuple[float, ...]
    published_sd: float | None
    ours: tuple[float, ...]
    ours_sd: tuple[float, ...]
    seeds: int
    seconds: float | None


def rows(recipe: Recipe, jobs: Sequence[Job], scale: float = 1.0) -> list[Row]:
    """The rows of a recipe's table.

    Args:
        recipe: what is compared.
        jobs: that are done.
        scale: of the epochs, by which those of the published quantities move.

    Returns:
        For each published quantity a row for every series and value of the sweep that has runs.
    """
    by_place: dict[tuple[str, FlagValue | None], list[Job]] = {}
    for job in jobs:
        by_place.setdefault((job.series, job.value), []).append(job)
    return [
        row
        for quantity in recipe.published
        for row in _of_quantity(recipe, quantity, by_place, scale)
    ]


def too_short(recipe: Recipe, table: Sequence[Row], scale: float) -> list[str]:
    """The published quantities that runs of another length have not, as no epoch ends there.

    Args:
        recipe: what is compared.
        table: its rows.
        scale: of the epochs.

    Returns:
        A sentence for each.
    """
    if scale == 1.0:
        return []
    shown = {row.quantity for row in table}
    return [
        f"{each.title}: left out, as no epoch ends after {each.epoch * scale:g} epochs"
        for each in recipe.published
        if each.epoch is not None and _moved(each, scale) not in shown
    ]


def _moved(quantity: Published, scale: float) -> str:
    """A quantity's title, with the epoch of shorter or longer runs."""
    return f"{quantity.title} (here after {quantity.epoch * scale:g})"


def _of_quantity(
    recipe: Recipe,
    quantity: Published,
    by_place: Mapping[tuple[str, FlagValue | None], Sequence[Job]],
    scale: float,
) -> Iterator[Row]:
    epoch = None if quantity.epoch is None else quantity.epoch * scale
    title = quantity.title if epoch == quantity.epoch else _moved(quantity, scale)
    for (series, value), jobs in by_place.items():
        measured = [m for job in jobs if (m := _measured(job.workdir, quantity, epoch))]
        if not measured:
            continue
        mean, sd = _published(recipe, quantity, series, value)
        columns = list(zip(*measured, strict=True))
        times = [t for job in jobs if (t := _seconds(job.workdir)) is not None]
        yield Row(
            quantity=title,
            series=series,
            value="" if value is None else flag_text(value),
            published=mean,
            published_sd=sd,
            ours=tuple(map(statistics.fmean, columns)),
            ours_sd=tuple(statistics.stdev(c) if len(c) > 1 else 0.0 for c in columns),
            seeds=len(measured),
            seconds=statistics.fmean(times) if times else None,
        )


def _published(
    recipe: Recipe, quantity: Published, series: str, value: FlagValue | None
) -> tuple[tuple[float, ...], float | None]:
    """Mean (or a number a layer) and standard deviation, as far as they were published."""
    given = quantity.values.get(series, ())
    if not given:
        return (), None
    if value is not None:
        return (given[recipe.sweep.values.index(value)],), None
    if quantity.measure in METRICS:
        return given[:1], given[1] if len(given) > 1 else None
    return given, None


def _measured(
    workdir: pathlib.Path, quantity: Published, epoch: float | None
) -> tuple[float, ...] | None:
    """A column at an epoch: one number, or one for each layer; None where a row is missing."""
    measure = quantity.measure
    name, column = ("metrics.csv", None) if measure in METRICS else ("layers.csv", "layer")
    needed = ("epoch", "global_step", *([column] if column else []))
    lines, _ = tables_of_runs.read(workdir / name, needed, column)
    if not lines or measure not in lines[0] or not lines[-1]["epoch"] > 0.0:
        return None
    if epoch is not None:
        delay = recorded(workdir, "delay_epochs")
        trained = epoch if delay in (None, NONE) else epoch + float(delay)
        step = steps_after(trained, lines[-1])
    else:
        ends = lines
        if column:
            ends, _ = tables_of_runs.read(workdir / "metrics.csv", ("epoch", "global_step"))
        step = (ends or lines)[-1]["global_step"]
    factor = 100.0 if measure in _FRACTIONS else 1.0
    at = [row for row in lines if row["global_step"] == step]
    if quantity.layer is not None:
        at = [row for row in at if row["layer"] == quantity.layer]
    found = [factor * row[measure] for row in at]
    each = {row[column] for row in lines} if column and quantity.layer is None else {measure}
    # Rules without a B of W's shape have rows of NaN.
    return tuple(found) if len(found) == len(each) and all(map(math.isfinite, found)) else None


def _seconds(workdir: pathlib.Path) -> float | None:
    path = workdir / "times.csv"
    if not path.exists():
        return None
    lines = Table(path, TIMES).rows
    return sum(float(line["train_seconds"]) + float(line["other_seconds"]) for line in lines)


COLUMNS = (
    *("quantity", "series", "value", "layer", "published", "published_sd"),
    *("ours", "ours_sd", "seeds", "seconds"),
)


def to_csv(table: Iterable[Row]) -> str:
    """The rows as CSV, a line for each layer.

    Args:
        table: rows.

    Returns:
        The text.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in table:
        for i, (mean, sd) in enumerate(zip(row.ours, row.ours_sd, strict=True)):
            published = f"{row.published[i]:g}" if i < len(row.published) else ""
            spread = "" if row.published_sd is None else f"{row.published_sd:g}"
            layer = i if len(row.ours) > 1 else ""
            seconds = "" if row.seconds is None else f"{row.seconds:.0f}"
            numbers = (published, spread, f"{mean:.6g}", f"{sd:.6g}", row.seeds, seconds)
            writer.writerow((row.quantity, row.series, row.value, layer, *numbers))
    return text.getvalue()


def from_csv(text: str) -> list[Row]:
    """The rows of `to_csv`'s text.

    Args:
        text: as `to_csv` made it.

    Returns:
        Rows.
    """
    found: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    for line in csv.DictReader(io.StringIO(text)):
        found.setdefault((line["quantity"], line["series"], line["value"]), []).append(line)
    return [
        Row(
            quantity=quantity,
            series=series,
            value=value,
            published=tuple(float(line["published"]) for line in lines if line["published"]),
            published_sd=float(lines[0]["published_sd"]) if lines[0]["published_sd"] else None,
            ours=tuple(float(line["ours"]) for line in lines),
            ours_sd=tuple(float(line["ours_sd"]) for line in lines),
            seeds=int(lines[0]["seeds"]),
            seconds=float(lines[0]["seconds"]) if lines[0]["seconds"] else None,
        )
        for (quantity, series, value), lines in found.items()
    ]


HEAD = ("", "published", "ours", "difference", "seeds", "seconds a run")


def tables(table: Iterable[Row]) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    """The rows as people read them, quantity by quantity.

    Args:
        table: rows.

    Yields:
        The quantity, and a line of cells, those of `HEAD`, for each of its rows.
    """
    by_quantity: dict[str, list[Row]] = {}
    for row in table:
        by_quantity.setdefault(row.quantity, []).append(row)
    for quantity, of_it in by_quantity.items():
        yield (
            quantity,
            [
                (
                    f"{row.series} {row.value}".strip(),
                    _numbers(row.published, row.published_sd),
                    _numbers(
                        row.ours, row.ours_sd[0] if len(row.ours) == 1 and row.seeds > 1 else None
                    ),
                    _difference(row),
                    str(row.seeds),
                    "–" if row.seconds is None else f"{row.seconds:.0f}",
                )
                for row in of_it
            ],
        )


def _numbers(values: Sequence[float], sd: float | None) -> str:
    if not values:
        return "–"
    if len(values) == 1:
        return f"{values[0]:.2f}" + ("" if sd is None else f" ± {sd:.2f}")
    return ", ".join(f"{value:.1f}" for value in values)


def _difference(row: Row) -> str:
    if len(row.published) != len(row.ours):
        return "–"
    pairs = zip(row.ours, row.published, strict=True)
    places = 2 if len(row.ours) == 1 else 1
    return ", ".join(f"{ours - theirs:+.{places}f}" for ours, theirs in pairs)


def to_markdown(table: Iterable[Row]) -> str:
    """The rows as Markdown tables, one for each quantity.

    Args:
        table: rows.

    Returns:
        The text.
    """
    return in_markdown(HEAD, tables(table))


def in_markdown(head: Sequence[str], titled: Iterable[tuple[str, Iterable[Sequence[str]]]]) -> str:
    """Tables of the same columns as Markdown.

    Args:
        head: the columns' names.
        titled: each table's title and its rows of cells.

    Returns:
        The text.
    """
    parts = []
    for title, rows in titled:
        lines = [head, ("---",) * len(head), *rows]
        parts.append(f"{title}:\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines))
    return "\n".join(parts)
