"""Two real worker processes over loopback: one run, one writer, and what happens when one ends."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import time

import pytest

from tests.training import children

FLAGS = (
    "--strategy=multi_worker",
    "--dataset=digits",
    "--model=fc",
    "--layers_list=16",
    "--alignment=mirror",
    "--input_distribution=normal",
    "--alignment_optimizer=adam",
    "--train_batch_size=64",
    "--epochs_per_checkpoint=1",
)
STEPS_PER_EPOCH = 21
# Far more than any of it takes, far less than for ever.
SOON = 60.0


@dataclasses.dataclass(frozen=True)
class Worker:
    """Makes a process one of two workers, before anything else happens in it.

    Args:
        index: of this worker.
        ports: of both.
        sent: a signal that it sends itself, or None.
        patience: seconds to wait for the other to join.
    """

    index: int
    ports: tuple[int, int]
    sent: children.Signal | None = None
    patience: float = 120.0

    def __call__(self) -> None:
        from neural_alignment.training import strategy

        strategy._JOIN_SECONDS = self.patience
        os.environ["TF_CONFIG"] = json.dumps(
            {
                "cluster": {"worker": [f"127.0.0.1:{port}" for port in self.ports]},
                "task": {"type": "worker", "index": self.index},
            }
        )
        if self.sent is not None:
            self.sent.arm()


def free_ports() -> tuple[int, int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return tuple(each.getsockname()[1] for each in sockets)


def run(folder, flags, sent=None, victim=1, script="train.py"):
    """How both workers ended, and the seconds between the first end and the second."""
    ports, folders = free_ports(), [folder / f"worker{i}" for i in range(2)]
    workers = [
        children.start(folders[i], script, flags, Worker(i, ports, sent if i == victim else None))
        for i in range(2)
    ]
    deadline = time.monotonic() + children.TIMEOUT
    while all(worker.is_alive() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    first = time.monotonic()
    for worker in workers:
        worker.join(max(0.0, first + 2 * SOON - time.monotonic()))
    seconds = time.monotonic() - first
    for worker in workers:
        worker.kill()
    ended = [children.wait(w, f) for w, f in zip(workers, folders, strict=True)]
    return ended, seconds


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run of two epochs that nothing disturbed."""
    folder = tmp_path_factory.mktemp("straight")
    workdir = folder / "run"
    ended, _ = run(folder, [*FLAGS, "--train_epochs=2", f"--workdir={workdir}"])
    assert [each.code for each in ended] == [0, 0], ended
    return workdir, ended


def test_first_worker_alone_writes_and_speaks(straight):
    workdir, (chief, other) = straight
    assert "epoch 2/2" in chief.output and "on 2 device(s)" in chief.output
    assert other.output == ""
    rows = (workdir / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[1] for row in rows[1:]] == ["21", "42"]
    assert len(list((workdir / "events").iterdir())) == 1
    assert "--strategy=multi_worker" in (workdir / "flags.cfg").read_text()


@pytest.mark.slow
def test_a_dead_worker_ends_the_other_and_the_same_command_resumes(straight, tmp_path):
    flags = [*FLAGS, "--train_epochs=2", f"--workdir={tmp_path / 'run'}"]
    killed = children.Signal(signal.SIGKILL, "validation", 2)
    (chief, other), seconds = run(tmp_path / "first", flags, killed)
    assert other.code == -signal.SIGKILL
    assert chief.code == 1 and seconds < SOON
    assert "another worker ended" in chief.errors and "same command" in chief.errors
    assert "Traceback" not in chief.errors
    ended, _ = run(tmp_path / "second", flags)
    assert [each.code for each in ended] == [0, 0], ended
    assert f"resumed at step {STEPS_PER_EPOCH}" in ended[0].output
    for name in ("metrics.csv", "layers.csv"):
        assert (tmp_path / "run" / name).read_text() == (straight[0] / name).read_text()


def test_a_signal_to_one_worker_stops_and_saves_all(tmp_path):
    flags = [*FLAGS, "--train_epochs=50", f"--workdir={tmp_path / 'run'}"]
    asked = children.Signal(signal.SIGTERM, "steps", 3)
    ended, seconds = run(tmp_path, flags, asked)
    assert [each.code for each in ended] == [75, 75], ended
    assert seconds < SOON
    assert all("SIGTERM came" in each.errors for each in ended)
    assert list((tmp_path / "run" / "checkpoints").glob("*.json"))


@pytest.mark.slow
def test_a_dead_chief_ends_the_other(tmp_path):
    flags = [*FLAGS, "--train_epochs=50", f"--workdir={tmp_path / 'run'}"]
    killed = children.Signal(signal.SIGKILL, "steps", 3)
    (chief, other), seconds = run(tmp_path, flags, killed, victim=0)
    assert chief.code == -signal.SIGKILL
    assert other.code == 1 and seconds < SOON
    assert "another worker ended" in other.errors and "Traceback" not in other.errors


@pytest.mark.slow
def test_a_worker_that_stands_still_ends_the_other(tmp_path):
    flags = [*FLAGS, "--train_epochs=50", f"--workdir={tmp_path / 'run'}"]
    ports = free_ports()
    stopped = children.start(
        tmp_path / "1",
        "train.py",
        flags,
        Worker(1, ports, children.Signal(signal.SIGSTOP, "steps", 3)),
    )
    try:
        chief = children.run(tmp_path / "0", "train.py", flags, Worker(0, ports))
    finally:
        stopped.kill()
    assert chief.code == 1
    assert "another worker ended" in chief.errors and "Traceback" not in chief.errors


@pytest.mark.slow
def test_divergence_ends_all_with_the_reason(tmp_path):
    flags = [*FLAGS, "--train_epochs=5", "--learning_rate=1e30", f"--workdir={tmp_path / 'run'}"]
    ended, _ = run(tmp_path, flags)
    assert [each.code for each in ended] == [1, 1]
    assert all("NaN or infinite" in each.errors for each in ended)


@pytest.mark.slow
def test_workers_that_see_other_checkpoints_are_refused(straight, tmp_path):
    ports = free_ports()
    started = [
        children.start(
            tmp_path / str(i),
            "train.py",
            [*FLAGS, "--train_epochs=3", f"--workdir={workdir}"],
            Worker(i, ports),
        )
        for i, workdir in enumerate((tmp_path / "elsewhere", straight[0]))
    ]
    found = [children.wait(process, tmp_path / str(i)) for i, process in enumerate(started)]
    assert [each.code for each in found] == [1, 1]
    assert any("same checkpoints" in each.errors for each in found)
    assert all("Traceback" not in each.errors for each in found)


def test_a_worker_that_never_comes(tmp_path):
    worker = Worker(0, free_ports(), patience=3.0)
    ended = children.run(tmp_path, "train.py", [*FLAGS, f"--workdir={tmp_path / 'run'}"], worker)
    assert ended.code == 1
    assert "could not join the workers of TF_CONFIG: no word from 127.0.0.1:" in ended.errors
    assert "Traceback" not in ended.errors
    assert not (tmp_path / "run").exists()
