import contextlib
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from neural_alignment import alignments, optimizers
from neural_alignment.callbacks import AlignmentLosses, GlobalStep
from neural_alignment.layers import Dense
from neural_alignment.optimizers import rate_scheduler
from neural_alignment.training.step import Step


def make(**options):
    return optimizers.RoutedOptimizer(
        optimizers.get("momentum", learning_rate=0.05),
        optimizers.Noisy(optimizers.get("adam", learning_rate=0.01), variance=1e-3),
        **options,
    )


def compiled(optimizer, **options):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            Dense(3, activation="relu", alignment="symmetric", name="a"),
            Dense(2, alignment="symmetric", name="b"),
        ]
    )
    model.compile(optimizer, "mse", **options)
    random = np.random.default_rng(0)
    x = random.normal(size=(24, 4)).astype("float32")
    return model, x, x[:, :2]


def fit(model, x, y, epochs):
    return model.fit(x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=0)


def everything(model):
    return [variable.numpy() for variable in [*model.variables, *model.optimizer.variables]]


def test_each_optimizer_gets_its_variables():
    model, x, y = compiled(make(), run_eagerly=True)
    fit(model, x, y, 1)
    routed = model.optimizer
    paths = [
        [variable.path for variable in one._trainable_variables]
        for one in (routed.optimizer, routed.alignment_optimizer)
    ]
    assert [len(some) for some in paths] == [4, 2]
    assert all("backward_kernel" in path for path in paths[1])
    assert not any("backward_kernel" in path for path in paths[0])
    for one in (routed, routed.optimizer, routed.alignment_optimizer):
        assert int(one.iterations.numpy()) == 3


def test_equals_two_optimizers_by_hand():
    model, x, y = compiled(make(), run_eagerly=True)
    fit(model, x, y, 2)
    other, *_ = compiled("sgd", run_eagerly=True)
    backward = [v for v in other.trainable_variables if v.path.endswith("backward_kernel")]
    forward = [v for v in other.trainable_variables if not v.path.endswith("backward_kernel")]
    nested = make()
    pairs = [(nested.optimizer, forward), (nested.alignment_optimizer, backward)]
    for batch in [0, 8, 16] * 2:
        with tf.GradientTape(persistent=True) as tape:
            outputs = other(x[batch : batch + 8], training=True)
            loss = tf.reduce_mean((outputs - y[batch : batch + 8]) ** 2) + sum(other.losses)
        for optimizer, variables in pairs:
            optimizer.apply(tape.gradient(loss, variables), variables)
    for got, expected in zip(model.variables, other.variables, strict=True):
        np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=1e-5, atol=1e-7)


def test_xla_fit_equals_eager_fit():
    values = []
    for options in ({"run_eagerly": True}, {"jit_compile": True}):
        model, x, y = compiled(make(), **options)
        fit(model, x, y, 1)
        values.append(everything(model))
    for got, expected in zip(*values, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_saving_and_resuming_equals_not_stopping(tmp_path):
    model, x, y = compiled(make(), jit_compile=False)
    fit(model, x, y, 1)
    model.save(tmp_path / "model.keras")
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    path = checkpoint.write(str(tmp_path / "checkpoint"))
    fit(model, x, y, 1)

    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, optimizers.RoutedOptimizer)
    fit(loaded, x, y, 1)
    restored, *_ = compiled(make(), jit_compile=False)
    restored.optimizer.build(restored.trainable_variables)
    reader = tf.train.Checkpoint(model=restored, optimizer=restored.optimizer)
    reader.read(path).assert_consumed()
    fit(restored, x, y, 1)
    for again in (loaded, restored):
        for got, expected in zip(everything(again), everything(model), strict=True):
            np.testing.assert_array_equal(got, expected)


def test_every_slot_is_among_the_variables():
    model, x, y = compiled(make(), run_eagerly=True)
    fit(model, x, y, 1)
    # Step counts of the three wrappers and the rule inside; learning rates; 4 velocities; 2 x 2
    # moments.
    assert len(model.optimizer.variables) == 4 + 2 + 4 + 4


def test_config_round_trip():
    optimizer = make(patterns=("head", "backward"), loss_rate=0.5)
    serialized = keras.saving.serialize_keras_object(optimizer)
    again = keras.saving.deserialize_keras_object(serialized)
    assert again.get_config() == optimizer.get_config()
    assert again.patterns == ("head", "backward")


def test_learning_rate_is_the_first_ones():
    optimizer = make()
    optimizer.learning_rate = 0.5
    assert float(optimizer.learning_rate) == float(optimizer.optimizer.learning_rate) == 0.5
    assert float(optimizer.alignment_optimizer.learning_rate) == pytest.approx(0.01)


def test_loss_scaling_around_it():
    model, x, y = compiled(keras.optimizers.LossScaleOptimizer(make()), jit_compile=False)
    before = everything(model)
    fit(model, x, y, 1)
    assert all(np.isfinite(value).all() for value in everything(model))
    assert any(np.any(a != b) for a, b in zip(before, everything(model), strict=False))


def test_two_replicas(mirrored):
    with mirrored.scope():
        model, x, y = compiled(make(), jit_compile=False)
    fit(model, x, y, 1)
    reference, *_ = compiled(make(), run_eagerly=True)
    for batch in (0, 8, 16):
        reference.train_on_batch(x[batch : batch + 8], y[batch : batch + 8])
    for got, expected in zip(model.variables, reference.variables, strict=True):
        np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)


STEPS = {
    "both at once": {},
    "delay": {"delay_epochs": 1.0, "steps_per_epoch": 2},
    "alternation": {"alternate_step_freq": 1},
    "delay and alternation": {
        "delay_epochs": 1.0,
        "steps_per_epoch": 2,
        "alternate_step_freq": 2,
        "value": 0.5,
    },
}
with warnings.catch_warnings():
    warnings.simplefilter("ignore", alignments.AlignmentWarning)
    # On the layer's own input: noise is drawn otherwise in `fit`.
    RULES = {
        "symmetric": alignments.Symmetric(),
        "activation": alignments.Activation(
            input_distribution=None, use_bias_forward=True, amp_coef=0.1
        ),
        "information": alignments.Information(input_distribution=None, amp_coef=0.1),
    }


@pytest.mark.parametrize(
    ("rule", "timing"),
    [
        # Every timing with one rule, the others of them slow tests.
        pytest.param(rule, timing, marks=() if rule == "information" else pytest.mark.slow)
        for rule in RULES
        for timing in STEPS
    ],
)
def test_rates_in_fit_give_the_numbers_of_the_trainers_step(rule, timing):
    def make():
        keras.utils.set_random_seed(1)
        decay = keras.regularizers.L2(1e-3)
        return keras.Sequential(
            [
                keras.Input((4,)),
                Dense(3, "tanh", alignment=RULES[rule], kernel_regularizer=decay),
                Dense(2, alignment=RULES[rule]),
            ]
        )

    def pair():
        schedule = rate_scheduler.loss_learning_rate(0.1, 2, warmup_epochs=1.0, drops=(2.0,))
        return (
            optimizers.get("momentum", learning_rate=schedule),
            optimizers.get("adam", learning_rate=0.01),
        )

    rates = {
        "loss_rate": rate_scheduler.LossRate(**STEPS[timing]),
        "alignment_rate": rate_scheduler.AlignmentRate(**STEPS[timing]),
    }
    x = np.random.default_rng(0).normal(size=(6, 8, 4)).astype("float32")
    labels = np.arange(48).reshape(6, 8) % 2
    ours, theirs = make(), make()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ours.compile(optimizers.RoutedOptimizer(*pair(), **rates), loss)
    ours.fit(x.reshape(-1, 4), labels.ravel(), batch_size=8, shuffle=False, verbose=0)
    step = Step(theirs, *pair(), **rates)
    for number, (images, targets) in enumerate(zip(x, labels, strict=True)):
        step(tf.constant(images), tf.constant(targets), tf.constant(number))
    for got, expected in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)


def test_the_clock_and_r_on_two_replicas(mirrored):
    """As on one device: R is a mean over replicas of the same kernels, steps count once."""
    logged = []
    for scope in (mirrored.scope(), contextlib.nullcontext()):
        with scope:
            schedule = rate_scheduler.ManualDrop(before=1e-3, after=0.0, boundary_step=1)
            keras.utils.set_random_seed(1)
            layer = Dense(2, alignment=alignments.Symmetric(self_coef=schedule), name="only")
            model = keras.Sequential([keras.Input((4,)), layer])
            pair = (optimizers.get(name, learning_rate=0.0) for name in ("gd", "momentum"))
            model.compile(optimizers.RoutedOptimizer(*pair), "mse", jit_compile=False)
        x = np.random.default_rng(0).normal(size=(24, 4)).astype("float32")
        history = model.fit(
            x, x[:, :2], batch_size=8, epochs=2, shuffle=False, verbose=0,
            callbacks=[GlobalStep(), AlignmentLosses(by_layer=True)],
        ).history  # fmt: skip
        logged.append(history)
    assert set(logged[0]) == {"loss", "alignment_loss", "alignment_loss/only"}
    for key in ("alignment_loss", "alignment_loss/only"):  # Keras 3.8 logs another J on replicas
        np.testing.assert_allclose(logged[0][key], logged[1][key], rtol=1e-4)


def test_bad_arguments():
    one, other = optimizers.get("gd"), optimizers.get("adam")
    with pytest.raises(ValueError, match="two different"):
        optimizers.RoutedOptimizer(one, one)
    with pytest.raises(ValueError, match="two different"):
        optimizers.RoutedOptimizer(one, "adam")
    with pytest.raises(ValueError, match="regular expressions"):
        optimizers.RoutedOptimizer(one, other, patterns=("(",))
    with pytest.raises(ValueError, match="sequence of patterns"):
        optimizers.RoutedOptimizer(one, other, patterns="backward")
    with pytest.raises(ValueError, match="loss_scale_factor"):
        optimizers.RoutedOptimizer(optimizers.get("gd", loss_scale_factor=2.0), other)
    weights = [keras.Variable(1.0, name=name) for name in ("kernel", "backward_kernel")]
    routed = optimizers.RoutedOptimizer(one, other)
    routed.build(weights)
    with pytest.raises(ValueError, match="gradient for at least one"):
        routed.apply([None, None], weights)
