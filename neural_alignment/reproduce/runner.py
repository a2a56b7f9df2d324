"""Runs a recipe's jobs on this machine, several at a time; what is there is not run again."""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Callable, Sequence
from types import FrameType

from neural_alignment.exits import DONE, INTERRUPTED, USAGE, Interrupted, RefusedError
from neural_alignment.lock import claim, in_use
from neural_alignment.messages import duration, last_words
from neural_alignment.reproduce.jobs import Job
from neural_alignment.search import processes
from neural_alignment.search.devices import Device
from neural_alignment.search.processes import TRAINER, Launcher, Process
from neural_alignment.training.signals import handled

_POLL_SECONDS = 0.2

Missed = tuple[Job, str]  # and what became of it, as "failed"


class Runner:
    """Runs jobs as processes.

    Args:
        launcher: how a process is started; closed after the run.
        devices: one for each job that runs at a time.
        say: what a line for the user goes to.
    """

    def __init__(
        self,
        launcher: Launcher,
        devices: Sequence[Device],
        say: Callable[[str], None],
    ) -> None:
        self._launcher = launcher
        self._free = list(devices)
        self._say = say
        self._running: list[tuple[Job, Process, Device, float]] = []
        self._claims: dict[pathlib.Path, int] = {}  # of logs, so that no two runs share one
        self._signal: int | None = None
        self._slots = len(self._free)
        self._planned, self._ended, self._took = 0, 0, list[float]()

    def run(self, jobs: Sequence[Job]) -> list[Missed]:
        """Runs jobs in order until all have ended.

        Args:
            jobs: those that are not done.

        Returns:
            The jobs that failed, or that another process has under way, and which of the two.

        Raises:
            Interrupted: a signal came; the jobs under way were told to save their state.
            RefusedError: a job's flags or data are refused; those under way are stopped likewise.
        """
        waiting, failed = list(jobs), list[Missed]()
        self._planned, self._ended, self._took = len(waiting), 0, []
        with handled(lambda number: self._on_signal):
            try:
                while self._signal is None and (waiting or self._running):
                    while self._free and waiting:
                        failed += self._start(waiting.pop(0))
                    time.sleep(_POLL_SECONDS)
                    for ended in [each for each in self._running if each[1].poll() is not None]:
                        failed += self._end(*ended)
            finally:
                processes.stop([process for _, process, _, _ in self._running])
                self._running.clear()
                self._launcher.close()
                for log in list(self._claims):
                    os.close(self._claims.pop(log))
        if self._signal is not None:
            raise Interrupted(self._signal)
        return failed

    def _start(self, job: Job) -> list[Missed]:
        log = log_of(job)
        log.parent.mkdir(parents=True, exist_ok=True)
        claimed = None if in_use(job.workdir / "lock") else claim(log)
        if claimed is None:  # of the same command beside this one, say
            self._ended += 1
            self._say(f"{job.name}: under way in another process, left to it{self._progress()}")
            return [(job, "is under way in another process")]
        if (job.workdir / "metrics.csv").exists() and job.is_done():  # by that command, meanwhile
            os.close(claimed)
            self._ended += 1
            self._say(f"{job.name}: done by another process{self._progress()}")
            return []
        self._claims[log] = claimed
        device = self._free.pop(0)
        argv = ["-m", TRAINER, *job.command_line()]
        process = self._launcher.start(argv, device.environment, log)
        self._say(f"{job.name}: begun")
        self._running.append((job, process, device, time.monotonic()))
        return []

    def _end(self, job: Job, process: Process, device: Device, began: float) -> list[Missed]:
        self._running.remove((job, process, device, began))
        self._free.append(device)
        os.close(self._claims.pop(log_of(job)))
        self._ended += 1
        self._took.append(time.monotonic() - began)
        if process.poll() == USAGE:
            raise RefusedError(
                f"{job.name} is refused: {_said(log_of(job))}. The same command goes on."
            )
        if process.poll() != DONE:
            state = "interrupted" if process.poll() == INTERRUPTED else "failed"
            self._say(f"{job.name}: {state}, see {log_of(job)}{self._progress()}")
            return [(job, "failed")]
        self._say(f"{job.name}: done after {duration(self._took[-1])}{self._progress()}")
        return []

    def _progress(self) -> str:
        """How many jobs have ended and how long the rest will take, from the mean of those run."""
        rest = self._planned - self._ended
        said = f"; {self._ended} of {self._planned}"
        if not rest or not self._took:
            return said
        left = sum(self._took) / len(self._took) * rest / self._slots
        return f"{said}, {duration(left)} left"

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._signal = number


def log_of(job: Job) -> pathlib.Path:
    """Where the output of a job goes.

    Args:
        job: whose.

    Returns:
        A file beside its run directory.
    """
    return job.workdir.with_name(f"{job.workdir.name}.log")


def _said(log: pathlib.Path) -> str:
    """Why a job ended, as its log has it."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    return last_words(text).removeprefix("error: ").rstrip(".")
