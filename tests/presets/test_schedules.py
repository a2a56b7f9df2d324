"""What the published presets' flags come to: rules and rates at chosen epochs."""

import pytest
import tensorflow as tf

from neural_alignment import config
from neural_alignment.config import Plan
from neural_alignment.training import build
from tests.presets.support import parse

PUBLISHED = [name for name in config.preset_names() if not name.startswith("digits_")]
STEPS = 10  # an epoch


@pytest.mark.parametrize("name", PUBLISHED)
def test_rule(name):
    fv = parse(f"--preset={name}")
    rule = build.make_rule(config.read(fv), STEPS)
    if fv["alignment"].value == "backprop":
        assert rule is None
        return
    assert rule.name == fv["alignment"].value
    assert rule.has_loss == config.read(fv).rule.has_loss


def rates(name, of_alignment):
    rate = build.learning_rate(config.read(parse(f"--preset={name}")), STEPS, of_alignment)
    return lambda epoch: float(rate(round(epoch * STEPS))) if callable(rate) else rate


# Epoch of the run to J's rate. Alternation stretches warm-up and drops by two; all comes after
# the delay.
LOSS_RATES = {
    "symmetric": {0: 0.0, 5: 0.1, 29.9: 0.1, 30: 0.01, 60: 1e-3, 80: 1e-4},
    "noisy_symmetric": {5: 0.1, 30: 0.01, 60: 1e-3, 89: 1e-3},
    "wm": {2: 0.0, 5: 0.5, 8: 1.0, 31.9: 1.0, 32: 0.1, 62: 0.01, 82: 1e-3},
    "sign_symmetry": {0: 0.0, 6: 0.5, 32: 0.05, 62: 5e-3, 82: 5e-4},
    "wm_tpe": {2: 0.0, 8: 0.5, 14: 1.0, 61.9: 1.0, 62: 0.1, 122: 0.01, 162: 1e-3},
    "wm_tpe_ad": {0: 0.0, 12: 0.125, 59.9: 0.125, 60: 0.0125, 120: 1.25e-3, 160: 1.25e-4},
    "wm_tpe_ad_ops": {12: 0.125, 60: 0.0125},
    "information_tpe": {1: 0.0, 13: 0.125, 61: 0.0125, 121: 1.25e-3, 161: 1.25e-4},
    "product": {0: 0.1, 20: 0.01, 40: 1e-3, 60: 1e-4, 74: 1e-4},
    "mnist_bp": {0: 0.01, 19.9: 0.01, 20: 0.005, 29.9: 0.005, 30: 0.0025, 39: 0.0025},
    "product_cifar10": {0: 0.1, 100: 0.01, 150: 1e-3, 199: 1e-3},
}
# R's rate: without a delay it warms up, with one it does not and its drops move back by the delay.
ALIGNMENT_RATES = {
    "symmetric": {0: 1e-3, 89: 1e-3},
    "wm": {0: 1.0, 91: 1.0},
    "wm_tpe": {0: 1.0, 61.9: 1.0, 62: 0.1, 122: 0.01},
    "wm_tpe_ad": {0: 0.0, 6: 0.00265, 12: 0.0053, 60: 0.00053},
    "wm_tpe_ad_ops": {0: 0.0, 12: 0.0025},
    "information_tpe": {0: 0.0098, 60.9: 0.0098, 61: 0.00098},
}


@pytest.mark.parametrize("name", LOSS_RATES)
def test_rate_of_the_loss(name):
    rate = rates(name, of_alignment=False)
    assert {epoch: rate(epoch) for epoch in LOSS_RATES[name]} == pytest.approx(LOSS_RATES[name])


@pytest.mark.parametrize("name", ALIGNMENT_RATES)
def test_rate_of_the_alignment_loss(name):
    rate, expected = rates(name, of_alignment=True), ALIGNMENT_RATES[name]
    assert {epoch: rate(epoch) for epoch in expected} == pytest.approx(expected)


def test_the_learning_rates_of_the_events_are_those_of_their_step():
    """At a drop: the last step before it, and the first with it."""
    fv = parse(
        "--alignment=symmetric", "--alignment_optimizer=adam", "--layers_list=4",
        "--constant_lr=false", "--warmup_epochs=0", "--drops=1", "--use_noisy_global_opt",
    )  # fmt: skip
    plan = Plan(train_batch_size=256, train_epochs=2)
    settings = config.read(fv)
    dataset = build.load_dataset(settings)
    trainer = build.make_trainer(settings, dataset, tf.distribute.OneDeviceStrategy("/cpu:0"), plan)
    named = build.schedules(settings, trainer)
    assert named["alignment_learning_rate"](0) == 0.001
    optimizer, drop = trainer.step.optimizers[0], trainer.steps_per_epoch
    for step, rate in ((0, 0.02), (drop - 1, 0.02), (drop, 0.002)):
        assert float(named["learning_rate"](step)) == pytest.approx(rate)
        optimizer.optimizer.iterations.assign(step)
        assert float(optimizer.learning_rate) == pytest.approx(rate)
