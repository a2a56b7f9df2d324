"""A small space for the fake training script, and searches run in this process or as a command."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable

from neural_alignment.search import devices, space_file
from neural_alignment.search.plan import Plan
from neural_alignment.search.processes import ScriptLauncher
from neural_alignment.search.runner import Runner
from neural_alignment.search.space import Space
from neural_alignment.search.store import Record, Store

ROOT = pathlib.Path(__file__).parents[2]
FAKE = pathlib.Path(__file__).with_name("fake_train.py")
SEARCH = ROOT / "scripts" / "search.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def fake_space(**flags) -> dict:
    """A space of the fake script as data; `flags` are fixed."""
    return {
        "name": "fake",
        "schedule_epochs": 4,
        "max_epochs": 2,
        "flags": flags,
        "parameters": [
            {"name": "x", "distribution": "uniform", "flag": "x", "low": -1.0, "high": 1.0},
            {"name": "y", "distribution": "loguniform", "flag": "y", "low": 1e-3, "high": 10.0},
            {"name": "switch", "distribution": "boolean", "flag": "switch"},
        ],
    }


def faulty_space(*faults: str, **flags) -> dict:
    """The fake space with a choice of faults."""
    data = fake_space(**flags)
    data["parameters"].append(
        {"name": "fault", "distribution": "choice", "flag": "fault", "options": list(faults)}
    )
    return data


def make_plan(data: dict, algorithm: str = "tpe", seed: int = 0, startup: int = 5) -> Plan:
    """A plan of a space given as data."""
    space: Space = space_file.from_data(data)
    return Plan(
        space=space,
        algorithm=algorithm,
        seed=seed,
        startup_trials=startup,
        max_epochs=space.max_epochs,
    )


def run(
    directory: pathlib.Path,
    plan: Plan,
    trials: int,
    *,
    parallel: int = 1,
    time_limit: float = 0.0,
    display: Callable = lambda store, running: None,
    launcher=None,
) -> Store:
    """Runs a search of the fake script in this process."""
    store = Store(directory)
    store.create()
    Runner(
        store,
        plan,
        FAKE,
        launcher or ScriptLauncher(),
        devices.assign((), (), parallel),
        time_limit,
        display,
    ).run(trials)
    return store


def command(directory: pathlib.Path, space: pathlib.Path, *more: str) -> list[str]:
    """The command line of a search of the fake script."""
    return [
        sys.executable,
        str(SEARCH),
        f"--space={space}",
        f"--searchdir={directory}",
        f"--train_script={FAKE}",
        *more,
    ]


def call(*arguments: str) -> subprocess.CompletedProcess:
    """Runs scripts/search.py with these arguments to its end."""
    return subprocess.run(
        [sys.executable, str(SEARCH), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=ENVIRONMENT,
    )


def write_space(path: pathlib.Path, data: dict) -> pathlib.Path:
    """Writes a space file."""
    path.write_text(json.dumps(data))
    return path


def record(trial: int, score: float | None, settings: dict, reason: str | None = None) -> Record:
    """A record, done if it has a score."""
    return Record(
        trial=trial,
        state="failed" if score is None else "done",
        score=score,
        settings=settings,
        flags={},
        seconds=1.0,
        reason=reason,
    )
