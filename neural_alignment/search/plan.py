"""What determines a search's trials: kept in search.json, and compared when it goes on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neural_alignment.lock import FileLock, LockedError
from neural_alignment.search import trial
from neural_alignment.search.space import FlagValue, Space, schedule_epochs
from neural_alignment.search.space_file import from_data
from neural_alignment.search.store import Record, Store, StoreError, read_json, write_json
from neural_alignment.search.trial import Note

# Flags that say where data is, not what a trial computes: they may change between two starts.
_FREE_FLAGS = ("data_dir", "download")
_NAME = "search.json"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What determines the trials of a search.

    Args:
        space: The space, with the flags that the user fixed in addition.
        algorithm: "tpe" or "random".
        seed: The seed of the proposals, and of every trial whose space fixes no other.
        startup_trials: Trials drawn at random before TPE begins.
        max_epochs: Epochs of the schedule after which a trial stops.
        objective: What is maximised.
    """

    space: Space
    algorithm: str
    seed: int
    startup_trials: int
    max_epochs: float
    objective: str = "top1"

    def trial_flags(self, settings: Mapping[str, FlagValue]) -> dict[str, FlagValue]:
        """The training flags of a trial: the whole schedule, stopped at `max_epochs` of it."""
        flags = self.final_flags(settings)
        flags["max_epochs"] = schedule_epochs(flags, self.max_epochs)
        return flags

    def final_flags(self, settings: Mapping[str, FlagValue]) -> dict[str, FlagValue]:
        """The training flags of the whole schedule with these settings."""
        flags = {"seed": self.seed, **self.space.training_flags(settings)}
        flags["train_epochs"] = schedule_epochs(flags, self.space.schedule_epochs)
        return flags

    def note(self, number: int, settings: Mapping[str, FlagValue]) -> Note:
        """A trial to be run."""
        return Note(
            trial=number,
            settings=settings,
            flags=self.trial_flags(settings),
            objective=self.objective,
        )

    def to_data(self) -> dict[str, Any]:
        """The plan as plain data."""
        return {
            "algorithm": self.algorithm,
            "seed": self.seed,
            "startup_trials": self.startup_trials,
            "max_epochs": self.max_epochs,
            "objective": self.objective,
            "space": self.space.to_data(),
        }


def exists(store: Store) -> bool:
    """Whether the directory holds a search."""
    return (store.directory / _NAME).is_file()


def load(store: Store) -> Plan:
    """The plan of an existing search.

    Raises:
        StoreError: the directory holds none.
    """
    path = store.directory / _NAME
    if not path.exists():
        raise StoreError(f"{store.directory} holds no search: {_NAME} is not there.")
    data = read_json(path)
    try:
        return Plan(**{**data, "space": from_data(data["space"], source=str(path))})
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path} is not a search's plan: {error}") from error


def check(store: Store, plan: Plan) -> None:
    """Compares the plan with that of the directory, if there is one.

    Raises:
        StoreError: they differ; the message shows in what.
    """
    path = store.directory / _NAME
    if not path.exists():
        return
    before, now = _comparable(load(store).to_data()), _comparable(plan.to_data())
    differences = list(_differences(before, now, ""))
    if differences:
        raise StoreError(
            f"{store.directory} holds another search: {'; '.join(differences)}. Use the same flags "
            f"to go on with it, or another --searchdir."
        )


def resume(store: Store, plan: Plan) -> list[Note]:
    """Takes up a directory, new or not: settles what a dead search left.

    Every trial that was started and has no record is settled: its process is ended if it still
    runs; if its outcome is known, it gets its record.

    Args:
        store: The search's files; locked by the caller, and read by this.
        plan: The plan, already checked.

    Returns:
        The notes of the trials to go on with, in order.

    Raises:
        StoreError: a file cannot be read or written, or another machine still runs a trial.
    """
    write_json(store.directory / _NAME, plan.to_data())
    store.read()
    unfinished = []
    for number in store.unrecorded():
        note = Note.load(store, number)
        record = note.record()
        if record is None:
            trial.end_orphan(note)
            _check_unused(store, note)
            record = _complete(store, note)
        if record is None:
            unfinished.append(plan.note(number, note.settings))
        else:
            store.append(record)
    return unfinished


def _check_unused(store: Store, note: Note) -> None:
    """Raises a StoreError if a training job, on whatever machine, has the trial's run directory."""
    lock = store.run_directory(note.trial) / "lock"
    if not note.process or not lock.exists():
        return
    try:
        with FileLock(lock, "workdir"):
            return
    except LockedError as error:
        raise StoreError(
            f"Trial {note.trial} still runs on {note.process['host']}, with pid "
            f"{note.process['pid']}. Wait for it or end it there, and start the same search again."
        ) from error


def _complete(store: Store, note: Note) -> Record | None:
    """The record of an unsettled trial whose last epoch is there; None if it must go on."""
    rows = store.run_directory(note.trial) / "metrics.csv"
    if not rows.exists():
        return None
    seconds = rows.stat().st_mtime - store.note_file(note.trial).stat().st_mtime
    record = trial.judge(store, note, 0, max(seconds, 0.0))
    return record if record.state == "done" or record.diverged else None


def _comparable(data: dict[str, Any]) -> dict[str, Any]:
    space = dict(data["space"])
    space.pop("description")
    space["flags"] = {k: v for k, v in space["flags"].items() if k not in _FREE_FLAGS}
    space["parameters"] = {entry["name"]: entry for entry in space["parameters"]}
    return {**data, "space": space}


def _differences(before: Any, now: Any, where: str) -> Sequence[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        found: list[str] = []
        for key in sorted(set(before) | set(now)):
            place = f"{where}.{key}" if where else str(key)
            found += _differences(before.get(key), now.get(key), place)
        return found
    return [] if before == now else [f"{where} was {before!r} and is {now!r}"]
