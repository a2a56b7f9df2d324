"""What a search maximises, by --objective; and how many trials it draws at random."""

import dataclasses
import json

import pytest

from neural_alignment.config import UsageError
from neural_alignment.search import flags as search_flags
from neural_alignment.search import objectives
from neural_alignment.search import plan as plans
from neural_alignment.search.store import Record, Store
from neural_alignment.search.trial import judge
from tests.search.support import call, command, fake_space, make_plan, write_space
from tests.search.test_main import parsed

METRICS = "epoch,global_step,loss,alignment_loss,val_loss,val_top1,val_top5\n"
LAYERS = "epoch,global_step,layer,weight_angle,norm_ratio,alignment_loss\n"


def run_directory(folder, top1=0.8, angles=(30.0, 60.0)):
    """A finished run of two epochs; the angles are those of the last."""
    folder.mkdir(parents=True)
    rows = [f"{n},{5 * n},1.0,0.1,1.0,{top1 * n / 2},1.0\n" for n in (1, 2)]
    (folder / "metrics.csv").write_text(METRICS + "".join(rows))
    layers = [f"1,5,{i},90.0,1.0,0.0\n" for i, _ in enumerate(angles)]
    layers += [f"2,10,{i},{angle},1.0,0.0\n" for i, angle in enumerate(angles)]
    (folder / "layers.csv").write_text(LAYERS + "".join(layers))


@pytest.mark.parametrize(
    ("objective", "score", "measured"),
    [
        ("top1", 0.8, {"val_top1": 0.8}),
        ("angle", 0.5, {"val_top1": 0.8, "mean_angle": 45.0}),
        ("both", 0.65, {"val_top1": 0.8, "mean_angle": 45.0}),
    ],
)
def test_scores(tmp_path, objective, score, measured):
    store = Store(tmp_path)
    store.create()
    run_directory(store.run_directory(0))
    plan = make_plan(fake_space())
    note = plans.Note(trial=0, settings={}, flags={"max_epochs": 2}, objective=objective)
    record = judge(store, note, 0, 1.0)
    assert record.state == "done" and record.score == pytest.approx(score)
    assert record.measured == measured
    assert plan.note(0, {"x": 0.0, "y": 1.0, "switch": True}).objective == "top1"


@pytest.mark.parametrize("layers", [None, LAYERS, "a,b\n1,2\n", LAYERS + "2,10,a,nan,1,0\n"])
def test_a_run_without_angles_has_no_score_of_them(tmp_path, layers):
    store = Store(tmp_path)
    store.create()
    run_directory(store.run_directory(0))
    (store.run_directory(0) / "layers.csv").unlink()
    if layers is not None:
        (store.run_directory(0) / "layers.csv").write_text(layers)
    note = plans.Note(trial=0, settings={}, flags={"max_epochs": 2}, objective="angle")
    record = judge(store, note, 0, 1.0)
    assert record.state == "failed" and "no angle of W and B" in record.reason


def test_records_and_plans_of_0_1_are_of_top1(tmp_path):
    line = {"trial": 0, "state": "done", "score": 0.5, "settings": {}, "flags": {}, "seconds": 1.0,
            "reason": None}  # fmt: skip
    assert Record(**line).measured == {}
    store = Store(tmp_path)
    store.create()
    data = make_plan(fake_space()).to_data()
    del data["objective"]
    (tmp_path / "search.json").write_text(json.dumps(data))
    assert plans.load(store).objective == "top1"


def test_another_objective_is_another_search(tmp_path):
    space = write_space(tmp_path / "space.json", fake_space())
    directory = tmp_path / "search"
    first = call(*command(directory, space, "--trials=1", "--objective=top1")[2:])
    assert first.returncode == 0, first.stderr
    again = call(*command(directory, space, "--trials=2", "--objective=both")[2:])
    assert again.returncode == 1 and "objective was 'top1' and is 'both'" in again.stderr
    wrong = call(*command(directory, space, "--objective=angles")[2:])
    assert wrong.returncode == 2 and "--objective" in wrong.stderr and "both" in wrong.stderr


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), 20),
        (("--trials=1",), 1),
        (("--trials=3",), 1),
        (("--trials=6",), 2),
        (("--trials=30",), 10),
        (("--trials=1000",), 20),
        (("--trials=6", "--startup_trials=20"), 20),
        (("--trials=6", "--startup_trials=1"), 1),
    ],
)
def test_few_trials_have_few_random_ones(tmp_path, flags, expected):
    search = parsed(f"--searchdir={tmp_path / 'none'}", *flags)
    assert search_flags.plan_from(search).startup_trials == expected


def test_more_trials_of_a_search_keep_its_number_of_random_ones(tmp_path):
    space = write_space(tmp_path / "space.json", fake_space())
    directory = tmp_path / "search"
    first = call(*command(directory, space, "--trials=3")[2:])
    assert first.returncode == 0, first.stderr
    assert "3 trials of fake, top-1 on validation: 1 drawn at random, then by TPE" in first.stdout
    more = call(*command(directory, space, "--trials=5")[2:])
    assert more.returncode == 0, more.stderr
    assert "5 trials of fake, top-1 on validation: 1 drawn at random" in more.stdout
    given = call(*command(directory, space, "--trials=5", "--startup_trials=5")[2:])
    assert given.returncode == 1 and "startup_trials was 1 and is 5" in given.stderr


def test_all_at_random_is_said(tmp_path):
    space = write_space(tmp_path / "space.json", fake_space())
    ended = call(*command(tmp_path / "s", space, "--trials=2", "--startup_trials=20")[2:])
    assert "all drawn at random, since TPE begins after --startup_trials=20" in ended.stdout


def test_parts_of_a_score():
    assert objectives.parts({"val_top1": 0.5}) == ""
    assert objectives.parts({"val_top1": 0.5, "mean_angle": 12.34}) == " (top-1 50.00%, 12.3°)"


@pytest.mark.parametrize("objective", objectives.OBJECTIVES)
def test_backpropagation_has_no_angles_to_search_for(objective):
    data = {
        "name": "mine", "schedule_epochs": 2, "max_epochs": 1, "flags": {"alignment": "backprop"},
        "parameters": [{"name": "rate", "distribution": "uniform", "flag": "learning_rate",
                        "low": 0.01, "high": 0.1}],
    }  # fmt: skip
    plan = dataclasses.replace(make_plan(data), objective=objective)
    if objective == "top1":
        search_flags.check_trials(plan)
    else:
        with pytest.raises(UsageError, match=f"--objective={objective}: expected a space"):
            search_flags.check_trials(plan)
