"""One table over the registry of update rules, and noisy updates around each."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from neural_alignment import optimizers
from neural_alignment.optimizers import rate_scheduler

RATES = {
    "gd": 0.1,
    "momentum": 0.02,
    "adagrad": 0.5,
    "rmsprop": 0.01,
    "adam": 0.05,
    "radam": 0.1,
    "swats": 0.05,
    "swrats": 0.1,
}
# Every argument of its own at another value than the default, for the config.
OPTIONS = {
    "gd": {},
    "momentum": {"momentum": 0.5, "nesterov": False},
    "adagrad": {"initial_accumulator_value": 0.3, "epsilon": 1e-4},
    "rmsprop": {"rho": 0.8, "momentum": 0.2, "epsilon": 1e-6, "centered": True},
    "adam": {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-6},
    "radam": {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-6},
    "swats": {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-6},
    "swrats": {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-6},
}
TARGET = np.array([[1.0, -2.0], [0.5, 0.0], [3.0, -1.0]], np.float32)


def make(name, noisy=False, **options):
    optimizer = optimizers.get(name, learning_rate=RATES[name], **options)
    return optimizers.Noisy(optimizer, variance=1e-4, seed=3) if noisy else optimizer


@pytest.fixture(params=sorted(RATES))
def name(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["plain", "noisy"])
def noisy(request):
    return request.param


def variables(dtype="float32"):
    return [
        keras.Variable(np.zeros((3, 2)), dtype=dtype, name="kernel"),
        keras.Variable(np.ones(2), dtype=dtype, name="bias"),
    ]


def gradients(weights):
    kernel, bias = (tf.cast(tf.convert_to_tensor(weight), "float32") for weight in weights)
    values = [kernel - TARGET, 2.0 * bias]
    return [tf.cast(value, weight.dtype) for value, weight in zip(values, weights, strict=True)]


def run(optimizer, weights, steps, **function_options):
    optimizer.build(weights)

    def step():
        optimizer.apply(gradients(weights), weights)

    if function_options:
        step = tf.function(step, **function_options)
    for _ in range(steps):
        step()
    return step


def state(optimizer, weights):
    return [variable.numpy() for variable in [*weights, *optimizer.variables]]


def test_table_is_the_registry():
    assert set(RATES) == set(OPTIONS) == set(optimizers.names())


def test_converges(name, noisy):
    weights = variables()
    run(make(name, noisy), weights, 500, jit_compile=False)
    np.testing.assert_allclose(weights[0].numpy(), TARGET, atol=0.05)
    np.testing.assert_allclose(weights[1].numpy(), 0.0, atol=0.05)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_keeps_the_dtype(name, noisy, dtype):
    weights = variables(dtype)
    optimizer = make(name, noisy, **({"epsilon": 1e-3} if "epsilon" in OPTIONS[name] else {}))
    run(optimizer, weights, 3)
    for weight in weights:
        assert weight.dtype == dtype
        assert np.isfinite(np.asarray(weight.numpy(), np.float32)).all()
    assert np.any(np.asarray(weights[0].numpy(), np.float32) != 0.0)


def test_graph_and_xla_agree_with_eager_in_one_trace(name):
    # The noisy wrapper does all that the rule inside does, and draws.
    results = []
    for options in ({}, {"jit_compile": False}, {"jit_compile": True}):
        weights, optimizer = variables(), make(name, noisy=True)
        step = run(optimizer, weights, 8, **options)
        results.append(state(optimizer, weights))
        if options:
            assert step.experimental_get_tracing_count() == 1
    for other in results[1:]:
        for value, reference in zip(other, results[0], strict=True):
            np.testing.assert_allclose(value, reference, rtol=2e-5, atol=1e-6)


def test_a_gradient_of_none_leaves_variable_and_slots_untouched(name, noisy):
    weights, optimizer = variables(), make(name, noisy)
    optimizer.build(weights)
    before = state(optimizer, weights)
    optimizers.apply_gradients([[None, tf.ones(2)]], [optimizer], weights)
    np.testing.assert_array_equal(weights[0].numpy(), before[0])
    assert np.any(weights[1].numpy() != before[1])
    assert int(optimizer.iterations.numpy()) == 1
    for variable, old in zip(optimizer.variables, before[2:], strict=True):
        if "kernel" in variable.path:
            np.testing.assert_array_equal(variable.numpy(), old)


def test_config_holds_every_argument(name):
    optimizer = make(name, **OPTIONS[name])
    config = optimizer.get_config()
    arguments = set(inspect.signature(type(optimizer).__init__).parameters)
    assert arguments - {"self", "kwargs"} <= set(config)
    assert OPTIONS[name].items() <= config.items()
    assert set(OPTIONS[name]) == arguments - {"self", "kwargs", "learning_rate", "name"}
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert type(again) is type(optimizer) and again.get_config() == config


def test_a_schedule_survives_the_config(name, noisy):
    schedule = rate_scheduler.LearningRate(value=0.1, steps_per_epoch=5)
    optimizer = optimizers.get(name, learning_rate=schedule)
    if noisy:
        optimizer = optimizers.Noisy(
            optimizer, variance=0.5, distribution="uniform", apply_filter="backward", seed=7
        )
    serialized = keras.saving.serialize_keras_object(optimizer)
    again = keras.saving.deserialize_keras_object(serialized)
    assert again.get_config() == optimizer.get_config()
    inner = again.optimizer if noisy else again
    assert inner._learning_rate == schedule


def model_and_data(optimizer):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(5, activation="tanh", name="hidden"),
            keras.layers.Dense(3, name="head"),
        ]
    )
    model.compile(optimizer, "mse", run_eagerly=True)
    random = np.random.default_rng(0)
    x = random.normal(size=(48, 4)).astype("float32")
    return model, x, (x[:, :3] * 0.5).astype("float32")


def train(model, x, y, batches):
    for batch in batches:
        model.train_on_batch(x[batch * 8 : batch * 8 + 8], y[batch * 8 : batch * 8 + 8])


def everything(model):
    return [variable.numpy() for variable in [*model.variables, *model.optimizer.variables]]


def assert_bit_equal(values, others):
    for value, other in zip(values, others, strict=True):
        np.testing.assert_array_equal(value, other)


def test_saving_and_resuming_equals_not_stopping(name, tmp_path):
    noisy = name != "gd"
    model, x, y = model_and_data(make(name, noisy))
    train(model, x, y, range(3))
    model.save(tmp_path / "model.keras")
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    path = checkpoint.write(str(tmp_path / "checkpoint"))
    train(model, x, y, range(3, 6))

    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is type(model.optimizer)
    train(loaded, x, y, range(3, 6))
    assert_bit_equal(everything(loaded), everything(model))

    restored, x, y = model_and_data(make(name, noisy))
    restored.optimizer.build(restored.trainable_variables)
    checkpoint = tf.train.Checkpoint(model=restored, optimizer=restored.optimizer)
    checkpoint.read(path).assert_consumed()
    train(restored, x, y, range(3, 6))
    assert_bit_equal(everything(restored), everything(model))


def test_two_replicas_equal_one_device(name, mirrored):
    noisy = name != "gd"
    strategy = mirrored
    with strategy.scope():
        weights, optimizer = variables(), make(name, noisy)
        optimizer.build(weights)

    @tf.function
    def step():
        def replica_step():
            optimizer.apply([g / 2.0 for g in gradients(weights)], weights)

        strategy.run(replica_step)

    for _ in range(5):
        step()
    alone, reference = variables(), make(name, noisy)
    run(reference, alone, 5, jit_compile=False)
    for weight, expected in zip(weights, alone, strict=True):
        copies = [copy.numpy() for copy in weight.value.values]
        assert len(copies) == 2
        np.testing.assert_array_equal(copies[0], copies[1])
        np.testing.assert_allclose(copies[0], expected.numpy(), rtol=1e-5, atol=1e-6)
    assert int(optimizer.iterations.numpy()) == 5


def test_base_options_work(name, noisy):
    weights = variables()
    optimizer = make(name, noisy, clipvalue=1e-3, weight_decay=0.1, use_ema=True)
    run(optimizer, weights, 2)
    assert np.isfinite(weights[0].numpy()).all()
    plain = variables()
    run(make(name, noisy), plain, 2)
    assert np.any(plain[0].numpy() != weights[0].numpy())


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf"), "fast"])
def test_bad_learning_rate(name, bad):
    with pytest.raises(ValueError, match="Expected learning_rate .*Received"):
        optimizers.get(name, learning_rate=bad)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("momentum", "momentum", 1.5),
        ("adagrad", "initial_accumulator_value", 0.0),
        ("rmsprop", "rho", 1.0),
        ("adam", "beta_1", 1.0),
        ("radam", "beta_2", 0.0),
        ("radam", "epsilon", -1.0),
        ("swats", "beta_2", 1.0),
        ("swrats", "beta_1", -0.1),
    ],
)
def test_bad_options(name, option, value):
    with pytest.raises(ValueError, match=f"Expected {option} .*Received: {option}="):
        optimizers.get(name, **{option: value})


def test_unknown_names_and_options():
    with pytest.raises(ValueError, match=r"adagrad, adam, gd.*did you mean 'momentum'"):
        optimizers.get("momentun")
    with pytest.raises(ValueError, match="betas"):
        optimizers.get("adam", betas=(0.9, 0.99))
    with pytest.raises(ValueError, match="taken"):
        optimizers.register("adam")
    with pytest.raises(AttributeError, match="Adamax"):
        _ = optimizers.Adamax


def test_momentum_takes_a_drop_at_once():
    # With the rate outside the velocity a rate of 0 stops the variable; Keras's SGD would coast.
    schedule = rate_scheduler.ManualDrop(before=0.1, after=0.0, boundary_step=4)
    weight = keras.Variable(0.0)
    optimizer = optimizers.get("momentum", learning_rate=schedule)
    optimizer.build([weight])
    seen = []
    for _ in range(7):
        optimizer.apply([tf.constant(-1.0)], [weight])
        seen.append(float(weight.numpy()))
    assert seen[4] > seen[3] and seen[4] == seen[5] == seen[6]


@pytest.mark.parametrize("beta_2", [0.3, 0.6, 0.9, 0.99, 0.999, 0.9999])
def test_rectification_is_accurate_in_float32(beta_2):
    from neural_alignment.optimizers.radam import rectification

    steps = np.unique(np.round(np.logspace(0, 6, 200)))
    ratio, rectified = rectification(tf.constant(steps, tf.float32), beta_2)
    with np.errstate(over="ignore"):
        limit = 2.0 / (1.0 - beta_2) - 1.0
        rho = limit - 2.0 * steps / np.expm1(-steps * np.log(beta_2))
    far = np.abs(rho - 5.0) > 1e-4
    np.testing.assert_array_equal(rectified.numpy()[far], rho[far] >= 5.0)
    on = rectified.numpy()
    exact = np.sqrt(
        (rho - 4)
        * (rho - 2)
        * limit
        / np.where(on, (limit - 4) * (limit - 2) * rho, 1.0)
        * np.where(on, 1.0, 0.0)
    )
    np.testing.assert_allclose(ratio.numpy()[on], exact[on], rtol=3e-5)
    np.testing.assert_array_equal(ratio.numpy()[~on], 1.0)


def test_swats_switches_each_variable_by_itself():
    weights = [keras.Variable(np.ones(3), name="steady"), keras.Variable(np.ones(3), name="wild")]
    optimizer = optimizers.get("swats", learning_rate=1e-3, epsilon=1e-4)
    optimizer.build(weights)
    random = np.random.default_rng(0)
    for _ in range(5):
        wild = tf.constant(1e-3 * random.normal(size=3), tf.float32)
        optimizer.apply([tf.constant([1.0, -1.0, 1.0]), wild], weights)
    assert [float(phase.numpy()) for phase in optimizer.phases] == [1.0, 0.0]
    # Now the rate no longer counts for the one that has switched.
    optimizer.learning_rate = 0.0
    before = [weight.numpy() for weight in weights]
    optimizer.apply([tf.ones(3), tf.ones(3)], weights)
    assert np.all(weights[0].numpy() != before[0])
    np.testing.assert_array_equal(weights[1].numpy(), before[1])
