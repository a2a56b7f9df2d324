"""The same search on hyperopt's SparkTrials, in local mode: needs the extra [spark] and Java 17."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import time

import pytest

from neural_alignment.search import processes
from tests.search.support import ENVIRONMENT, command, fake_space, faulty_space, write_space

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("pyspark") is None,
        reason='pyspark is not installed: pip install -e ".[spark]"',
    ),
    pytest.mark.skipif(
        shutil.which("java") is None and "JAVA_HOME" not in os.environ,
        reason="Spark needs Java 17, and neither java nor JAVA_HOME is there",
    ),
]


def search(*arguments):
    return subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


def records(directory):
    text = (directory / "trials.jsonl").read_text()
    return {line["trial"]: line for line in map(json.loads, text.splitlines())}


def starts(directory, trial):
    path = directory / "trials" / f"{trial:04d}" / "starts.txt"
    return [int(line.split()[0]) for line in path.read_text().splitlines()] if path.exists() else []


def test_the_same_trials_as_without_spark(tmp_path):
    space = write_space(tmp_path / "space.json", fake_space())
    more = ("--trials=8", "--algorithm=random")
    local, spark = tmp_path / "local", tmp_path / "spark"
    assert search(*command(local, space, *more)).returncode == 0
    ended = search(*command(spark, space, *more, "--spark=local[2]", "--parallel=2"))
    assert ended.returncode == 0, ended.stderr
    assert "Best settings" in ended.stdout

    def told(directory):
        found = records(directory)
        return [(n, found[n]["state"], found[n]["score"], found[n]["flags"]) for n in range(8)]

    assert told(spark) == told(local)
    assert (spark / "best.cfg").read_text().splitlines()[:-1] == (
        (local / "best.cfg").read_text().splitlines()[:-1]
    )


def test_failed_trials_are_recorded_with_their_reasons(tmp_path):
    space = write_space(tmp_path / "space.json", faulty_space("segfault", "nan", "none"))
    ended = search(
        *command(
            tmp_path / "s", space, "--trials=9", "--spark=local[2]", "--parallel=2",
            "--algorithm=random",
        )
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    reasons = {
        line["settings"]["fault"]: line["reason"] for line in records(tmp_path / "s").values()
    }
    assert reasons == {
        "segfault": "crashed: SIGSEGV",
        "nan": "diverged: loss is nan in epoch 2",
        "none": None,
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_search_and_its_trial(tmp_path, number):
    space = write_space(tmp_path / "space.json", fake_space(epoch_seconds=60))
    directory = tmp_path / "s"
    arguments = command(directory, space, "--trials=2", "--spark=local[1]")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(arguments, env=ENVIRONMENT, **pipes) as driver:
        try:
            deadline = time.monotonic() + 120
            while not starts(directory, 0):
                assert time.monotonic() < deadline and driver.poll() is None
                time.sleep(0.05)
            [job] = starts(directory, 0)
            driver.send_signal(number)
            output, _ = driver.communicate(timeout=120)
        finally:
            driver.kill()
    assert driver.returncode == 128 + number
    assert f"Stopped by {signal.Signals(number).name}" in output
    assert "Traceback" not in output
    assert processes.identity(job) is None
    assert not (directory / "trials.jsonl").exists()


def test_a_usage_error_ends_the_search(tmp_path):
    space = write_space(tmp_path / "space.json", fake_space())
    arguments = command(tmp_path / "s", space, "--trials=9", "--spark=local[1]")
    ended = search(*arguments, "--train_flag=data_dir=missing")
    assert ended.returncode == 1
    assert "refuses trial 0" in ended.stderr and "Expected a folder" in ended.stderr
    assert not (tmp_path / "s" / "trials.jsonl").exists()
    assert not starts(tmp_path / "s", 8)  # a few were under way


def test_a_master_that_is_not_there(tmp_path):
    space = write_space(tmp_path / "space.json", fake_space())
    ended = search(*command(tmp_path / "s", space, "--trials=1", "--spark=spark://nowhere:70a"))
    assert ended.returncode == 1
    assert "error: Expected a Spark master" in ended.stderr and "Traceback" not in ended.stderr


def test_sigkill_of_the_driver_in_mid_trial(tmp_path):
    space = write_space(tmp_path / "space.json", fake_space(epoch_seconds=1.5))
    directory = tmp_path / "s"
    arguments = command(directory, space, "--trials=3", "--spark=local[1]", "--max_epochs=3")
    metrics = directory / "trials" / "0001" / "metrics.csv"
    with subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.DEVNULL) as driver:
        try:
            deadline = time.monotonic() + 120
            while not (metrics.exists() and "\n1," in metrics.read_text()):
                assert time.monotonic() < deadline and driver.poll() is None
                time.sleep(0.05)
            [orphan] = starts(directory, 1)
        finally:
            driver.kill()
    ended = search(*arguments)
    assert ended.returncode == 0, ended.stderr
    assert processes.identity(orphan) is None
    assert {n: line["state"] for n, line in records(directory).items()} == dict.fromkeys(
        range(3), "done"
    )
    rows = metrics.read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["1", "2", "3"]
    assert len(starts(directory, 0)) == 1 and len(starts(directory, 1)) == 2
