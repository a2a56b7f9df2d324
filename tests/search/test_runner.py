"""The runner: trials that go wrong, devices, resume to the same trials."""

import dataclasses
import errno
import os
import signal
import socket
import subprocess
import time

import pytest

from neural_alignment.exits import Interrupted
from neural_alignment.lock import FileLock
from neural_alignment.messages import last_words
from neural_alignment.search import devices, processes
from neural_alignment.search import plan as plans
from neural_alignment.search.forkserver import ForkServer
from neural_alignment.search.processes import ScriptLauncher
from neural_alignment.search.spark import run_on_worker
from neural_alignment.search.store import Store, StoreError
from neural_alignment.search.trial import Note
from tests.search.support import FAKE, fake_space, faulty_space, make_plan, run


@pytest.fixture(params=["script", "fork"])
def launcher(request, tmp_path):
    """Both ways to start a trial; the runner closes them."""
    if request.param == "script":
        return ScriptLauncher()
    return ForkServer((), {}, tmp_path / "preload.log")


def starts(store, trial):
    """How often the trial was started."""
    return len((store.run_directory(trial) / "starts.txt").read_text().splitlines())


def test_every_way_to_fail_is_recorded_with_its_reason(tmp_path, launcher):
    faults = ("none", "segfault", "nan", "nan_exit", "disk", "error", "silent", "hang")
    plan = make_plan(faulty_space(*faults), algorithm="random", seed=1)
    store = run(tmp_path / "s", plan, 30, parallel=2, time_limit=1.0, launcher=launcher)
    found = {record.settings["fault"]: record for record in store.records}
    assert set(found) == set(faults)
    reasons = {fault: record.reason for fault, record in found.items()}
    assert reasons == {
        "none": None,
        "segfault": "crashed: SIGSEGV",
        "nan": "diverged: loss is nan in epoch 2",
        "nan_exit": "diverged: error: NaN or infinite between step 10 and 20: loss.",
        "disk": "disk full: OSError: [Errno 28] No space left on device",
        "error": "exit code 1: ValueError: Expected sense. Received none.",
        "silent": "no metrics: metrics.csv has no val_top1",
        "hang": "time limit: still running after 1 s",
    }
    assert all((record.score is None) == (record.state == "failed") for record in store.records)
    assert found["hang"].seconds >= 1.0
    assert sorted(record.trial for record in store.records) == list(range(30))


def test_a_disk_that_fills_while_a_trial_runs(tmp_path, monkeypatch):
    """The outcome is written in the place of the reserve; without one, the next start goes on."""
    plan = make_plan(fake_space(fault="error"))
    store = Store(tmp_path)
    sync = os.fsync

    def full(file):
        if store.full and (not store.reserved or (tmp_path / "reserve").exists()):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(file)

    def fill(_, running):
        store.full = store.full or bool(running)

    monkeypatch.setattr("neural_alignment.search.store.os.fsync", full)
    store.full, store.reserved = False, True
    assert [record.trial for record in run(tmp_path, plan, 1, display=fill).records] == [0]
    assert not (tmp_path / "reserve").exists()
    store.full, store.reserved = False, False
    with pytest.raises(StoreError, match="0001.json.*No space left.*Make room"):
        run(tmp_path, plan, 2, display=fill)
    assert not list((tmp_path / "trials").glob("*.part"))
    store.full = False
    assert [record.trial for record in run(tmp_path, plan, 2).records] == [0, 1]


def test_a_trial_that_fills_the_disk(tmp_path):
    """On a disk of its own, where this user may mount one; not even the log has room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    try:
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("only root may mount a disk")
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    try:
        store = run(disk / "s", make_plan(fake_space(fault="fill")), 1)
        again = Store(disk / "s")
        again.read()
        assert again.records == store.records
        assert store.records[0].failure == "disk full"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_trial_that_still_runs_elsewhere_is_let_alone(tmp_path):
    plan = make_plan(fake_space())
    store = Store(tmp_path)
    store.create()
    owner = {"host": "elsewhere", "pid": 1234, "identity": "boot 1"}
    note = plan.note(0, {"x": 0.5, "y": 1.0, "switch": True})
    dataclasses.replace(note, process=owner).save(store)
    with FileLock(store.run_directory(0) / "lock", "workdir"):
        with pytest.raises(StoreError, match="Trial 0 still runs on elsewhere, with pid 1234"):
            plans.resume(store, plan)
    assert [note.trial for note in plans.resume(store, plan)] == [0]


def test_a_spark_task_that_is_run_again(tmp_path):
    """It gives back a trial's outcome, and ends what still runs of it before it begins anew."""
    plan = make_plan(fake_space())
    store = Store(tmp_path)
    store.create()
    orphan = sleeper()
    note = plan.note(0, {"x": 0.5, "y": 1.0, "switch": True})
    owner = {"host": socket.gethostname(), "pid": orphan.pid}
    owner["identity"] = processes.identity(orphan.pid)
    dataclasses.replace(note, process=owner).save(store)
    task = {"directory": str(tmp_path), "script": str(FAKE), "device": devices.Device()}
    first, second = (run_on_worker(0.0, **task, time_limit=0) for _ in range(2))
    assert orphan.wait(5) == -signal.SIGKILL
    assert first == second and starts(store, 0) == 1


def test_the_score_is_the_last_epoch_s(tmp_path):
    store = run(tmp_path, make_plan(fake_space()), 2)
    for record in store.records:
        x, y = record.settings["x"], record.settings["y"]
        assert record.score == pytest.approx(1.0 - (x - 0.3) ** 2 - (0.1 * y) ** 2)


def test_the_reason_is_the_line_that_names_the_error():
    log = "epoch 1\nTraceback:\n  File x\nNameError: in user code:\n\n  • training=True\n\n"
    assert last_words(log) == "NameError: in user code:"
    assert last_words("a\nerror: --drops: expected numbers\n") == "error: --drops: expected numbers"
    assert last_words("a\n b \n") == "b" and last_words("\n") == "it printed nothing"


def test_a_preempted_trial_goes_on(tmp_path):
    [record] = run(tmp_path, make_plan(fake_space(fault="told_to_stop")), 1).records
    assert record.state == "done" and starts(Store(tmp_path), 0) == 2


def test_a_run_that_stops_early_has_no_score(tmp_path):
    plan = dataclasses.replace(make_plan(fake_space()), max_epochs=3)
    store = Store(tmp_path)
    store.create()
    workdir = store.run_directory(0)
    workdir.mkdir()
    (workdir / "metrics.csv").write_text("epoch,loss,val_top1\n1,0.1,0.5\n2,0.1,0.5\n3,0.")
    from neural_alignment.search.trial import judge

    note = plan.note(0, {"x": 0.0, "y": 1.0, "switch": True})
    assert judge(store, note, 0, 1.0).reason == "no metrics: metrics.csv has 2 of 3 epochs"


def test_20_and_20_resumed_are_the_same_40(tmp_path):
    plan = make_plan(fake_space(), startup=10)

    def forks():
        return ForkServer((), {}, tmp_path / "preload.log")

    straight = run(tmp_path / "a", plan, 40, launcher=forks())
    run(tmp_path / "b", plan, 20, launcher=forks())
    resumed = run(tmp_path / "b", plan, 40, launcher=forks())

    def told(store):
        return [(r.trial, r.state, r.score, r.settings, r.flags, r.reason) for r in store.records]

    assert len(straight.records) == 40
    assert told(straight) == told(resumed)
    assert all(starts(resumed, trial) == 1 for trial in range(40))


def test_devices_and_threads():
    slots = devices.assign(("0", "1"), (), 3)
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["0", "1", "0"]
    assert devices.assign(("cpu",), (), 1)[0].environment == {"CUDA_VISIBLE_DEVICES": "-1"}
    assert devices.assign((), (), 1)[0].environment == {}
    tpu = devices.assign((), ("a", "b"), 2)
    assert [slot.flags for slot in tpu] == [
        {"strategy": "tpu", "tpu_name": "a"},
        {"strategy": "tpu", "tpu_name": "b"},
    ]
    share = devices.thread_share(10**6)
    assert share["TF_NUM_INTRAOP_THREADS"] == share["OMP_NUM_THREADS"] == "1"
    assert devices.thread_share(1) == {}


def test_each_trial_has_a_device_of_its_own(tmp_path, launcher):
    from neural_alignment.search.runner import Runner

    store = Store(tmp_path / "s")
    store.create()
    most = []
    Runner(
        store,
        make_plan(fake_space(epoch_seconds=0.1)),
        FAKE,
        launcher,
        devices.assign(("0", "1"), (), 2),
        0.0,
        lambda store, running: most.append(sorted(trial.device.name for trial in running)),
    ).run(6)
    assert max(map(len, most)) == 2
    assert all(len(set(names)) == len(names) for names in most)
    used = {
        (store.run_directory(trial) / "starts.txt").read_text().split()[1] for trial in range(6)
    }
    assert used == {"0", "1"}


def sleeper():
    """A process in a group of its own that outlives whoever asked for it."""
    return subprocess.Popen(["sleep", "600"], start_new_session=True)


def test_an_orphan_is_ended_before_its_trial_goes_on(tmp_path):
    plan = make_plan(fake_space())
    store = Store(tmp_path)
    store.create()
    orphan, stranger = sleeper(), sleeper()
    settings = {"x": 0.5, "y": 1.0, "switch": True}
    for trial, (process, identity) in enumerate(
        [(orphan, processes.identity(orphan.pid)), (stranger, "started at another time")]
    ):
        owner = {"host": socket.gethostname(), "pid": process.pid, "identity": identity}
        note = plan.note(trial, settings)
        Note(**{**dataclasses.asdict(note), "process": owner}).save(store)
    try:
        waiting = plans.resume(store, plan)
        assert [note.trial for note in waiting] == [0, 1]
        assert waiting[0].settings == settings
        assert orphan.wait(5) == -signal.SIGKILL
        # A process that only has the same pid is let alone.
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_trial_whose_record_was_lost_is_taken_up(tmp_path):
    plan = make_plan(faulty_space("none", "error"), algorithm="random")
    store = run(tmp_path, plan, 6)
    whole = store.trials_file.read_bytes()
    assert {record.state for record in store.records} == {"done", "failed"}
    for kept in (5, 3):
        lines = whole.splitlines(keepends=True)
        store.trials_file.write_bytes(b"".join(lines[:kept]) + lines[kept][:-9])
        run(tmp_path, plan, 6)
        assert store.trials_file.read_bytes() == whole
    # A trial that had its last epoch, but whose search died before it noticed.
    done = next(record for record in store.records if record.state == "done")
    store.trials_file.write_bytes(
        b"".join(line for line in lines if b'"trial": %d,' % done.trial not in line)
    )
    Note.load(store, done.trial)
    plan.note(done.trial, done.settings).save(store)
    again = run(tmp_path, plan, 6)
    assert next(r for r in again.records if r.trial == done.trial).score == done.score
    assert all(starts(store, trial) == 1 for trial in range(6))


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_search_that_is_told_to_stop_ends_its_trials(tmp_path, launcher, number):
    plan = make_plan(fake_space(epoch_seconds=0.4))
    pids = []

    def tell(store, running):
        if len(store.records) == 1 and running and not pids:
            pids.append(running[0].process.pid)
            time.sleep(0.6)
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match=signal.Signals(number).name):
        run(tmp_path / "s", plan, 3, display=tell, launcher=launcher)
    assert processes.identity(pids[0]) is None
    store = Store(tmp_path / "s")
    store.read()
    assert len(store.records) == 1 and list(store.unrecorded()) == [1]
    store = run(tmp_path / "s", plan, 3)
    assert [record.state for record in store.records] == ["done"] * 3
    assert [starts(store, trial) for trial in range(3)] == [1, 2, 1]


def test_what_a_trial_leaves_running_is_ended(tmp_path, launcher):
    script = tmp_path / "script.py"
    script.write_text(
        "import subprocess, sys\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "print(child.pid, flush=True)\n"
    )
    process = launcher.start([str(script)], {}, tmp_path / "log")
    while process.wait(1.0) is None:
        continue
    child = int((tmp_path / "log").read_text())
    deadline = time.monotonic() + 5
    while processes.identity(child) is not None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert processes.identity(child) is None
    launcher.close()


def test_a_fork_is_as_good_as_a_new_interpreter(tmp_path, launcher):
    script = tmp_path / "script.py"
    script.write_text(
        "import atexit, os, sys, threading, time\n"
        "atexit.register(lambda: print('at exit', flush=True))\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('thread', flush=True))).start()\n"
        "print(__name__, sys.argv, sys.path[0], os.environ['COLOUR'], sys.stdin.read() == '')\n"
        "sys.exit(7)\n"
    )
    process = launcher.start([str(script), "--a=1"], {"COLOUR": "blue"}, tmp_path / "log")
    while process.wait(1.0) is None:
        continue
    assert process.poll() == 7
    assert (tmp_path / "log").read_text().splitlines() == [
        f"__main__ {[str(script), '--a=1']} {tmp_path} blue True",
        "thread",
        "at exit",
    ]
    launcher.close()


@pytest.mark.parametrize("otherwise", ["with --nopreload", None])
def test_a_server_that_cannot_import_is_reported(tmp_path, otherwise):
    server = ForkServer(("no_such_module",), {}, tmp_path / "preload.log", otherwise)
    remedy = f"same command again, {otherwise} if this goes on" if otherwise else "command again"
    with pytest.raises(RuntimeError, match=rf"preload.log.*{remedy}\.$"):
        run(tmp_path / "s", make_plan(fake_space()), 1, launcher=server)
    assert "no_such_module" in (tmp_path / "preload.log").read_text()
