"""One trial: a training job in a process of its own, and what became of it.

The same code runs a trial from the local runner and on a Spark worker.
"""

import csv
import math
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from neural_alignment.config.flags import flag_text
from neural_alignment.exits import INTERRUPTED, USAGE, RefusedError
from neural_alignment.messages import last_words
from neural_alignment.search import objectives, processes
from neural_alignment.search.devices import Device
from neural_alignment.search.processes import TRAINER, Launcher
from neural_alignment.search.space import FlagValue
from neural_alignment.search.store import (
    DIVERGED,
    RESERVE_BYTES,
    Record,
    Store,
    StoreError,
    read_json,
    write_json,
)

_LOG_TAIL_BYTES = 4000
# How often a trial that something else told to stop (a preempted machine) is started again.
_MOST_RESTARTS = 20


@dataclass(frozen=True, kw_only=True)
class Note:
    """What trials/NNNN.json says of a trial.

    Args:
        trial: Its number.
        settings: Parameter name to value.
        flags: Training flag to value, without what only this attempt needs.
        objective: What its score is of.
        process: Host, pid and identity of the process that runs it.
        outcome: Its record, once it has ended.
    """

    trial: int
    settings: Mapping[str, FlagValue]
    flags: Mapping[str, FlagValue]
    objective: str = "top1"
    process: Mapping[str, str | int] | None = None
    outcome: Mapping[str, object] | None = None

    def save(self, store: Store) -> None:
        """Writes the note, whole or not at all."""
        write_json(store.note_file(self.trial), asdict(self))

    @staticmethod
    def load(store: Store, trial: int) -> "Note":
        """Reads the note of a trial."""
        data = read_json(store.note_file(trial))
        try:
            return Note(**data)
        except TypeError as error:
            raise StoreError(f"{store.note_file(trial)} is not a trial's note: {error}.") from error

    def record(self) -> Record | None:
        """Its record, if it has ended."""
        return None if self.outcome is None else Record(**self.outcome)


class RunningTrial:
    """A trial under way.

    Args:
        store: The search's files.
        note: What is to be run; saved, with the process, before this returns.
        script: The training script; None: `TRAINER`.
        launcher: How to start it.
        device: Where.
        time_limit: Seconds until it is killed; 0 for none.
    """

    def __init__(
        self,
        store: Store,
        note: Note,
        script: Path | None,
        launcher: Launcher,
        device: Device,
        time_limit: float = 0.0,
    ) -> None:
        self._store = store
        self._time_limit = time_limit
        self._script = script
        self._launcher = launcher
        self._restarts = 0
        self.device = device
        self.note = note
        self._start()
        self.started = time.monotonic()

    def _start(self) -> None:
        """Starts the process, and notes which one it is."""
        workdir = self._store.run_directory(self.trial)
        flags = {**self.note.flags, **self.device.flags, "workdir": str(workdir)}
        job = ["-m", TRAINER] if self._script is None else [str(self._script)]
        argv = [*job, *command_line(flags)]
        log = self._store.log_file(self.trial)
        self.process = self._launcher.start(argv, self.device.environment, log)
        owner = {
            "host": socket.gethostname(),
            "pid": self.process.pid,
            "identity": processes.identity(self.process.pid) or "",
        }
        self.note = replace(self.note, process=owner)
        try:
            self.note.save(self._store)
        except StoreError:
            processes.end_group(self.process.pid)
            raise

    @property
    def trial(self) -> int:
        """Its number."""
        return self.note.trial

    def seconds(self) -> float:
        """How long it has run."""
        return time.monotonic() - self.started

    def epochs(self) -> tuple[float, float]:
        """The epochs it has behind it, and has to do."""
        rows = read_metrics(self._store.run_directory(self.trial))
        done = float(rows[-1].get("epoch") or len(rows)) if rows else 0.0
        return done, epochs_to_do(self.note)

    def poll(self, timeout: float = 0.0) -> Record | None:
        """Its record if it has ended, or is now ended by its time limit.

        A job that says it was interrupted and saved its state is started again, to go on.

        Args:
            timeout: Seconds to wait for its end.

        Raises:
            RefusedError: the script ended with a usage error.
            StoreError: the outcome could not be written.
        """
        code = self.process.wait(timeout) if timeout else self.process.poll()
        timed_out = code is None and 0 < self._time_limit <= self.seconds()
        if code is None and not timed_out:
            return None
        if code == INTERRUPTED and self._restarts < _MOST_RESTARTS:
            self._restarts += 1
            self._start()
            return None
        if code == USAGE:
            said = last_words(_tail(self._store.log_file(self.trial)))
            raise RefusedError(
                f"The training script refuses trial {self.trial} (exit code {USAGE}): {said} "
                "The trial is not recorded; put this right and start the same search again."
            )
        if timed_out:
            processes.end_group(self.process.pid)
            while self.process.wait(1.0) is None:
                continue
        seconds = self.seconds()
        reason = f"time limit: still running after {self._time_limit:g} s" if timed_out else None
        record = judge(self._store, self.note, code, seconds, reason)
        ended = replace(self.note, process=None, outcome=asdict(record))
        self._store.keep(lambda: ended.save(self._store))
        return record


def epochs_to_do(note: Note) -> float:
    """The epochs after which a trial is done."""
    return float(note.flags["max_epochs"])


def command_line(flags: Mapping[str, FlagValue]) -> list[str]:
    """Flags as arguments: --name=value; booleans as true and false, numbers to full precision."""
    return [f"--{name}={flag_text(value)}" for name, value in flags.items()]


def judge(
    store: Store, note: Note, code: int | None, seconds: float, reason: str | None = None
) -> Record:
    """The record of a trial whose process has ended.

    Args:
        store: The search's files.
        note: The trial.
        code: Its exit code; minus the signal's number if one ended it; None if we ended it.
        seconds: How long it ran.
        reason: Why it failed, where that is known already.
    """
    score, measured = None, {}
    if reason is None:
        directory = store.run_directory(note.trial)
        rows = read_metrics(directory)
        log = _tail(store.log_file(note.trial))
        free = shutil.disk_usage(store.directory).free
        reason = _failure(code, rows, log, epochs_to_do(note), free)
        if reason is None:
            measured["val_top1"] = float(rows[-1]["val_top1"])
        if reason is None and note.objective != "top1":
            angle = objectives.mean_angle(directory)
            if angle is None:
                reason = "no metrics: layers.csv has no angle of W and B, which the score needs"
            else:
                measured["mean_angle"] = angle
        if reason is None:
            score = objectives.score(note.objective, measured)
    return Record(
        trial=note.trial,
        state="done" if reason is None else "failed",
        score=score,
        settings=note.settings,
        flags=note.flags,
        seconds=round(seconds, 3),
        reason=reason,
        measured=measured,
    )


def read_metrics(run_directory: Path) -> list[dict[str, str]]:
    """The whole rows of a run's metrics.csv; none if there is no such file."""
    try:
        text = (run_directory / "metrics.csv").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    # The last line may be half written.
    return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))


def end_orphan(note: Note) -> bool:
    """Ends the process of a trial whose search died, if it still runs on this machine.

    Returns:
        Whether there was one.
    """
    owner = note.process
    if not owner or owner["host"] != socket.gethostname():
        return False
    pid = int(owner["pid"])
    if not owner["identity"] or processes.identity(pid) != owner["identity"]:
        return False
    processes.end_group(pid)
    while processes.identity(pid) == owner["identity"]:
        time.sleep(0.02)
    return True


def _failure(
    code: int | None, rows: Sequence[Mapping[str, str]], log: str, epochs: float, free: int
) -> str | None:
    """Why a trial counts as failed; None for a score that can be used."""
    for row in rows:
        for name in ("loss", "alignment_loss", "val_loss", "val_top1"):
            if row.get(name) and not _finite(row[name]):
                return f"{DIVERGED}: {name} is {row[name]} in epoch {row.get('epoch', '?')}"
    last_line = last_words(log)
    if code != 0:
        if "No space left on device" in log:
            return f"disk full: {_line_with(log, 'No space left on device')}"
        # The log may have had no room for that line either.
        if free < RESERVE_BYTES:
            return f"disk full: {free} bytes are free"
        if code is not None and code < 0:
            return f"crashed: {_signal_name(-code)}"
        if code == INTERRUPTED:
            return f"interrupted: {last_line}"
        if _says_not_finite(log):
            return f"{DIVERGED}: {last_line}"
        return f"exit code {code}: {last_line}"
    if not rows or not rows[-1].get("val_top1"):
        return "no metrics: metrics.csv has no val_top1"
    if len(rows) < math.ceil(epochs):
        return f"no metrics: metrics.csv has {len(rows)} of {epochs:g} epochs"
    return None


def _finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _says_not_finite(log: str) -> bool:
    last_lines = " ".join(log.strip().splitlines()[-5:]).lower()
    return re.search(r"\b(nan|inf|infinite|not finite|non-finite)\b", last_lines) is not None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _line_with(log: str, words: str) -> str:
    return next(line.strip() for line in log.splitlines() if words in line)


def _tail(path: Path) -> str:
    """The end of a log file."""
    if not path.exists():
        return ""
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_TAIL_BYTES))
        return file.read().decode(errors="replace")
