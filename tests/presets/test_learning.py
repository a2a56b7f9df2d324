"""It learns: a short run by default, the table of docs/results.md as a slow test."""

import statistics

import keras
import pytest

from benchmarks import digits


@pytest.fixture(autouse=True)
def _fresh_keras():
    keras.backend.clear_session()


@pytest.mark.slow
def test_ten_epochs(tmp_path):
    """Symmetric alignment learns and aligns, feedback learns without its weights being aligned."""
    runs = {}
    for rule in ("symmetric", "feedback"):
        short = ("--train_epochs=10", "--drops=7", "--epochs_per_checkpoint=10")
        fv = digits.job_flags(f"digits_{rule}", 0, tmp_path / rule, "fc", *short)
        runs[rule] = digits.train(fv)
    assert runs["symmetric"].top1 > 93.0
    assert max(runs["symmetric"].angles.values()) < 5.0
    assert runs["feedback"].top1 > 60.0
    assert min(runs["feedback"].angles.values()) > 45.0


# Points of top-1 below backprop, and degrees of every layer's angle, at most; means of 3 seeds.
BOUNDS = {
    "digits_symmetric": (1.0, 2.0),
    "digits_kolen_pollack": (1.0, 25.0),
    "digits_product": (1.0, 30.0),
    "digits_product_orthogonal": (1.0, 30.0),
    "digits_activation": (1.5, 35.0),
    "digits_sign_symmetry": (1.5, 60.0),
    "digits_sign_symmetry_batch": (2.5, 60.0),
    "digits_sign_symmetry_fixed": (1.5, 60.0),
    "digits_wm": (2.5, 30.0),
    "digits_wm_tpe": (2.5, 30.0),
    "digits_wm_tpe_ad": (2.5, 30.0),
    "digits_wm_tpe_ad_ops": (2.5, 30.0),
    "digits_information_tpe": (2.5, 15.0),
    "digits_moving_average": (1.5, 5.0),
    "digits_phaseless": (2.5, 30.0),
    "digits_mixed": (2.0, 75.0),
    "digits_feedback": (3.0, 180.0),
    "digits_direct": (3.0, 180.0),
    "digits_frozen": (25.0, 180.0),
}
SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Trains a preset with every seed, once."""
    folder, done = tmp_path_factory.mktemp("digits"), {}

    def get(preset):
        if preset not in done:
            done[preset] = [
                digits.train(digits.job_flags(preset, seed, folder / f"{preset}-{seed}"))
                for seed in SEEDS
            ]
        return done[preset]

    return get


def mean_top1(made):
    return statistics.fmean(run.top1 for run in made)


def test_every_preset_of_the_table_has_a_bound():
    assert {"digits_backprop", *BOUNDS} == set(digits.PRESETS)


@pytest.mark.slow
@pytest.mark.parametrize("preset", BOUNDS)
def test_table(preset, runs):
    behind, degrees = BOUNDS[preset]
    made = runs(preset)
    assert mean_top1(runs("digits_backprop")) > 97.0
    assert mean_top1(made) >= mean_top1(runs("digits_backprop")) - behind
    for layer in made[0].angles:
        assert statistics.fmean(run.angles[layer] for run in made) < degrees, layer
