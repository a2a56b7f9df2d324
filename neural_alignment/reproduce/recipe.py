"""A recipe: the runs that a figure or a table needs, and what was published of them."""

from __future__ import annotations

import dataclasses
import pathlib
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from neural_alignment import alignments
from neural_alignment.messages import did_you_mean

RECIPES = pathlib.Path(__file__).parent / "recipes"
FlagValue = str | int | float | bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    """A line of the figure, or a column of the table: runs that differ in their seed alone.

    Args:
        label: what it is called.
        flags: of its runs, beside those of the recipe.
        swept: whether it has a run for each value of the sweep; else it is one point.
        at: flags of the runs at one value of the sweep, by the value as it is written.
    """

    label: str
    flags: Mapping[str, FlagValue]
    swept: bool = True
    at: Mapping[str, Mapping[str, FlagValue]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """A flag that takes several values.

    Args:
        flag: its name.
        values: in order.
        title: what it is, in words.
    """

    flag: str
    values: tuple[FlagValue, ...]
    title: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """One published quantity.

    Args:
        title: in words, with its unit.
        measure: a column of metrics.csv (of fractions, shown in per cent) or layers.csv.
        epoch: after which it was measured, counted from the first one that trains by the loss;
            None is the last.
        layer: whose it is, of a column of layers.csv; None: every layer's.
        values: by series. Of a column of metrics.csv the mean, or mean and standard deviation; of
            one of layers.csv a number for each layer, from the input on. With a sweep: by series a
            number for each value.
    """

    title: str
    measure: str
    epoch: float | None
    values: Mapping[str, tuple[float, ...]]
    layer: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a figure or a table is made of.

    Args:
        name: its file's name.
        title: a line.
        source: paper and figure or table.
        seeds: of each series where `--seeds` says no other.
        data: the data set whose files it needs; None where the package has them.
        cost: of a run, in words.
        flags: of every run.
        series: in order.
        sweep: or None.
        published: what there is to compare with.
        figures: that are drawn of the runs, by name.
        note: what is other here than it was published, in words.
    """

    name: str
    title: str
    source: str
    seeds: int
    data: str | None
    cost: str
    flags: Mapping[str, FlagValue]
    series: tuple[Series, ...]
    sweep: Sweep | None
    published: tuple[Published, ...]
    figures: tuple[str, ...]
    note: str

    @property
    def count(self) -> int:
        """How many runs each seed takes."""
        values = 1 if self.sweep is None else len(self.sweep.values)
        return sum(values if series.swept else 1 for series in self.series)


def names() -> tuple[str, ...]:
    """The names that `get` knows, sorted."""
    return tuple(sorted(path.stem for path in RECIPES.glob("*.toml")))


def get(name: str) -> Recipe:
    """A recipe by name.

    Args:
        name: one of `names()`.

    Returns:
        The recipe.

    Raises:
        ValueError: there is no such recipe.
    """
    if name not in names():
        raise ValueError(
            f"Expected one of {', '.join(names())}. Received: {name!r}"
            f"{did_you_mean(name, names())}. "
            "--list says what each is."
        )
    return _load(RECIPES / f"{name}.toml")


def _load(path: pathlib.Path) -> Recipe:
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    sweep = data.pop("sweep", None)
    return Recipe(
        name=path.stem,
        seeds=data.pop("seeds"),
        data=data.pop("data", None),
        flags=data.pop("flags", {}),
        series=_every_rule() if data.pop("every_rule", False) else _series(data.pop("series")),
        sweep=sweep and Sweep(**{**sweep, "values": tuple(sweep["values"])}),
        published=tuple(map(_published, data.pop("published", []))),
        figures=tuple(data.pop("figures", ())),
        note=" ".join(data.pop("note", "").split()),
        **data,
    )


def _series(given: Sequence[Mapping[str, Any]]) -> tuple[Series, ...]:
    return tuple(Series(**series) for series in given)


def _every_rule() -> tuple[Series, ...]:
    """A line for backpropagation and for each rule, a registered one too."""
    rules = ("backprop", *alignments.names())
    return tuple(Series(label=rule, flags={"alignment": rule}) for rule in rules)


def _published(data: Mapping[str, Any]) -> Published:
    values = {label: _several(value) for label, value in data["values"].items()}
    return Published(**{"epoch": None, **data, "values": values})


def _several(value: float | Sequence[float]) -> tuple[float, ...]:
    return tuple(map(float, value)) if isinstance(value, list) else (float(value),)
