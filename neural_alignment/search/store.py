"""A search directory: text files that survive a kill at any moment.

search.json          what is searched: space, seed, algorithm, epochs
trials.jsonl         one line a trial that has ended, appended in one write and synced
trials/0007/         trial 7's run directory
trials/0007.json     its settings and flags, written before it starts; its outcome when it ends
trials/0007.log      what it printed
reserve              room for the records of the trials that a full disk ends
"""

import errno
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from neural_alignment import atomic
from neural_alignment.search.space import FlagValue

DIVERGED = "diverged"
# More than the notes and records of several trials take.
RESERVE_BYTES = 1 << 16


class StoreError(RuntimeError):
    """A search directory that cannot be read or written; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """A trial that has ended.

    Args:
        trial: Its number, from 0.
        state: "done" or "failed".
        score: of the search's objective after the last epoch; None if it failed.
        settings: Parameter name to value.
        flags: Training flag to value.
        seconds: Wall clock.
        reason: Why it failed, a kind and a colon first; None if it is done.
        measured: What the score was made of: val_top1, and mean_angle where it counts.
    """

    trial: int
    state: str
    score: float | None
    settings: Mapping[str, FlagValue]
    flags: Mapping[str, FlagValue]
    seconds: float
    reason: str | None = None
    measured: Mapping[str, float] = field(default_factory=dict)

    @property
    def failure(self) -> str | None:
        """The kind of failure: the reason up to its colon."""
        return None if self.reason is None else self.reason.partition(":")[0]

    @property
    def diverged(self) -> bool:
        """Whether it failed because its numbers were not finite."""
        return self.failure == DIVERGED


class Store:
    """The files of one search.

    Args:
        directory: The search directory.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self.trials_file = self.directory / "trials.jsonl"
        self.trials_directory = self.directory / "trials"
        self._reserve = self.directory / "reserve"
        self.records: list[Record] = []
        self.damage: str | None = None
        self._good_bytes = 0

    def create(self) -> None:
        """Makes the directories, and the reserve if there is room for it."""
        self.trials_directory.mkdir(parents=True, exist_ok=True)
        if not self._reserve.exists():
            try:
                # Not a sparse file: its blocks are what is kept.
                self._reserve.write_bytes(os.urandom(RESERVE_BYTES))
            except OSError:
                self._reserve.unlink(missing_ok=True)

    def keep(self, write: Callable[[], None]) -> None:
        """Writes what must not be lost; on a full disk, in the place of the reserve.

        Args:
            write: What writes it, whole or not at all.

        Raises:
            StoreError: it could not be written.
        """
        try:
            write()
        except StoreError as error:
            if not _is_full(error.__cause__) or not self._reserve.exists():
                raise
            self._reserve.unlink(missing_ok=True)
            write()

    def read(self) -> None:
        """Reads all records.

        A last line cut short by a kill or a full disk is left out, noted in `damage`, and
        overwritten by the next append; trials/NNNN.json still has what it said.

        Raises:
            StoreError: a line before the last one is damaged, or a trial is there twice.
        """
        self.records, self.damage, self._good_bytes = [], None, 0
        if not self.trials_file.exists():
            return
        content = self.trials_file.read_bytes()
        lines = content.splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            try:
                if not line.endswith(b"\n"):
                    raise ValueError("it has no line end")
                record = _record(json.loads(line))
            except ValueError as error:
                if number < len(lines):
                    raise StoreError(
                        f"{self.trials_file}, line {number}: Expected a trial as JSON. Received a "
                        f"damaged line ({error}). Take the line out by hand; its trial is then "
                        f"recovered from {self.trials_directory}."
                    ) from error
                self.damage = f"{self.trials_file}, line {number} is damaged ({error})."
                return
            if any(other.trial == record.trial for other in self.records):
                raise StoreError(f"{self.trials_file} has trial {record.trial} twice.")
            self.records.append(record)
            self._good_bytes += len(line)

    def append(self, record: Record) -> None:
        """Adds a record: one write, synced, all of it or nothing.

        Raises:
            StoreError: it could not be written.
        """
        self.keep(lambda: self._append(record))

    def _append(self, record: Record) -> None:
        line = json.dumps(asdict(record), allow_nan=False).encode() + b"\n"
        try:
            file = os.open(self.trials_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                _cut(file, self._good_bytes)
                if os.write(file, line) < len(line):
                    _cut(file, self._good_bytes)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            raise StoreError(
                f"{self.trials_file} cannot be written: {error.strerror}. Nothing that it holds is "
                f"lost; make room and start the same search again."
            ) from error
        self._good_bytes += len(line)
        self.records.append(record)

    def run_directory(self, trial: int) -> Path:
        """Where the trial's training job works."""
        return self.trials_directory / f"{trial:04d}"

    def log_file(self, trial: int) -> Path:
        """Where its output goes."""
        return self.trials_directory / f"{trial:04d}.log"

    def note_file(self, trial: int) -> Path:
        """Its settings, flags and, in the end, its outcome."""
        return self.trials_directory / f"{trial:04d}.json"

    def unrecorded(self) -> dict[int, dict[str, Any]]:
        """The notes of trials that were started and have no record, by trial number."""
        recorded = {record.trial for record in self.records}
        notes = {}
        for path in sorted(self.trials_directory.glob("*.json")):
            if path.stem.isdigit() and int(path.stem) not in recorded:
                notes[int(path.stem)] = read_json(path)
        return notes


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}.") from error


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Writes a JSON file so that it is there whole or not at all.

    Raises:
        StoreError: it cannot be written.
    """
    write_text(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text file so that it is there whole or not at all.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        atomic.write_text(path, text)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error.strerror}. Make room, or choose another directory, "
            f"and start the same search again."
        ) from error


def _is_full(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _cut(file: int, length: int) -> None:
    """Drops what follows the last whole line (a device file has no length to cut)."""
    if os.fstat(file).st_size > length:
        os.ftruncate(file, length)


def _record(data: Any) -> Record:
    if not isinstance(data, dict):
        raise ValueError("it is not a table")
    try:
        record = Record(**data)
    except TypeError as error:
        raise ValueError(str(error)) from error
    if type(record.trial) is not int or record.state not in ("done", "failed"):
        raise ValueError("its trial or state is wrong")
    score = record.score
    if record.state == "done" and not (isinstance(score, int | float) and math.isfinite(score)):
        raise ValueError("its score is not a number")
    return record
