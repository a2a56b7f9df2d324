"""Runs a search on this machine: several trials at a time, each in a process on its own device."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from neural_alignment.exits import Interrupted
from neural_alignment.search import plan as plans
from neural_alignment.search import processes
from neural_alignment.search.devices import Device
from neural_alignment.search.plan import Plan
from neural_alignment.search.processes import Launcher
from neural_alignment.search.proposer import Proposer
from neural_alignment.search.store import Store
from neural_alignment.search.trial import RunningTrial
from neural_alignment.training.signals import handled

_POLL_SECONDS = 0.05

Display = Callable[[Store, Sequence[RunningTrial]], None]


class Runner:
    """Runs trials until a search has as many as it should.

    Args:
        store: The search's files, locked.
        plan: What to search.
        script: The training script; None: the package's own.
        launcher: How a trial's process is started; closed after the run.
        devices: One for each trial that runs at a time.
        time_limit: Seconds a trial may take; 0 for no limit.
        display: Called with the store and the trials under way, whenever either may have changed.
    """

    def __init__(
        self,
        store: Store,
        plan: Plan,
        script: Path | None,
        launcher: Launcher,
        devices: Sequence[Device],
        time_limit: float,
        display: Display,
    ) -> None:
        self._store = store
        self._plan = plan
        self._script = script
        self._launcher = launcher
        self._free = list(devices)
        self._time_limit = time_limit
        self._display = display
        self._running: list[RunningTrial] = []
        self._signal: int | None = None

    def run(self, trials: int) -> None:
        """Runs until there are `trials` trials, those of earlier starts included.

        Raises:
            Interrupted: SIGINT, SIGTERM or SIGHUP came.
            StoreError: the store could not be read or written.
        """
        with handled(lambda number: self._on_signal):
            try:
                self._loop(trials)
            finally:
                processes.stop([trial.process for trial in self._running])
                self._running.clear()
                self._launcher.close()
        if self._signal is not None:
            raise Interrupted(self._signal)

    def _loop(self, trials: int) -> None:
        waiting = plans.resume(self._store, self._plan)
        proposer = Proposer(
            self._plan.space, self._plan.algorithm, self._plan.seed, self._plan.startup_trials
        )
        begun = {record.trial for record in self._store.records} | {n.trial for n in waiting}
        new = [number for number in range(trials) if number not in begun]
        while self._signal is None and (waiting or new or self._running):
            while self._free and (waiting or new) and self._signal is None:
                if waiting:
                    note = waiting.pop(0)
                else:
                    number = new.pop(0)
                    settings = proposer.propose(number, self._store.records)
                    note = self._plan.note(number, settings)
                note.save(self._store)
                device = self._free.pop(0)
                self._running.append(
                    RunningTrial(
                        self._store, note, self._script, self._launcher, device, self._time_limit
                    )
                )
            self._display(self._store, self._running)
            self._collect()

    def _collect(self) -> None:
        """Waits a moment; records and frees what has ended."""
        for trial in list(self._running):
            record = trial.poll(_POLL_SECONDS / len(self._running))
            if record is not None:
                self._running.remove(trial)
                self._free.append(trial.device)
                self._store.append(record)
                self._display(self._store, self._running)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._signal = number
