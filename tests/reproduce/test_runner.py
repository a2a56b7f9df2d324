"""A runner that is told to stop ends its jobs, and says so."""

import os
import pathlib
import signal
import threading

import pytest

from neural_alignment.exits import Interrupted
from neural_alignment.lock import claim
from neural_alignment.reproduce.jobs import Job
from neural_alignment.reproduce.runner import Runner, log_of
from neural_alignment.search.devices import Device
from neural_alignment.search.processes import ScriptLauncher

SLEEP = "import signal, time; print('begun', flush=True); time.sleep(60)"


class Sleeping(ScriptLauncher):
    """Starts what sleeps in a job's place."""

    def __init__(self):
        self.pids = []

    def start(self, argv, environment, log):
        process = super().start(["-c", SLEEP], environment, log)
        self.pids.append(process.pid)
        return process


def job(folder: pathlib.Path, seed: int) -> Job:
    return Job(
        series="BP", value=None, seed=seed, flags={}, workdir=folder / f"BP/seed-{seed}"
    )  # fmt: skip


def test_a_signal_ends_the_jobs_under_way_and_starts_no_other(tmp_path):
    launcher, said = Sleeping(), []
    before = signal.getsignal(signal.SIGTERM)
    timer = threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    jobs = [job(tmp_path, seed) for seed in range(3)]
    with pytest.raises(Interrupted):
        Runner(launcher, [Device(), Device()], said.append).run(jobs)
    assert len(launcher.pids) == 2
    for pid in launcher.pids:
        with pytest.raises(ProcessLookupError):
            os.killpg(pid, 0)
    assert said == ["BP seed-0: begun", "BP seed-1: begun"]
    assert log_of(jobs[0]).is_file()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_run_that_another_command_has_just_begun_is_left_to_it(tmp_path):
    launcher, said = Sleeping(), []
    begun = job(tmp_path, 0)  # and its process has no lock yet
    log = log_of(begun)
    log.parent.mkdir(parents=True)
    log.write_text("of the other command")
    held = claim(log)
    missed = Runner(launcher, [Device()], said.append).run([begun])
    assert missed == [(begun, "is under way in another process")]
    assert not launcher.pids and log.read_text() == "of the other command"
    os.close(held)
    again = claim(log)  # what the runner took it has given back
    assert again is not None
    os.close(again)


def test_a_run_that_another_command_has_ended_meanwhile_is_not_run_again(tmp_path, monkeypatch):
    launcher, said = Sleeping(), []
    ended = job(tmp_path, 0)
    ended.workdir.mkdir(parents=True)
    (ended.workdir / "metrics.csv").touch()
    log_of(ended).write_text("of the other command")
    monkeypatch.setattr(Job, "is_done", lambda self: True)
    assert Runner(launcher, [Device()], said.append).run([ended]) == []
    assert said == ["BP seed-0: done by another process; 1 of 1"]
    assert not launcher.pids and log_of(ended).read_text() == "of the other command"
