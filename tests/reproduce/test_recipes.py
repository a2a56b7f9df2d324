"""Every recipe: its runs can be run, its published numbers belong to them, its figures exist."""

import pathlib
import subprocess
import sys

import pytest

from neural_alignment import alignments, reproduce
from neural_alignment.config import UsageError, by_epoch
from neural_alignment.config.flags import flag_text
from neural_alignment.figures.registry import KINDS
from neural_alignment.reproduce import jobs as jobs_module
from neural_alignment.reproduce.jobs import jobs, scaled
from neural_alignment.runs.steps import whole_steps
from neural_alignment.runs.table import LAYER_METRICS, METRICS

RECIPES = reproduce.names()
OUT = pathlib.Path("nowhere")


def planned(name, **options):
    recipe = reproduce.get(name)
    more = {"data_dir": "data"} if recipe.data else {}
    return recipe, list(jobs(recipe, OUT, more=more, **options))


@pytest.mark.parametrize("name", RECIPES)
def test_every_run_has_flags_that_go_together_at_any_length(name):
    recipe, whole = planned(name)
    assert len(whole) == recipe.count * recipe.seeds
    assert len({job.workdir for job in whole}) == len(whole)
    _, short = planned(name, scale=0.1, seeds=1)
    for job in (*whole[: recipe.count], *short):
        assert job.settings().plan.seed == job.seed


@pytest.mark.parametrize("name", RECIPES)
def test_published_numbers_belong_to_its_series(name):
    recipe = reproduce.get(name)
    labels = [series.label for series in recipe.series]
    assert len(set(labels)) == len(labels)
    assert set(recipe.figures) <= set(KINDS)
    for quantity in recipe.published:
        assert quantity.measure in (*METRICS, *LAYER_METRICS)
        assert set(quantity.values) <= set(labels)
        for values in quantity.values.values():
            if recipe.sweep is not None:
                assert len(values) == len(recipe.sweep.values)
            elif quantity.measure in METRICS:
                assert len(values) <= 2
    for text in (recipe.title, recipe.source, recipe.cost):
        assert text.strip()


@pytest.mark.parametrize("name", RECIPES)
def test_flags_at_one_value_of_the_sweep_reach_its_runs(name):
    recipe, whole = planned(name)
    texts = [] if recipe.sweep is None else [flag_text(value) for value in recipe.sweep.values]
    for series in recipe.series:
        assert set(series.at) <= set(texts if series.swept else [])
        for job in whole:
            if job.series == series.label:
                expected = series.at.get(flag_text(job.value), {})
                assert dict(job.flags) | dict(expected) == dict(job.flags)


def test_figure_6_keeps_the_factors_only_where_they_are_sparse():
    _, sparse = planned("pfa_figure6")
    dense = {job.name: job.settings() for job in sparse if job.value == 1.0}
    assert not dense["PFA density=1.0 seed-0"].values["factored"]
    assert all(job.settings().values["factored"] for job in sparse if "PFA density=0" in job.name)


@pytest.mark.parametrize("name", ["leaderboard_digits_mlp", "leaderboard_digits_lenet"])
def test_the_leaderboard_has_every_rule(name):
    rules = [series.flags["alignment"] for series in reproduce.get(name).series]
    assert rules == ["backprop", *alignments.names()]


@pytest.mark.parametrize(
    ("preset", "moved"),
    [
        ("mnist_bp", {"train_epochs": 4.0, "drops": "2,3"}),
        (
            "mnist_pfa",
            {
                "train_epochs": 4.0,
                "drops": "2,3",
                "weight_decay_schedule": "0:0.03,0.1:9e-05",
                "decay_coef_schedule": "0:0.015,0.1:4.5e-05",
            },
        ),
        ("lenet_bp", {"train_epochs": 10.0, "drops": "5,7.5"}),
        ("wm_tpe", {"train_epochs": 20.2, "delay_epochs": "0.2", "warmup_epochs": "0.6"}),
    ],
)
def test_all_that_counts_epochs_moves_with_the_length(preset, moved):
    flags = scaled({"preset": preset, "seed": 3}, 0.1, OUT / "seed-3")
    assert (flags["preset"], flags["seed"]) == (preset, 3)
    assert {name: flags[name] for name in moved} == moved


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 937, 12493, 12494])
def test_a_length_of_whole_steps_is_that_many(steps):
    flags = {"alignment": "mirror", "train_epochs": 40, "max_epochs": 40, "keep_epochs": "0,40"}
    flags |= {"amp_coef_schedule": "0:0.5,40:0.25", "constant_lr": False, "drops": "40"}
    factor = steps / (40 * 937)
    moved = scaled(flags, factor, OUT / "run")
    job = jobs_module.Job(series="", value=None, seed=0, flags=moved, workdir=OUT / "other")
    settings = job.settings()  # nothing is beyond the end
    ends = [settings.plan.train_epochs, settings.plan.max_epochs, settings.plan.keep_epochs[1]]
    ends += [settings.rate.drops[0], by_epoch.steps(moved["amp_coef_schedule"])[0][1]]
    assert [whole_steps(epochs, 937) for epochs in ends] == [steps] * 5


def test_growth_of_a_coefficient_is_by_epoch_and_moves_the_other_way():
    flags = {
        "alignment": "mirror",
        "amp_coef_schedule_type": "linear",
        "amp_coef_schedule_rate": 0.5,
        "amp_coef_cycle": 8,
        "keep_epochs": "0,2",
        "dataset": "digits",
    }
    moved = scaled(flags, 0.25, OUT / "run")
    assert moved["amp_coef_schedule_rate"] == 2.0
    assert (moved["amp_coef_cycle"], moved["keep_epochs"]) == ("2", "0,0.5")
    assert moved["train_epochs"] == 6.25  # of the digits' 25, which are filled in


def test_loss_rates_of_fixed_epochs_cannot_move():
    with pytest.raises(UsageError, match="constant_rate: expected true.*Received: false"):
        scaled({"constant_rate": False}, 0.5, OUT / "run")


def test_an_unknown_name_is_refused_with_what_was_meant():
    with pytest.raises(ValueError, match="Expected one of .*Received: 'pfa_figure'.*did you mean"):
        reproduce.get("pfa_figure")
    with pytest.raises(UsageError, match="--only: expected some of BP.*Received: 'XX'"):
        planned("pfa_figure2", only=["XX"])


def test_recipes_import_neither_keras_nor_tensorflow():
    code = (
        "import sys\n"
        "from neural_alignment import reproduce\n"
        "from neural_alignment.cli import reproduce as command\n"
        "[reproduce.get(name) for name in reproduce.names()]\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
