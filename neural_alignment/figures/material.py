"""What a figure is drawn from, and what it gives."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from neural_alignment.figures.labels import BACKPROP
from neural_alignment.figures.reader import Group, Run, grouped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
_MOST_NAMED = 3


class NotDrawn(ValueError):
    """A figure for which something is missing; the message says what, and where it comes from."""


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A figure, and the numbers in it.

    Args:
        figure: of Matplotlib.
        table: rows with the same columns, for the CSV file.
    """

    figure: Figure
    table: Sequence[Row]


@dataclasses.dataclass(frozen=True)
class Choices:
    """What a user may choose of a figure.

    Args:
        layers: names of layers, where a figure shows a few, or scores them; () leaves it to the
            figure.
        epochs: epochs of checkpoints; () leaves it to the figure.
        assembly: file of responses of neurons.
        features: a network's features for the same images: a file, or layer to
            `[images, features]`.
        components: of the partial least squares.
    """

    layers: Sequence[str] = ()
    epochs: Sequence[float] = ()
    assembly: str | None = None
    features: str | Mapping[str, Any] | None = None
    components: int = 25


@dataclasses.dataclass
class Material:
    """What there is to draw from.

    Args:
        runs: the runs.
        searches: search directories.
        choices: of the user.
        notes: what had to be left out; figures add to it.
    """

    runs: Sequence[Run] = ()
    searches: Sequence[pathlib.Path] = ()
    choices: Choices = dataclasses.field(default_factory=Choices)
    notes: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self._all = grouped(self.runs)

    def index(self, group: Group) -> int:
        """A group's place among all of them, so that it looks the same in every figure."""
        first = group.runs[0].folder
        return next(i for i, one in enumerate(self._all) if first in [r.folder for r in one.runs])

    def leave_out_backprop(self) -> None:
        """Keeps the runs that have a rule, if any has: backpropagation's errors are exact."""
        self.runs = [run for run in self.runs if run.rule != BACKPROP] or self.runs

    def having(self, test: Callable[[Run], bool], what: str, remedy: str) -> list[Run]:
        """The runs that have something; the others are named in the notes.

        Args:
            test: whether a run has it.
            what: it is.
            remedy: what to do that a run has it, such as the flag that keeps it.

        Returns:
            At least one run.

        Raises:
            NotDrawn: no run has it.
        """
        found = [run for run in self.runs if test(run)]
        others = [str(run.folder) for run in self.runs if not test(run)]
        if not found:
            raise NotDrawn(f"Expected {what}. Received: {_named(others)} without. {remedy}")
        if others:
            self.notes.append(f"{_named(others)}: left out, without {what}. {remedy}")
        return found


def _named(folders: Sequence[str]) -> str:
    shown = ", ".join(folders[:_MOST_NAMED])
    more = len(folders) - _MOST_NAMED
    return f"{shown} and {more} more" if more > 0 else shown
