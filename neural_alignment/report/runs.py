"""What the page says of a run beyond its tables: settings apart from defaults, times, outcome."""

from __future__ import annotations

import csv
import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence

from neural_alignment.config.flags import default_of, flag_defaults, rule_defaults
from neural_alignment.config.groups import rule_options
from neural_alignment.figures.reader import Run
from neural_alignment.runs import record

_SECONDS = ("train_seconds", "other_seconds")
# Where a run is and comes from: no settings of what it computes.
_NOT_SHOWN = frozenset(("workdir", "preset", "defaults"))


@dataclasses.dataclass(frozen=True)
class Times:
    """How long a run took, as its times.csv has it.

    Args:
        steps: of which the time is known.
        train_seconds: of those.
        other_seconds: of validation and measures.
    """

    steps: int
    train_seconds: float
    other_seconds: float


@dataclasses.dataclass(frozen=True)
class Shown:
    """A run as the page shows it.

    Args:
        name: what it is called there.
        run: as its files have it.
        settings: flag to text, those that are not at their defaults.
        filled: of these, what no command line said: it holds by data set, model and rule.
        times: None where the run has no times.csv.
    """

    name: str
    run: Run
    settings: Mapping[str, str]
    filled: frozenset[str]
    times: Times | None

    @property
    def last(self) -> Mapping[str, float]:
        """Its last epoch's row."""
        return self.run.metrics[-1]

    @property
    def best(self) -> Mapping[str, float]:
        """The row of its highest validation accuracy."""
        finite = [row for row in self.run.metrics if math.isfinite(row["val_top1"])]
        return max(finite or self.run.metrics, key=lambda row: row["val_top1"])

    @property
    def images_per_second(self) -> float | None:
        """Training examples a second, validation apart; None where no time is known."""
        if self.times is None or self.times.train_seconds <= 0.0:
            return None
        batch = self.run.number("train_batch_size", default_of("train_batch_size"))
        return self.times.steps * batch / self.times.train_seconds

    def takes(self, name: str) -> bool:
        """Whether a flag says anything to this run: an option of another rule does not."""
        is_option = name in rule_options()
        return not is_option or name in rule_defaults(self.run.rule)

    def flag(self, name: str) -> str:
        """What a flag is in this run, its default where it is not apart from it."""
        return self.run.flags.get(name) or flag_defaults().get(name) or "-"


def shown(runs: Sequence[Run]) -> list[Shown]:
    """Runs with their names, settings and times.

    Args:
        runs: as `figures.reader.read` gives them.

    Returns:
        The same, in order.
    """
    return [
        Shown(name, run, _settings(run), _filled(run), _times(run.folder / "times.csv"))
        for name, run in zip(_names([run.folder for run in runs]), runs, strict=True)
    ]


def defaults(runs: Sequence[Shown]) -> dict[str, str]:
    """The defaults of the settings that are apart from them in some run.

    Args:
        runs: of the page.

    Returns:
        Flag to text, in the order of `--help`; "-" where it has none, or not the same in all.
    """
    wanted = {name for each in runs for name in each.settings}
    of_flags = flag_defaults()
    found = {}
    for name in [*(n for n in of_flags if n in wanted), *sorted(wanted - of_flags.keys())]:
        options = {rule_defaults(each.run.rule).get(name) for each in runs} - {None}
        text = of_flags.get(name)
        of_rule = options.pop() if len(options) == 1 else None
        found[name] = (of_rule if text is None else text) or "-"
    return found


def _settings(run: Run) -> dict[str, str]:
    of_rule = rule_defaults(run.rule)
    return {
        name: text
        for name, text in run.flags.items()
        if name not in _NOT_SHOWN and of_rule.get(name) != text
    }


def _filled(run: Run) -> frozenset[str]:
    lines = record.read(run.folder / "flags.cfg")
    return frozenset(record.filled([line for line in lines if line.startswith("--")]))


def _names(folders: Sequence[pathlib.Path]) -> list[str]:
    """The last parts of the paths, as many as tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def _times(path: pathlib.Path) -> Times | None:
    if not path.exists():
        return None
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        seconds = [math.fsum(float(row[name]) for row in rows) for name in _SECONDS]
        known = all(map(math.isfinite, seconds))
        return Times(sum(int(row["steps"]) for row in rows), *seconds) if known else None
    except (OSError, ValueError, TypeError, KeyError, csv.Error):
        return None  # it is for information alone
