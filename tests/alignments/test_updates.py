"""Rules that move their variables themselves, without a loss."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from neural_alignment import alignments, optimizers
from neural_alignment.layers import Dense, training_step
from neural_alignment.training import Step
from tests.layers.conformance import draw

TAU = 0.25
RULE = alignments.MovingAverage(tau=TAU)


def network(alignment=RULE, calls=1):
    keras.utils.set_random_seed(1)
    inputs = x = keras.Input((4,))
    shared = Dense(4, "tanh", alignment=alignment, name="shared")
    for _ in range(calls):
        x = shared(x)
    return keras.Model(inputs, Dense(3, alignment=alignment, name="head")(x))


def kernels(model):
    return {
        name: [np.array(model.get_layer(name).weights[i]) for i in (0, -1)]
        for name in ("shared", "head")
    }


def batch(step, size=8):
    return draw((size, 4), step), np.arange(size, dtype="int32") % 3


@pytest.mark.parametrize("calls", [1, 3])
@pytest.mark.parametrize("how", ["eager", "graph", "xla"])
def test_in_fit_the_backward_kernel_moves_once_a_step(how, calls):
    model = network(calls=calls)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        keras.optimizers.SGD(0.5), loss, run_eagerly=how == "eager", jit_compile=how == "xla"
    )
    for step in range(3):
        before = kernels(model)
        model.train_on_batch(*batch(step))
        after = kernels(model)
        for name, (w, b) in before.items():
            np.testing.assert_allclose(after[name][1], b + TAU * (w - b), rtol=1e-5, atol=1e-6)
            assert np.abs(after[name][0] - w).max() > 1e-3
    before = kernels(model)
    model.predict(batch(0)[0], verbose=0)
    model.evaluate(*batch(0), verbose=0)
    np.testing.assert_array_equal(kernels(model)["head"][1], before["head"][1])


@pytest.mark.parametrize("micro_batches", [1, 4])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_in_a_step_of_several_micro_batches_the_error_meets_one_backward_kernel(
    micro_batches, jit_compile
):
    found = {}
    for parts in {1, micro_batches}:
        model = network(calls=2)
        step = Step(
            model,
            optimizers.get("gd", learning_rate=0.5),
            None,
            lambda t: 1.0,
            lambda t: 1.0,
            micro_batches=parts,
            jit_compile=jit_compile,
        )
        compiled = tf.function(step)
        for i in range(3):
            before = kernels(model)
            compiled(*map(tf.constant, batch(i)), tf.constant(i))
            for name, (w, b) in before.items():
                np.testing.assert_allclose(
                    kernels(model)[name][1], b + TAU * (w - b), rtol=1e-5, atol=1e-6
                )
        found[parts] = kernels(model)
    for name in found[1]:
        for one, several in zip(found[1][name], found[micro_batches][name], strict=True):
            np.testing.assert_allclose(several, one, rtol=1e-4, atol=1e-5)


def test_the_same_as_symmetric_with_gradient_descent():
    """decay_coef tau/2, self_coef tau, R's rate 1."""
    symmetric = alignments.Symmetric(decay_coef=TAU / 2, self_coef=TAU)
    models = {rule.name: network(rule) for rule in (RULE, symmetric)}
    models["symmetric"].set_weights(_reordered(models))
    for name, model in models.items():
        optimizer = optimizers.get("gd", learning_rate=0.5)
        if name == "symmetric":
            optimizer = optimizers.RoutedOptimizer(
                optimizer, optimizers.get("gd", learning_rate=1.0)
            )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss)
        for step in range(5):
            model.train_on_batch(*batch(step))
    ours, theirs = (_by_name(models[name]) for name in ("moving_average", "symmetric"))
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-4, atol=1e-5)


def _by_name(model):
    return {w.path: np.array(w) for w in model.weights}


def _reordered(models):
    values = _by_name(models["moving_average"])
    return [values[w.path] for w in models["symmetric"].weights]


def test_a_frozen_layer_stays():
    model = network()
    model.get_layer("shared").trainable = False
    before = kernels(model)
    with training_step(0):
        model(batch(0)[0], training=True)
    after = kernels(model)
    np.testing.assert_array_equal(after["shared"][1], before["shared"][1])
    assert np.any(after["head"][1] != before["head"][1])


@pytest.mark.parametrize("tau", [0.0, -0.1, 1.5])
def test_tau_out_of_range(tau):
    with pytest.raises(ValueError, match=r"Expected tau in \(0, 1\].*Received: tau="):
        alignments.MovingAverage(tau=tau)


def test_an_update_written_without_the_map_still_moves_its_kernel():
    """As rules of one's own have it; in a group of a mixed rule, too."""
    with pytest.warns(DeprecationWarning, match="Expected Own.update to take the keyword `linear`"):

        @dataclasses.dataclass(frozen=True, kw_only=True)
        class Own(alignments.Alignment):
            name = "own"

            def update(self, forward_kernel, variables, step):
                return {"backward_kernel": 2.0 * forward_kernel}

    for rule, name in (
        (Own(), "backward_kernel"),
        (alignments.Mixed(fractions=[(Own(), 1.0)]), "backward_kernel_0_own"),
    ):
        layer = Dense(4, alignment=rule)
        layer.build((None, 5))
        layer(draw((3, 5)), training=True)
        np.testing.assert_array_equal(getattr(layer, name), 2.0 * layer.kernel.numpy())
