"""Presets in a Keras model of one's own."""

import warnings

import keras
import numpy as np
import pytest

import neural_alignment
from neural_alignment import alignments, config, layers, optimizers
from neural_alignment.callbacks import GlobalStep
from neural_alignment.config import made

pytestmark = pytest.mark.backend

STEPS = 5
# Presets with a coefficient by epoch.
SCHEDULED = ("mnist_kp", "mnist_pfa", "mnist_pfao")


def settings(name):
    return config.read(config.parsed(config.expand(["train", f"--preset={name}"])))


@pytest.mark.parametrize("name", config.preset_names())
def test_the_rule_and_the_optimizers_are_those_of_a_run(name):
    of_run = settings(name)
    rule = made.make_rule(of_run, STEPS)
    if name in SCHEDULED:
        with pytest.raises(ValueError, match="coefficients are numbers.*decay_coef_schedule"):
            alignments.from_preset(name)
    else:
        assert alignments.from_preset(name) == rule
    if of_run.optimizers.bias_rate != 1.0:
        with pytest.raises(ValueError, match=f"without a bias_rate.*{name}"):
            neural_alignment.from_preset(name, STEPS)
        return
    preset = neural_alignment.from_preset(name, STEPS)
    assert preset.alignment == rule
    assert (preset.l2, preset.batch_size, preset.epochs) == (
        of_run.model.l2,
        of_run.plan.train_batch_size,
        of_run.plan.train_epochs,
    )
    decay = made.weight_decay(of_run, STEPS)
    assert preset.weight_decay == getattr(decay, "value", decay)
    first = made.make_optimizer(of_run, STEPS)
    if of_run.optimizers.alignment_optimizer is None:
        assert preset.optimizer.get_config() == first.get_config()
        return
    second = made.make_optimizer(of_run, STEPS, of_alignment=True)
    assert isinstance(preset.optimizer, optimizers.RoutedOptimizer)
    assert preset.optimizer.optimizer.get_config() == first.get_config()
    assert preset.optimizer.alignment_optimizer.get_config() == second.get_config()
    rates = (preset.optimizer.loss_rate, preset.optimizer.alignment_rate)
    assert rates == made.loss_rates(of_run, STEPS)


@pytest.mark.parametrize("name", ["backprop", "wm_tpe", "kolen_pollack", "noisy_symmetric"])
def test_a_model_trains_with_it(name):
    preset = neural_alignment.from_preset(name, STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", alignments.AlignmentWarning)
        model = keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(5, "relu", alignment=preset.alignment),
                layers.Dense(3, alignment=preset.alignment),
            ]
        )
    model.compile(preset.optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
    before = model.get_weights()
    model.fit(x, np.arange(20) % 3, batch_size=4, epochs=3, verbose=0, callbacks=[GlobalStep()])
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert any(np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True))


def test_a_batch_of_ones_own_scales_the_rate():
    name = next(one for one in config.preset_names() if settings(one).rate.rescale_lr)
    preset = settings(name)
    whole = neural_alignment.from_preset(name, STEPS).optimizer
    half = neural_alignment.from_preset(name, STEPS, preset.plan.train_batch_size // 2).optimizer
    rates = [
        getattr(one, "optimizer", one).get_config()["learning_rate"]["config"]["value"]
        for one in (whole, half)
    ]
    assert rates[1] == rates[0] / 2


def test_unknown_presets():
    for ask in (alignments.from_preset, lambda name: neural_alignment.from_preset(name, STEPS)):
        with pytest.raises(ValueError, match="xpected .*wm_tpe.*Received: 'wm_tp'"):
            ask("wm_tp")
    with pytest.raises(ValueError, match="steps_per_epoch"):
        neural_alignment.from_preset("wm_tpe", 0)
