"""scripts/search.py: flags, faults seen from outside, killing it, two at a time."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest
from absl import flags as absl_flags

from neural_alignment.config import UsageError
from neural_alignment.search import flags as search_flags
from neural_alignment.search import processes
from neural_alignment.search.space import random_points
from tests.search.support import (
    ENVIRONMENT,
    SEARCH,
    call,
    command,
    fake_space,
    faulty_space,
    make_plan,
    run,
    write_space,
)


def wait_for(condition, seconds=20.0):
    """Waits until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def started(directory, trial):
    """The pids that ran a trial."""
    path = directory / "trials" / f"{trial:04d}" / "starts.txt"
    return [int(line.split()[0]) for line in path.read_text().splitlines()] if path.exists() else []


def begin(*arguments):
    """Starts a command in the background."""
    return subprocess.Popen(
        arguments, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_help_needs_no_heavy_import():
    code = (
        "import runpy, sys\n"
        f"sys.argv = [{str(SEARCH)!r}, '--help']\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally:\n"
        "    heavy = {'tensorflow', 'keras', 'hyperopt', 'matplotlib'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert ended.returncode == 0 and not ended.stderr
    for flag in ("--space", "--trials", "--searchdir", "--parallel", "--spark"):
        assert flag in ended.stdout


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--space=wm_add"], ("--space", "wm_ad_ops")),
        (["--trials=0"], ("--trials",)),
        (["--trials=many"], ("--trials",)),
        (["--algorithm=grid"], ("--algorithm", "tpe, random")),
        (["--parallel=0"], ("--parallel",)),
        (["--time_limit=-1"], ("--time_limit",)),
        (["--max_epochs=0"], ("--max_epochs",)),
        (["--max_epochs=101"], ("--max_epochs", "100")),
        (["--devices=one"], ("--devices", "'one'")),
        (["--devices=0", "--tpu_names=a"], ("--devices", "--tpu_names")),
        (["--spark=local", "--devices=0"], ("--spark", "--devices")),
        (["--spark=local", "--preload"], ("--preload",)),
        (["--train_flag=seed"], ("--train_flag", "name=value")),
        (["--train_flag=train_epochs=3"], ("--train_flag", "train_epochs")),
        (["--train_flag=decay_coef=3"], ("--decay_coef", "leave it out")),
        (["--train_flag=colour=3"], ("--space", "colour")),
        (["--train_flag=activation_forward=3"], ("--train_flag", "activation_forward", "'3'")),
        (["--train_flag=delay_epochs=soon"], ("--train_flag", "delay_epochs", "'soon'")),
        (
            ["--train_flag=delay_epochs=nan"],
            ("--train_flag", "--delay_epochs: expected a finite number"),
        ),
        ([], ("data_dir", "imagenet")),
        (["--train_flag=preset=wm"], ("--train_flag", "preset")),
        (["--train_flag=strategy=mirrored", "--tpu_names=a"], ("--tpu_names", "--strategy")),
        (["--parallel=2", "--tpu_names=a"], ("--parallel", "--tpu_names")),
        (["--parallel=3", "--devices=0,1"], ("--parallel", "--devices", "0,1")),
        (["--spark=nonsense"], ("--spark", "'nonsense'", "local[N]")),
        (["--train_script=none.py"], ("--train_script", "none.py")),
        (["--searchdir="], ("--searchdir", "path")),
        (["--unknown=1"], ("unknown",)),
        (["nonsense"], ("nonsense",)),
        (["report"], ("report DIR",)),
    ],
)
def test_bad_flags_are_usage_errors(tmp_path, wrong, words):
    directory = tmp_path / "search"
    ended = call("--space=wm", f"--searchdir={directory}", *wrong)
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    for word in words:
        assert word in ended.stderr
    assert not directory.exists()


def parsed(*arguments):
    """The settings of a search, parsed in this process."""
    fv = absl_flags.FlagValues()
    search_flags.define_flags(fv)
    fv(["search.py", "--space=wm_ad_digits", "--searchdir=none", *arguments])
    return search_flags.read(fv)


def test_train_flags_have_their_types():
    extra = ("alternate_step_freq=1", "delay_epochs=2", "l2=1e-3", "drops=3,6", "grad_clip=false")
    names = [text.partition("=")[0] for text in extra]
    assignments = [f"--train_flag={text}" for text in extra]
    plan = search_flags.plan_from(parsed("--space=wm_digits", *assignments))
    assert [plan.space.flags[name] for name in names] == [1, 2, 0.001, "3,6", False]
    search_flags.check_trials(plan)
    settings = next(random_points(plan.space, 1, 0))
    assert plan.trial_flags(settings)["max_epochs"] == 20
    own = ("delay_epochs=2", "rate=0.5", "deep=true", "name=nan", "alternate_step_freq=1")
    values = search_flags._assignments(own, own_script=True)
    assert list(values.values()) == [2, 0.5, True, "nan", 1]


def test_a_delay_that_is_no_number_is_refused_with_any_script(tmp_path):
    space = write_space(tmp_path / "space.json", fake_space())
    ended = call(*command(tmp_path / "search", space, "--train_flag=delay_epochs=soon")[2:])
    assert ended.returncode == 2 and "--delay_epochs: Expected a number" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        (["--parallel=2"], True),
        (["--parallel=1"], False),
        (["--parallel=2", "--devices=0,1"], False),
        (["--parallel=2", "--devices=0,0"], False),
        (["--parallel=8", "--devices=cpu"], False),
        (["--parallel=3", "--devices=cpu,0"], True),
    ],
)
def test_trials_at_a_time_on_a_machine_with_gpus(monkeypatch, arguments, refused):
    monkeypatch.setattr(search_flags.devices, "has_gpu", lambda: True)
    search = parsed(*arguments)
    if refused:
        with pytest.raises(UsageError, match="--parallel.*--devices"):
            search_flags.plan_from(search)
    else:
        search_flags.plan_from(search)


HIDE_PYSPARK = """
import importlib.util, runpy, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "pyspark" else find(name, *rest)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_spark_without_pyspark(tmp_path):
    directory = tmp_path / "search"
    flags = ["--space=wm_digits", "--spark=local[2]", f"--searchdir={directory}"]
    command = [sys.executable, "-c", HIDE_PYSPARK, str(SEARCH), *flags]
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert "neural-alignment[spark]" in ended.stderr
    assert not directory.exists()


def test_a_usage_error_stops_the_search_and_is_mended_by_a_data_dir(tmp_path):
    """A data_dir that is not there ends no trial but the search, which goes on with another."""
    space = write_space(tmp_path / "space.json", fake_space())
    directory = tmp_path / "search"
    first = call(*command(directory, space, "--trials=2", "--train_flag=data_dir=missing")[2:])
    assert first.returncode == 1 and "Traceback" not in first.stderr
    assert "refuses trial 0" in first.stderr and "Expected a folder" in first.stderr
    assert not (directory / "trials.jsonl").exists()
    again = call(*command(directory, space, "--trials=2", "--train_flag=data_dir=there")[2:])
    assert again.returncode == 0, again.stderr
    lines = [json.loads(line) for line in (directory / "trials.jsonl").read_text().splitlines()]
    assert [(line["state"], line["flags"]["data_dir"]) for line in lines] == [("done", "there")] * 2


def test_a_search_from_flags_to_the_best_settings(tmp_path):
    space = write_space(tmp_path / "space.json", fake_space())
    directory = tmp_path / "search"
    ended = call(*command(directory, space, "--trials=3", "--max_epochs=3", "--devices=cpu")[2:])
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"trial 2: done 0?\.\d+|trial 2: done -", ended.stdout)
    assert "2 of 3" in ended.stdout and "Best settings" in ended.stdout
    lines = (directory / "best.cfg").read_text().splitlines()
    assert "--train_epochs=4" in lines and not any("max_epochs" in line for line in lines)
    assert started(directory, 0) and (directory / "trials/0000/metrics.csv").exists()
    again = call(*command(directory, space, "--trials=3", "--seed=1")[2:])
    assert again.returncode == 1
    assert "seed was 0 and is 1" in again.stderr and "Traceback" not in again.stderr
    told = call("report", str(directory))
    assert told.returncode == 0 and "3 with a score" in told.stdout
    for name in ("best_so_far", "settings", "importance"):
        assert (directory / "report" / f"{name}.png").stat().st_size > 5000
    none = call("report", str(tmp_path / "nothing"))
    assert none.returncode == 1 and "holds no search" in none.stderr


def test_all_trials_failing(tmp_path):
    space = write_space(tmp_path / "space.json", faulty_space("error", "segfault"))
    directory = tmp_path / "search"
    ended = call(*command(directory, space, "--trials=3")[2:])
    assert ended.returncode == 1 and "No trial succeeded" in ended.stdout
    assert "failed, exit code 1" in ended.stdout and "failed, crashed" in ended.stdout
    assert not (directory / "best.cfg").exists()
    assert len((directory / "trials.jsonl").read_text().splitlines()) == 3
    assert call("report", str(directory)).returncode == 0


@pytest.mark.parametrize("preload", [pytest.param(False, marks=pytest.mark.slow), True])
def test_sigkill_in_mid_trial(tmp_path, preload):
    """The trial dies with its search; the next start goes on with it, and runs no other twice."""
    space = write_space(tmp_path / "space.json", fake_space(epoch_seconds=0.5))
    directory = tmp_path / "search"
    arguments = command(directory, space, "--trials=3", "--max_epochs=3", "--nopreload")
    if preload:
        # The real module would take seconds to import: the server is the same without it.
        code = (
            "import runpy, sys; from neural_alignment.search import forkserver; "
            "forkserver.TRAINING = ();"
            "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
        )
        arguments = [sys.executable, "-c", code, *arguments[1:-1], "--preload"]
    metrics = directory / "trials" / "0001" / "metrics.csv"
    search = begin(*arguments)
    wait_for(lambda: metrics.exists() and "\n1," in metrics.read_text())
    [orphan] = started(directory, 1)
    search.kill()
    search.communicate()
    wait_for(lambda: processes.identity(orphan) is None, 3.0)
    again = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stderr
    assert f"died (pid {search.pid})" in again.stdout
    assert [len(started(directory, trial)) for trial in range(3)] == [1, 2, 1]
    rows = metrics.read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == [1, 2, 3]
    lines = [json.loads(line) for line in (directory / "trials.jsonl").read_text().splitlines()]
    assert [(line["trial"], line["state"]) for line in lines] == [(n, "done") for n in range(3)]


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    """Six kills in mid-trial; the trials are those of a search that nobody disturbed."""
    space = write_space(tmp_path / "space.json", fake_space(epoch_seconds=0.3))
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    more = ("--trials=12", "--startup_trials=4", "--nopreload")
    calm = call(*command(straight, space, *more)[2:])
    assert calm.returncode == 0, calm.stderr
    moments = random.Random(0)
    for trial in range(0, 12, 2):
        search = begin(*command(killed, space, *more))
        wait_for(lambda trial=trial: started(killed, trial))
        time.sleep(moments.uniform(0.0, 1.2))
        assert search.poll() is None
        search.kill()
        search.communicate()
    assert call(*command(killed, space, *more)[2:]).returncode == 0

    def told(directory):
        text = (directory / "trials.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        return [(line["trial"], line["state"], line["score"], line["flags"]) for line in lines]

    assert told(killed) == told(straight)
    for trial in range(12):
        rows = (killed / "trials" / f"{trial:04d}" / "metrics.csv").read_text().splitlines()
        assert [row.split(",")[0] for row in rows[1:]] == ["1", "2"]
    assert max(len(started(killed, trial)) for trial in range(12)) >= 2


def test_two_searches_on_one_directory(tmp_path):
    space = write_space(tmp_path / "space.json", fake_space(epoch_seconds=1))
    directory = tmp_path / "search"
    first = begin(*command(directory, space, "--trials=2"))
    try:
        wait_for(lambda: started(directory, 0))
        second = call(*command(directory, space, "--trials=2")[2:])
        assert second.returncode == 1 and f"pid {first.pid}" in second.stderr
        assert "Traceback" not in second.stderr
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=30)
        assert first.returncode == 128 + signal.SIGTERM
    finally:
        first.kill()
    assert len(started(directory, 0)) == 1


def test_a_damaged_last_line_is_said_and_mended(tmp_path):
    space = write_space(tmp_path / "space.json", fake_space())
    directory = tmp_path / "search"
    run(directory, make_plan(fake_space(), startup=20), 2)
    file = directory / "trials.jsonl"
    whole = file.read_bytes()
    os.truncate(file, len(whole) - 20)
    assert "line 2 is damaged" in call("report", str(directory)).stdout.replace("\n", " ")
    ended = call(*command(directory, space, "--trials=2")[2:])
    assert ended.returncode == 0 and "damaged" in ended.stdout
    assert file.read_bytes() == whole and len(started(directory, 1)) == 1
