"""The same search on a Spark cluster, through hyperopt's SparkTrials.

hyperopt's own loop runs here, in the driver, and asks our proposer for each next point; a Spark
task runs the trial as the local runner would. All the driver and its workers share is the search
directory.
"""

import functools
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Lock, Thread
from types import FrameType
from typing import Any

import hyperopt
import numpy as np
from hyperopt import base

from neural_alignment.exits import Interrupted
from neural_alignment.search import plan as plans
from neural_alignment.search import trial
from neural_alignment.search.devices import Device, thread_share
from neural_alignment.search.plan import Plan
from neural_alignment.search.processes import ScriptLauncher
from neural_alignment.search.proposer import Proposer
from neural_alignment.search.runner import Display
from neural_alignment.search.store import Record, Store
from neural_alignment.search.trial import Note, RunningTrial
from neural_alignment.training.signals import STOP_SIGNALS

_POLL_SECONDS = 0.2
_MOST_TRIALS = 2**31


class SparkRunner:
    """Runs trials on a Spark cluster until a search has as many as it should.

    Args:
        store: The search's files, locked; on a file system that every worker has at the same path.
        plan: What to search.
        script: The training script, at the same path on every worker; None: the package's own.
        master: The Spark master, such as "local[2]" or "spark://host:7077".
        parallel: Trials at a time.
        time_limit: Seconds a trial may take; 0 for no limit.
        display: Called with the store, whenever it may have changed.
    """

    def __init__(
        self,
        store: Store,
        plan: Plan,
        script: Path | None,
        master: str,
        parallel: int,
        time_limit: float,
        display: Display,
    ) -> None:
        self._store = store
        self._plan = plan
        self._master = master
        self._parallel = parallel
        self._display = display
        threads = thread_share(parallel) if master.startswith("local") else {}
        self._objective = functools.partial(
            run_on_worker,
            directory=str(store.directory.resolve()),
            script=None if script is None else str(script.resolve()),
            device=Device(name="spark", environment=threads),
            time_limit=time_limit,
        )
        self._lock = Lock()
        self._trials: hyperopt.SparkTrials | None = None

    def run(self, trials: int) -> None:
        """Runs until there are `trials` trials, those of earlier starts included.

        Raises:
            Interrupted: SIGINT, SIGTERM or SIGHUP came.
            RuntimeError: Spark did not start, or a task failed.
            StoreError: the store could not be read or written.
        """
        previous = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        try:
            self._run(trials)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _run(self, trials: int) -> None:
        _stop_on_signals(lambda: None)
        waiting = [note.trial for note in self._prepare()]
        begun = {record.trial for record in self._store.records} | set(waiting)
        numbers = waiting + [number for number in range(trials) if number not in begun]
        if not numbers:
            return
        session = self._session()
        # Spark has put a handler of its own there; and hyperopt waits for tasks that go on.
        _stop_on_signals(session.sparkContext.cancelAllJobs)
        try:
            self._trials = hyperopt.SparkTrials(parallelism=self._parallel, spark_session=session)
            proposer = Proposer(
                self._plan.space, self._plan.algorithm, self._plan.seed, self._plan.startup_trials
            )
            hyperopt.fmin(
                self._objective,
                # A Spark task needs its trial's number alone; the settings are in the trial's note.
                hyperopt.hp.uniform("trial", 0, _MOST_TRIALS),
                algo=functools.partial(self._suggest, proposer, iter(numbers), set(waiting)),
                max_evals=len(numbers),
                trials=self._trials,
                rstate=np.random.default_rng(self._plan.seed),
                early_stop_fn=self._on_progress,
                return_argmin=False,
                show_progressbar=False,
                verbose=False,
            )
            self._collect()
            self._raise_errors()
        finally:
            session.stop()

    def _prepare(self) -> list[Note]:
        waiting = plans.resume(self._store, self._plan)
        for note in waiting:
            note.save(self._store)
        return waiting

    def _session(self) -> Any:
        from pyspark.sql import SparkSession

        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        builder = SparkSession.builder.master(self._master).appName("neural_alignment search")
        try:
            return builder.config("spark.ui.enabled", "false").getOrCreate()
        except Interrupted:
            raise
        except Exception as error:
            java = getattr(error, "java_exception", None)
            reason = str(error if java is None else java.toString()).partition("\n")[0]
            raise RuntimeError(
                f"Expected a Spark master that can be used. Received: --spark={self._master}, "
                f"{reason} See that the master is right, and that Java is installed."
            ) from error

    def _suggest(
        self,
        proposer: Proposer,
        numbers: Any,
        waiting: set[int],
        new_ids: Sequence[int],
        domain: base.Domain,
        trials: base.Trials,
        seed: int,
    ) -> list[dict[str, Any]]:
        """Hyperopt's algorithm: the next trial's number, its note written for the worker."""
        del seed  # The proposer has its own, for each trial.
        self._collect()
        if self._errors():
            # They are likely to befall every trial; no proposals end hyperopt's loop.
            return []
        documents = []
        for new_id in new_ids:
            number = next(numbers)
            if number not in waiting:
                settings = proposer.propose(number, self._store.records)
                self._plan.note(number, settings).save(self._store)
            misc = {
                "tid": new_id,
                "cmd": domain.cmd,
                "workdir": domain.workdir,
                "idxs": {"trial": [new_id]},
                "vals": {"trial": [float(number)]},
            }
            documents += trials.new_trial_docs([new_id], [None], [domain.new_result()], [misc])
        return documents

    def _on_progress(self, trials: base.Trials, *_: Any) -> tuple[bool, list[Any]]:
        del trials
        self._collect()
        return False, []

    def _collect(self) -> None:
        """Records the outcomes that the workers have sent back."""
        with self._lock:
            recorded = {record.trial for record in self._store.records}
            for document in self._trials.trials if self._trials else ():
                outcome = document["result"].get("outcome")
                if outcome and outcome["trial"] not in recorded:
                    self._store.append(Record(**outcome))
            self._display(self._store, [])

    def _raise_errors(self) -> None:
        """Raises what went wrong outside the trials themselves, such as a worker's full disk."""
        for document in self._errors():
            kind, message = document["misc"]["error"]
            raise RuntimeError(f"A Spark task failed with {kind}: {message}")

    def _errors(self) -> list[dict[str, Any]]:
        documents = self._trials._dynamic_trials
        return [document for document in documents if document["state"] == base.JOB_STATE_ERROR]


def _stop_on_signals(cancel: Callable[[], None]) -> None:
    def stop(number: int, _: FrameType | None) -> None:
        # The main thread may be in a call of its connection to Spark; another has its own.
        Thread(target=cancel, daemon=True).start()
        raise Interrupted(number)

    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


def run_on_worker(
    number: float, *, directory: str, script: str | None, device: Device, time_limit: float
) -> dict[str, Any]:
    """Runs one trial, from its note, in the process that calls.

    Spark may run a task again whose worker it lost: a trial that has ended is not run again, and
    one that still runs on this machine is ended first.

    Returns:
        hyperopt's result, with the record as a dict under "outcome".
    """
    store = Store(Path(directory))
    note = Note.load(store, int(number))
    record = note.record()
    if record is None:
        trial.end_orphan(note)
        path = None if script is None else Path(script)
        running = RunningTrial(store, note, path, ScriptLauncher(), device, time_limit)
        while record is None:
            record = running.poll(_POLL_SECONDS)
    result = {"status": hyperopt.STATUS_FAIL, "outcome": asdict(record)}
    if record.state == "done":
        result.update(status=hyperopt.STATUS_OK, loss=-record.score)
    return result
