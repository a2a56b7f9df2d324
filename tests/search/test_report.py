"""The report: best so far, importance, plots, and the flagfile of the best settings."""

import math
import statistics

import pytest
from rich.console import Console

from neural_alignment import config
from neural_alignment.search import plan as plans
from neural_alignment.search import report, space_file
from neural_alignment.search.plan import Plan
from neural_alignment.search.store import Store
from neural_alignment.search.table import SearchTable
from tests.search.support import fake_space, make_plan, record

PNG = b"\x89PNG"


def small_search(directory):
    """A store with four trials with a score and one failed, and its plan."""
    data = fake_space()
    data["parameters"].append({"name": "other", "distribution": "boolean", "flag": "other"})
    plan = make_plan(data)
    store = Store(directory)
    store.create()
    plans.resume(store, plan)
    rows = [
        (0, 0.2, False, True),
        (1, None, True, True),
        (2, 0.6, True, True),
        (3, 0.5, True, False),
        (4, 0.3, False, False),
    ]
    for trial, score, switch, other in rows:
        settings = {"x": 0.1 * trial, "y": 10.0**-trial, "switch": switch, "other": other}
        settings["y"] = max(settings["y"], 1e-3)
        reason = None if score is not None else "crashed: SIGSEGV"
        store.append(record(trial, score, settings, reason))
    return store, plan


def test_importance_is_mean_and_sem_with_the_choice_on_and_off_sorted(tmp_path):
    store, plan = small_search(tmp_path)
    first, second = report.importances(plan, store.records)
    assert (first.name, second.name) == ("switch", "other")
    assert first.on == pytest.approx((0.55, statistics.stdev([0.5, 0.6]) / math.sqrt(2), 2))
    assert first.off == pytest.approx((0.25, statistics.stdev([0.2, 0.3]) / math.sqrt(2), 2))
    assert first.difference == pytest.approx(0.3) and second.difference == pytest.approx(0.0)
    alone = report.importances(plan, store.records[:1])
    assert all(math.isnan(choice.difference) for choice in alone)


def test_best_so_far(tmp_path):
    store, _ = small_search(tmp_path)
    assert report.best_so_far(store.records[::-1]) == [
        (0, 0.2), (1, 0.2), (2, 0.6), (3, 0.6), (4, 0.6)
    ]  # fmt: skip


def test_plots_are_written(tmp_path):
    store, plan = small_search(tmp_path)
    paths = report.plot(plan, store)
    assert [path.name for path in paths] == ["best_so_far.png", "settings.png", "importance.png"]
    assert all(path.read_bytes().startswith(PNG) for path in paths)


def test_what_is_printed(tmp_path):
    store, plan = small_search(tmp_path)
    console = Console(record=True, width=120)
    report.show(plan, store, console)
    text = console.export_text()
    assert "5 trials ended, 4 with a score" in text
    assert "failed, crashed: 1 (trial 1: crashed: SIGSEGV)" in text
    assert "best score 0.6, trial 2: x=0.2 y=0.01 switch other" in text
    assert "0.5500 ± 0.0500" in text and "+0.3000" in text


def test_the_live_table_shows_what_runs(tmp_path):
    store, plan = small_search(tmp_path)

    class Running:
        trial = 5
        note = plan.note(5, store.records[0].settings)
        device = type("Device", (), {"name": "gpu 0"})

        def seconds(self):
            return 30.0

        def epochs(self):
            return 3, 9.0

    console = Console(record=True, width=140)
    console.print(SearchTable(plan.space, 8, 2, console).render(store.records, [Running()]))
    text = console.export_text()
    assert "5 of 8 trials" in text
    assert "epoch 3 of 9 on gpu 0" in text and "0:30 │ 1:00 │" in text
    assert "best" in text and "0.6000" in text and "crashed: SIGSEGV" in text


def test_the_best_settings_train_the_whole_schedule(tmp_path):
    space = space_file.load("ia_digits")
    plan = Plan(space=space, algorithm="tpe", seed=4, startup_trials=1, max_epochs=3)
    settings = {
        "input_stddev": 0.5, "amp_over_decay": 10.0, "decay": 1e-11, "null": 0.1, "batch": 64,
        "alignment_rate": 1e-3, "delay": 1, "steps": "alternate",
    }  # fmt: skip
    names = [p.name for p in space.walk() if p.distribution == "boolean"]
    settings |= {name: position % 2 == 0 for position, name in enumerate(names)}
    store = Store(tmp_path)
    store.create()
    assert report.write_best(plan, store) is None
    store.append(record(0, 0.9, settings))
    path = report.write_best(plan, store)
    fv = config.parsed(["train.py", *path.read_text().splitlines()[2:]])
    config.validate(fv)
    assert fv.train_epochs == 2 * 20 + 1 and fv.max_epochs is None and fv.seed == 4
    assert fv.decay_coef == 1e-11 and fv.amp_coef == pytest.approx(1e-10)
    assert fv.use_bias_forward and not fv.activation_forward
    assert fv.workdir == str(tmp_path / "best")
    assert all(line.startswith("#") for line in path.read_text().splitlines()[:2])
