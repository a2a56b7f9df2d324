"""Every update rule as `fit` compiles it, on every back end."""

import os

import keras
import numpy as np
import pytest

from neural_alignment import optimizers
from neural_alignment.optimizers import rate_scheduler

pytestmark = [pytest.mark.backend]
if keras.backend.backend() == "tensorflow":  # tests/optimizers/test_update_rules.py has more
    pytestmark.append(pytest.mark.slow)

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(24, 4)).astype("float32")
Y = (X[:, :3] * 0.5).astype("float32")
BATCHES = [slice(start, start + 6) for start in (0, 6, 12, 18)]
# SWATS compares numbers to within epsilon; a large one switches everywhere at the same step.
OPTIONS = {"swats": {"epsilon": 1e-2}, "swrats": {"epsilon": 1e-2}}


def make(name, noisy=False, **options):
    schedule = rate_scheduler.ManualDrop(before=0.02, after=0.01, boundary_step=1)
    options = {"learning_rate": schedule, **OPTIONS.get(name, {}), **options}
    made = optimizers.get(name, **options)
    return optimizers.Noisy(made, variance=0.01, seed=3) if noisy else made


def network(optimizer, **options):
    keras.utils.set_random_seed(0)
    made = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(5, activation="tanh", name="hidden"),
            keras.layers.Dense(3, name="head"),
        ]
    )
    made.compile(optimizer, "mse", **options)
    return made


def train(made, batches):
    for batch in batches:
        made.train_on_batch(X[batch], Y[batch])
    return made


def state(made):
    variables = [*made.variables, *made.optimizer.variables]
    return [keras.ops.convert_to_numpy(variable).copy() for variable in variables]


def assert_close(first, second, **tolerance):
    for ours, theirs in zip(first, second, strict=True):
        np.testing.assert_allclose(ours, theirs, **{"rtol": 2e-5, "atol": 1e-6} | tolerance)


# On JAX every case compiles for seconds.
FEW = keras.backend.backend() == "jax" and not os.environ.get("EVERY_CASE")


@pytest.fixture(params=("momentum", "adam", "swrats") if FEW else optimizers.names())
def name(request):
    return request.param


def test_compiled_is_eager(name):
    eager = train(network(make(name), run_eagerly=True), BATCHES[:3])
    assert_close(state(train(network(make(name)), BATCHES[:3])), state(eager))


def test_saving_and_resuming_equals_not_stopping(name, tmp_path):
    made = train(network(make(name, noisy=True)), BATCHES[:2])
    made.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert type(loaded.optimizer) is type(made.optimizer)
    assert_close(state(loaded), state(made), rtol=0.0, atol=0.0)
    assert_close(state(train(loaded, BATCHES[2:])), state(train(made, BATCHES[2:])))


def test_two_accumulated_batches_are_one(name):
    accumulated = train(network(make(name, gradient_accumulation_steps=2)), BATCHES)
    whole = network(make(name))
    for start in (0, 12):
        whole.train_on_batch(X[start : start + 12], Y[start : start + 12])
    assert_close(
        [keras.ops.convert_to_numpy(w) for w in accumulated.weights],
        [keras.ops.convert_to_numpy(w) for w in whole.weights],
    )


def test_options_of_every_optimizer(name):
    """The average is put in place of the weights at the end; the decay shows in it."""
    options = {"use_ema": True, "clipvalue": 10.0}
    decays, stays = (network(make(name, weight_decay=d, **options)) for d in (0.5, 0.0))
    for made in (decays, stays):
        made.fit(X, Y, batch_size=6, shuffle=False, verbose=0)
    values = state(decays)
    assert all(np.isfinite(value).all() for value in values)
    assert np.any(np.abs(values[0] - state(stays)[0]) > 1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_keeps_the_dtype(name, dtype):
    epsilon = {} if name in ("gd", "momentum") else {"epsilon": 1e-3}
    variable = keras.Variable(np.zeros((3, 2)), dtype=dtype, name="kernel")
    optimizer = make(name, **epsilon)
    optimizer.build([variable])
    for _ in range(3):
        optimizer.apply([keras.ops.ones((3, 2), dtype)], [variable])
    value = keras.ops.convert_to_numpy(keras.ops.cast(variable, "float32"))
    assert keras.backend.standardize_dtype(variable.dtype) == dtype
    assert np.isfinite(value).all() and np.any(value != 0.0)


# What TensorFlow adds to zeros of shape [2, 3] in the first two steps, at rate 1.
NOISE = {
    "normal": [[4.2429531, 0.5266905, -0.5475992], [-2.824766, -1.5714796, -2.2314947]],
    "uniform": [[3.1092453, -1.2936226, -3.1445949], [5.2639519, -1.3618317, 1.6726045]],
}


@pytest.mark.parametrize("distribution", NOISE)
def test_the_noise_is_that_of_tensorflow(distribution):
    variable = keras.Variable(np.zeros((2, 3)), name="kernel")
    inner = optimizers.get("gd", learning_rate=1.0)
    optimizer = optimizers.Noisy(inner, variance=4.0, distribution=distribution, seed=7)
    optimizer.build([variable])
    for _ in range(2):
        optimizer.apply([keras.ops.zeros((2, 3))], [variable])
    found = keras.ops.convert_to_numpy(variable)
    np.testing.assert_allclose(found, NOISE[distribution], rtol=1e-5, atol=1e-6)
