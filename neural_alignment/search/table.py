"""The live table of a search."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table

from neural_alignment.messages import duration
from neural_alignment.search import objectives
from neural_alignment.search.space import FlagValue, Space
from neural_alignment.search.store import Record, Store
from neural_alignment.search.trial import RunningTrial

_ROWS = 20
_SECONDS_BETWEEN = 0.5


class SearchTable:
    """Shows the trials of a search: on a terminal as a table, else as a line a trial.

    Args:
        space: The space, for the order of the settings.
        trials: How many trials there will be.
        parallel: How many run at a time.
        console: Where to.
    """

    def __init__(self, space: Space, trials: int, parallel: int, console: Console) -> None:
        self._space = space
        self._trials = trials
        self._parallel = parallel
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._shown: int | None = None
        self._last = float("-inf")

    def __enter__(self) -> "SearchTable":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def update(self, store: Store, running: Sequence[RunningTrial]) -> None:
        """Shows the current state; call it as often as you like."""
        if self._shown is None:
            self._shown = len(store.records)
        if self._live:
            now = self._console.get_time()
            if now - self._last >= _SECONDS_BETWEEN or len(store.records) != self._shown:
                self._last = now
                self._live.update(self.render(store.records, running), refresh=True)
        else:
            for record in store.records[self._shown :]:
                left = duration(self._time_left(store.records, running))
                self._console.print(
                    f"trial {record.trial}: {record.state} "
                    f"{_score(record)} in {record.seconds:.1f} s, "
                    f"{len(store.records)} of {self._trials}, {left} left | "
                    f"{describe(self._space, record.settings)}",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
        self._shown = len(store.records)

    def render(self, records: Sequence[Record], running: Sequence[RunningTrial]) -> Table:
        """The table: the best trial, the last ones, and those under way."""
        left = duration(self._time_left(records, running))
        table = Table(
            title=f"{self._space.name}: {len(records)} of {self._trials} trials, {left} left"
        )
        for column in ("trial", "score", "settings", "state", "time", "left"):
            table.add_column(column, overflow="fold" if column == "settings" else "ellipsis")
        best = best_record(records)
        room = max(1, _ROWS - len(running))
        recent = sorted(records, key=lambda record: record.trial)[-room:]
        shown = recent if best is None or best in recent else [best, *recent[1:]]
        for record in shown:
            table.add_row(
                str(record.trial),
                _score(record) if record.state == "done" else "",
                describe(self._space, record.settings),
                "best" if record is best else record.reason or record.state,
                duration(record.seconds),
                "",
                style="bold green" if record is best else None,
            )
        for trial in running:
            done, total = trial.epochs()
            table.add_row(
                str(trial.trial),
                "",
                describe(self._space, trial.note.settings),
                f"epoch {done:g} of {total:g} on {trial.device.name}",
                duration(trial.seconds()),
                duration(_trial_left(trial)),
            )
        return table

    def _time_left(
        self, records: Sequence[Record], running: Sequence[RunningTrial]
    ) -> float | None:
        """Seconds until all trials have ended, from the mean of those that have; None: unknown."""
        if not records:
            return None
        mean = sum(record.seconds for record in records) / len(records)
        not_begun = max(0, self._trials - len(records) - len(running))
        under_way = sum(max(0.0, mean - trial.seconds()) for trial in running)
        return (not_begun * mean + under_way) / self._parallel


def best_record(records: Sequence[Record]) -> Record | None:
    """The record with the highest score; the first of equals."""
    done = [record for record in records if record.state == "done"]
    return max(done, key=lambda record: (record.score, -record.trial), default=None)


def describe(space: Space, settings: Mapping[str, FlagValue]) -> str:
    """Settings in one line: numbers and choices by name, then the booleans that are on."""
    numbers, on = [], []
    for parameter in space.active(settings):
        value = settings[parameter.name]
        if parameter.distribution == "boolean":
            on += [parameter.name] if value else []
        elif isinstance(value, float):
            numbers.append(f"{parameter.name}={value:.4g}")
        else:
            numbers.append(f"{parameter.name}={value}")
    return " ".join(numbers + on)


def _trial_left(trial: RunningTrial) -> float | None:
    done, total = trial.epochs()
    return trial.seconds() * max(0.0, total - done) / done if done else None


def _score(record: Record) -> str:
    if record.state == "done":
        return f"{record.score:.4f}{objectives.parts(record.measured)}"
    return f"({record.reason})"
