"""Searches with the real training script on the digits: what they find, lose and cost."""

import json
import subprocess
import sys
import time

import pytest

from neural_alignment.search import forkserver, processes
from tests.search.support import ENVIRONMENT, ROOT, SEARCH

pytestmark = pytest.mark.slow

TRAIN = ROOT / "scripts" / "train.py"


def search(directory, *more):
    return [
        sys.executable,
        str(SEARCH),
        "--space=wm_ad_ops_digits",
        f"--searchdir={directory}",
        "--devices=cpu",
        *more,
    ]


def run(command):
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=1200)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended


def records(directory):
    text = (directory / "trials.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_what_is_preloaded_leaves_tensorflow_s_runtime_alone():
    code = (
        "import importlib\n"
        f"for name in {forkserver.TRAINING!r}: importlib.import_module(name)\n"
        "from tensorflow.python.eager import context\n"
        "assert not context.context()._initialized\n"
    )
    run([sys.executable, "-c", code])


def test_a_search_and_its_best_settings(tmp_path):
    directory = tmp_path / "search"
    ended = run(search(directory, "--trials=3", "--max_epochs=1", "--seed=2"))
    assert "Best settings" in ended.stdout
    for record in records(directory):
        rows = (directory / "trials" / f"{record['trial']:04d}" / "metrics.csv").read_text()
        last = rows.splitlines()[-1].split(",")
        assert record["state"] == "done" and record["score"] == float(last[5])
        assert int(last[0]) == record["flags"]["max_epochs"] < record["flags"]["train_epochs"]
    # Early stopping for the test alone: the flagfile itself trains the whole schedule.
    run([sys.executable, str(TRAIN), f"--flagfile={directory / 'best.cfg'}", "--max_epochs=1"])
    assert (directory / "best" / "metrics.csv").exists()


def test_a_killed_search_scores_as_one_left_alone(tmp_path):
    more = ("--trials=2", "--max_epochs=2", "--seed=1")
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    run(search(straight, *more))
    metrics = killed / "trials" / "0001" / "metrics.csv"
    begun = subprocess.Popen(search(killed, *more), env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    while not (metrics.exists() and "\n1," in metrics.read_text()):
        assert begun.poll() is None
        time.sleep(0.02)
    pid = json.loads((killed / "trials" / "0001.json").read_text())["process"]["pid"]
    begun.kill()
    begun.wait()
    run(search(killed, *more))
    assert processes.identity(pid) is None

    def told(directory):
        return [(r["trial"], r["state"], r["score"], r["flags"]) for r in records(directory)]

    assert told(killed) == told(straight)


def test_two_at_a_time_are_the_same_trials(tmp_path):
    more = ("--trials=4", "--max_epochs=1", "--algorithm=random")
    run(search(tmp_path / "one", *more, "--parallel=1"))
    run(search(tmp_path / "two", *more, "--parallel=2"))
    flags = [{r["trial"]: r["flags"] for r in records(tmp_path / name)} for name in ("one", "two")]
    assert flags[0] == flags[1]
