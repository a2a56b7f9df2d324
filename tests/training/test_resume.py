"""Runs killed at any moment, or told to stop, end as if nothing had happened, bit by bit."""

import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

from neural_alignment.exits import INTERRUPTED
from neural_alignment.runs import checkpoints
from neural_alignment.runs.checkpoints import Checkpoints
from tests.training import children
from tests.training.children import Signal
from tests.training.conftest import FLAGS, STEPS, TWO_DEVICES


def random_kill(seed: int) -> Signal:
    """SIGKILL a random while after a random event: inside a step, a save, a validation."""
    draw = random.Random(seed)
    return Signal(signal.SIGKILL, nth=draw.randint(1, 5), delay=draw.uniform(1e-4, 0.05))


def assert_same(workdir: pathlib.Path, straight: pathlib.Path) -> None:
    for table in ("metrics.csv", "layers.csv"):
        assert (workdir / table).read_text() == (straight / table).read_text()
    ours, theirs = (Checkpoints(f"{folder}/checkpoints") for folder in (workdir, straight))
    assert ours.newest_whole() == STEPS
    for step in set(ours.steps()) & set(theirs.steps()):
        assert checkpoints.differences(ours.prefix(step), theirs.prefix(step)) == []


def run_with_kills(
    folder: pathlib.Path, flags: Sequence[str], kills: Sequence[Signal]
) -> children.Ended:
    for i, kill in enumerate(kills):
        ended = children.run(folder / str(i), "train.py", flags, kill.arm)
        assert ended.code == -signal.SIGKILL, f"kill {i}: {kill}: {ended}"
    ended = children.run(folder / "last", "train.py", flags)
    assert ended.code == 0, ended.errors
    return ended


def test_kills_on_one_device(tmp_path, straight):
    flags = [*FLAGS, f"--workdir={tmp_path}/run"]
    # The first checkpoint comes after the first row, and is not finished: both are written again.
    first = children.run(
        tmp_path / "first",
        "train.py",
        [*flags, "--epochs_per_checkpoint=1"],
        Signal(signal.SIGKILL, "manifest").arm,
    )
    assert first.code == -signal.SIGKILL
    assert len((tmp_path / "run/metrics.csv").read_text().splitlines()) == 2
    kills = [
        Signal(signal.SIGKILL, "save", nth=2, delay=2e-3),  # while tensors are written
        Signal(signal.SIGKILL, "validation"),
        Signal(signal.SIGKILL, "row", nth=2),  # layers.csv has rows that metrics.csv has not
        *(random_kill(seed) for seed in range(3)),
    ]
    ended = run_with_kills(tmp_path, flags, kills)
    assert "resumed at step" in ended.output
    assert_same(tmp_path / "run", straight)
    assert not list((tmp_path / "run/checkpoints").glob("*temp*"))


@pytest.mark.slow
def test_kills_on_two_devices(tmp_path, straight_on_two):
    flags = [*FLAGS, *TWO_DEVICES, f"--workdir={tmp_path}/run"]
    run_with_kills(tmp_path, flags, [random_kill(seed) for seed in range(10, 13)])
    assert_same(tmp_path / "run", straight_on_two)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_fifty_kills(tmp_path, devices, request):
    more = TWO_DEVICES if devices == 2 else ()
    straight = request.getfixturevalue("straight_on_two" if devices == 2 else "straight")
    flags = [*FLAGS, *more]
    for run in range(10):
        folder = tmp_path / str(run)
        kills = [random_kill(1000 * devices + 5 * run + i) for i in range(5)]
        run_with_kills(folder, [*flags, f"--workdir={folder}/run"], kills)
        assert_same(folder / "run", straight)


@pytest.mark.slow
def test_script_that_kills(tmp_path):
    script = [sys.executable, str(children.ROOT / "scripts/kill_test.py")]
    flags = ["--layers_list=16", "--train_epochs=4", "--train_batch_size=64"]
    command = [*script, "--kills=3", f"--folder={tmp_path}", "--", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "3 kills" in done.stdout


def test_signals_save_and_the_same_command_goes_on(tmp_path, straight):
    flags = [*FLAGS, f"--workdir={tmp_path}/run"]
    for number in (signal.SIGTERM, signal.SIGINT):
        ended = children.run(
            tmp_path / str(number), "train.py", flags, Signal(number, "steps", nth=4).arm
        )
        assert ended.code == INTERRUPTED == 75
        saved = Checkpoints(f"{tmp_path}/run/checkpoints").newest_whole()
        assert f"{number.name} came: step {saved} was finished and saved" in ended.errors
        assert "Traceback" not in ended.errors
    ended = children.run(tmp_path / "last", "train.py", flags)
    assert ended.code == 0, ended.errors
    assert f"resumed at step {saved}" in ended.output
    assert_same(tmp_path / "run", straight)


def test_signal_before_the_first_step(tmp_path):
    for number in (signal.SIGTERM, signal.SIGINT):
        ended = children.run(
            tmp_path, "train.py", [*FLAGS, f"--workdir={tmp_path}/run"], Signal(number, "build").arm
        )
        assert ended.code == INTERRUPTED
        assert "Run the same command again" in ended.errors
        assert "Traceback" not in ended.errors


def test_more_epochs(tmp_path, straight):
    """A run that ended, in the middle of an epoch, goes on when more epochs are asked for."""
    flags = [*FLAGS, f"--workdir={tmp_path}/run"]
    for epochs, steps in (("1.5", ["21", "31"]), ("3", ["21", "42", "63"])):
        ended = children.run(tmp_path, "train.py", [*flags, f"--max_epochs={epochs}"])
        assert ended.code == 0, ended.errors
        table = (tmp_path / "run/metrics.csv").read_text().splitlines()
        assert [line.split(",")[1] for line in table[1:]] == steps
    assert_same(tmp_path / "run", straight)


def test_finished_run_shows_its_table(tmp_path, straight):
    shutil.copytree(straight, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run/checkpoints").iterdir()}
    text = (tmp_path / "run/metrics.csv").read_text()
    ended = children.run(tmp_path, "train.py", [*FLAGS, f"--workdir={tmp_path}/run"])
    assert ended.code == 0, ended.errors
    assert f"resumed at step {STEPS}" in ended.output
    assert "top-1" in ended.output and "hidden" in ended.output
    assert "epoch " not in ended.output
    assert (tmp_path / "run/metrics.csv").read_text() == text
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "run/checkpoints").iterdir()}


def test_two_processes_in_one_run_directory(tmp_path):
    flags = [*FLAGS, f"--workdir={tmp_path}/run", "--train_epochs=100000"]
    first = children.start(tmp_path / "first", "train.py", flags)
    while first.is_alive() and not (tmp_path / "run/metrics.csv").exists():
        first.join(0.1)
    second = children.run(tmp_path / "second", "train.py", flags)
    os.kill(first.pid, signal.SIGTERM)
    ended = children.wait(first, tmp_path / "first")
    assert second.code == 1
    assert f"in use by the process with pid {first.pid}" in second.errors
    assert ended.code == INTERRUPTED, ended.errors
