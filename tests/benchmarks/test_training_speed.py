import math
import os
import re
import subprocess
import sys

import pytest

from benchmarks import training_speed
from benchmarks.training_speed import Memory, Setup, Speed
from tests.data import jpegs

TINY = Setup(model="lenet5", image_size=32, batch=4, num_classes=10, steps=2, warm_up=1, rounds=1)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits") / "16"
    jpegs.make(folder, image_size=16, limit=12, train_shards=1, validation_shards=1)
    return folder


def test_shares_of_a_step():
    speed = Speed(pipeline=0.01, memory=0.3, training=0.4, blocked=0.02)
    assert (speed.waiting, speed.lost) == (pytest.approx(0.05), pytest.approx(0.25))
    faster_by_chance = Speed(pipeline=0.01, memory=0.3, training=0.29, blocked=0.0)
    assert faster_by_chance.lost == 0.0


class _Clock:
    """Time passes where a batch is drawn, and in a step."""

    def __init__(self):
        self.now = 0.0

    def batches(self, seconds):
        while True:
            self.now += seconds
            yield ()

    def step(self):
        self.now += 2.0
        return [self]

    def numpy(self):
        self.now += 1.0


def test_waiting_is_told_from_training(monkeypatch):
    clock = _Clock()
    monkeypatch.setattr(training_speed.time, "perf_counter", lambda: clock.now)
    setup = Setup(steps=5, warm_up=2)
    assert training_speed._time(setup, clock.batches(0.5), clock.step) == (3.5, 0.5)
    assert training_speed._time(setup, clock.batches(0.5), None) == (0.5, 0.5)
    assert setup.images == 7 * setup.batch


def test_speed_is_measured(digits):
    assert TINY.images == 12
    speed = training_speed.measure_speed(TINY, "symmetric", str(digits), None)
    for seconds in (speed.pipeline, speed.memory, speed.training, speed.blocked):
        assert math.isfinite(seconds) and seconds > 0.0
    assert speed.blocked < speed.training


def test_too_few_images(digits):
    setup = Setup(model="lenet5", image_size=32, batch=4, steps=3, warm_up=1)
    with pytest.raises(ValueError, match="Expected 16 training images.*Received: 12"):
        training_speed.measure_speed(setup, "backprop", str(digits), None)


def test_memory_is_measured():
    memory = training_speed.measure_memory(TINY, "feedback")
    assert 0.0 < memory.imported <= memory.trained
    assert isinstance(memory, Memory)


def test_a_new_process_is_new():
    assert training_speed.in_new_process(os.getpid) != os.getpid()


def test_a_peak_stays():
    before = training_speed.peak()
    held = bytearray(64 << 20)
    held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])
    assert training_speed.peak() >= before
    assert before > 1.0


@pytest.mark.slow
def test_the_script_prints_both_tables(digits):
    flags = [f"--data_dir={digits}", "--model=lenet5", "--image_size=32", "--batch=4", "--steps=2"]
    flags += ["--warm_up=1", "--rounds=1", "--num_classes=10", "--rules=symmetric"]
    ran = subprocess.run(
        [sys.executable, training_speed.__file__, *flags],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    rows = [re.split(r" *\| *", line)[1:-1] for line in ran.stdout.splitlines() if line[:1] == "|"]
    assert [row[0] for row in rows] == ["rule", "---", "symmetric"] + [
        "rule", "---", "backprop", "symmetric",
    ]  # fmt: skip
    assert rows[5][3:] == ["1.00", "1.00"]
    assert float(rows[6][3]) > 0.5
