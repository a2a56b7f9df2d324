import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from neural_alignment.optimizers import rate_scheduler as rs

EXAMPLES = {
    rs.Constant: {"value": 0.3},
    rs.LearningRate: {
        "value": 0.2,
        "steps_per_epoch": 7,
        "warmup_epochs": 2.5,
        "drops": (4.0, 6.0),
        "drop_factor": 0.5,
        "delay_epochs": 1.0,
        "value_during_delay": 0.05,
        "drop_offset_epochs": 1.5,
        "stretch": 2,
    },
    rs.ManualDrop: {"before": 0.1, "after": 0.01, "boundary_step": 12},
    rs.Coefficient: {
        "value": 0.5,
        "steps_per_epoch": 7,
        "train_epochs": 10.0,
        "start": 0.1,
        "stop": 0.75,
        "cycle": 3.0,
        "schedule_rate": -0.4,
        "schedule_type": "exponential",
    },
    rs.LossRate: {
        "value": 2.0,
        "steps_per_epoch": 7,
        "delay_epochs": 1.5,
        "alternate_step_freq": 2,
        "drops": (3.0, 8.0),
        "drop_factor": 0.1,
    },
    rs.AlignmentRate: {
        "value": 3.0,
        "steps_per_epoch": 7,
        "delay_epochs": 1.5,
        "alternate_step_freq": 2,
        "drops": (3.0, 8.0),
        "drop_factor": 0.1,
    },
    rs.Piecewise: {"steps_per_epoch": 7, "epochs": (0.0, 1.0, 2.5), "values": (0.03, -1.0, 9e-5)},
    rs.CosineDecay: {
        "value": 0.3,
        "steps_per_epoch": 7,
        "train_epochs": 12.0,
        "warmup_epochs": 2.5,
        "final": 0.02,
        "delay_epochs": 1.5,
        "value_during_delay": 0.1,
    },
}
STEPS = np.arange(120)


def expected(schedule):
    """The values at STEPS, in float64, straight from the definitions."""
    c = schedule
    if isinstance(c, rs.Constant):
        return np.full(len(STEPS), c.value)
    if isinstance(c, rs.ManualDrop):
        return np.where(STEPS <= c.boundary_step, c.before, c.after)
    epoch = STEPS / c.steps_per_epoch
    if isinstance(c, rs.Piecewise):
        return np.array(c.values)[np.searchsorted(c.epochs, epoch, side="right") - 1]
    if isinstance(c, rs.CosineDecay):
        e = np.maximum(epoch - c.delay_epochs, 0.0)
        fall = (e - c.warmup_epochs) / (c.train_epochs - c.delay_epochs - c.warmup_epochs)
        cosine = (1.0 + np.cos(np.pi * np.clip(fall, 0.0, 1.0))) / 2.0
        value = c.final + (c.value - c.final) * cosine
        value = np.where(e < c.warmup_epochs, c.value * e / c.warmup_epochs, value)
        return np.where(epoch < c.delay_epochs, c.value_during_delay, value)
    if isinstance(c, rs.LearningRate):
        e = np.maximum(epoch - c.delay_epochs, 0.0)
        w = c.warmup_epochs * c.stretch
        value = c.value * np.minimum(e / w, 1.0)
        for k, drop in enumerate(c.drops, start=1):
            at = drop * c.stretch + c.drop_offset_epochs
            value = np.where(e >= at, c.value * c.drop_factor**k, value)
        return np.where(epoch < c.delay_epochs, c.value_during_delay, value)
    if isinstance(c, rs.Coefficient):
        p = np.maximum(epoch - c.start * c.train_epochs, 0.0)
        p = c.cycle / 2 - np.abs(p % c.cycle - c.cycle / 2)
        inside = (epoch >= c.start * c.train_epochs) & (epoch <= c.stop * c.train_epochs)
        return np.where(inside, c.value * np.exp(c.schedule_rate * p), 0.0)
    value = np.full(len(STEPS), c.value)
    for k, drop in enumerate(c.drops, start=1):
        value = np.where(epoch >= drop, c.value * c.drop_factor**k, value)
    aligns = STEPS % (c.alternate_step_freq + 1) == 0
    delayed = epoch < c.delay_epochs
    on = aligns | delayed if isinstance(c, rs.AlignmentRate) else ~(aligns | delayed)
    return np.where(on, value, 0.0)


@pytest.fixture(params=EXAMPLES, ids=lambda cls: cls.__name__)
def schedule(request):
    return request.param(**EXAMPLES[request.param])


def test_every_schedule_is_in_the_table():
    classes = {
        value
        for value in vars(rs).values()
        if isinstance(value, type) and issubclass(value, rs.Schedule)
    }
    assert classes - {rs.Schedule, rs._LossRate} == set(EXAMPLES)


def test_closed_form(schedule):
    values = [schedule(int(step)) for step in STEPS]
    assert all(value.dtype == tf.float32 and value.shape == () for value in values)
    np.testing.assert_allclose(values, expected(schedule), rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "int64", "uint32"])
def test_graph_and_xla_agree_for_every_integer_type(schedule, dtype):
    graph = tf.function(schedule.__call__)
    compiled = tf.function(schedule.__call__, jit_compile=True)
    for step in (0, 7, 10, 11, 60, 119):
        tensor = tf.constant(step, dtype)
        reference = float(schedule(step))
        assert float(graph(tensor)) == reference
        assert float(compiled(tensor)) == pytest.approx(reference, rel=1e-6, abs=1e-12)
    assert graph.experimental_get_tracing_count() == 1


def test_config_holds_every_argument_and_rebuilds(schedule):
    config = schedule.get_config()
    assert config == EXAMPLES[type(schedule)]
    assert set(config) == {field.name for field in dataclasses.fields(schedule)}
    serialized = keras.saving.serialize_keras_object(schedule)
    assert serialized["registered_name"] == f"neural_alignment>{type(schedule).__name__}"
    assert keras.saving.deserialize_keras_object(serialized) == schedule


def test_works_with_a_variable_and_as_an_optimizers_rate():
    schedule = rs.LearningRate(value=1.0, steps_per_epoch=2, warmup_epochs=2.0, drops=(3.0,))
    assert float(schedule(keras.Variable(3, dtype="int64"))) == pytest.approx(0.75)
    optimizer = keras.optimizers.SGD(schedule)
    weight = keras.Variable(0.0)
    optimizer.build([weight])
    for _ in range(7):
        optimizer.apply([tf.constant(-1.0)], [weight])
    assert float(weight.numpy()) == pytest.approx(0.0 + 0.25 + 0.5 + 0.75 + 1.0 + 1.0 + 0.1)


def test_loss_and_alignment_rates_share_the_steps():
    loss = rs.LossRate(steps_per_epoch=10, delay_epochs=1.0, alternate_step_freq=3)
    align = rs.AlignmentRate(steps_per_epoch=10, delay_epochs=1.0, alternate_step_freq=3)
    both = np.array([(float(loss(step)), float(align(step))) for step in range(50)])
    np.testing.assert_array_equal(both.sum(axis=1), 1.0)
    assert both[:10, 1].all() and both[10:, 1].sum() == 10  # 12, 16, ..., 48


def test_simultaneous_without_alternation():
    assert float(rs.LossRate()(0)) == float(rs.AlignmentRate()(0)) == 1.0
    assert float(rs.LossRate(steps_per_epoch=2, delay_epochs=1.0)(1)) == 0.0


def test_delay_of_zero_keeps_the_warmup_and_a_delay_drops_it():
    assert float(rs.alignment_learning_rate(0.1, 10, delay_epochs=0.0)(0)) == 0.0
    delayed = rs.alignment_learning_rate(0.1, 10, delay_epochs=2.0, alternate_step_freq=1)
    assert float(delayed(0)) == pytest.approx(0.1)
    assert float(delayed(619)) == pytest.approx(0.1)
    assert float(delayed(620)) == pytest.approx(0.01)  # (30 * 2 + 2) epochs of 10 steps


def test_one_optimizer_trains_during_the_delay():
    two = rs.loss_learning_rate(0.1, 10, delay_epochs=2.0)
    one = rs.loss_learning_rate(0.1, 10, delay_epochs=2.0, trains_alignment=True)
    assert float(two(19)) == 0.0 and float(one(19)) == pytest.approx(0.1)
    for step in (20, 30, 100, 320):
        assert float(one(step)) == float(two(step))


def test_warmup_longer_than_the_first_drop_is_cut():
    schedule = rs.LearningRate(value=1.0, steps_per_epoch=10, warmup_epochs=40.0)
    assert float(schedule(299)) == pytest.approx(299 / 400)
    assert float(schedule(300)) == pytest.approx(0.1)


def test_a_fraction_that_rounds_up_costs_no_step():
    # 0.7 * 10 * 10 is 70.00000000000001 in floating point.
    schedule = rs.Coefficient(steps_per_epoch=10, train_epochs=0.7 * 100 / 7, start=0.7)
    assert float(schedule(69)) == 0.0 and float(schedule(70)) == 1.0


def test_a_growing_coefficient_stays_finite_long_after_its_stop():
    schedule = rs.Coefficient(
        steps_per_epoch=1,
        train_epochs=10.0,
        stop=0.5,
        schedule_rate=3.0,
        schedule_type="exponential",
    )
    assert float(schedule(10**8)) == 0.0
    with tf.GradientTape() as tape:
        x = tf.constant(2.0)
        tape.watch(x)
        loss = x * schedule(10**8)
    assert float(tape.gradient(loss, x)) == 0.0


def test_steps_per_epoch_round_down():
    assert rs.steps_per_epoch(1_281_167, 256) == 5004
    assert isinstance(rs.steps_per_epoch(100, 32), int)
    with pytest.raises(ValueError, match="examples"):
        rs.steps_per_epoch(10, 32)


def test_rescaled():
    assert rs.rescaled(0.125, 2048) == 1.0
    assert rs.rescaled(1.0, 256, 2048) == 0.125


def test_manual_drop():
    schedule = rs.manual_learning_rate(0.2, 2, boundary_step=30)
    assert float(schedule(30)) == pytest.approx(0.02)
    assert float(schedule(31)) == pytest.approx(0.002)
    assert float(rs.manual_learning_rate(0.2, 0)(10**6)) == pytest.approx(0.2)
    for drop, boundary in ((0, 5), (1, None), (-1, 5)):
        with pytest.raises(ValueError, match="drop"):
            rs.manual_learning_rate(0.2, drop, boundary_step=boundary)


BAD = [
    (rs.Constant, {"value": float("nan")}, "value"),
    (rs.Constant, {"value": True}, "value"),
    (rs.LearningRate, {"value": -0.1}, "value"),
    (rs.LearningRate, {"value": float("inf")}, "value"),
    (rs.LearningRate, {"warmup_epochs": -1.0}, "warmup_epochs"),
    (rs.LearningRate, {"delay_epochs": -1.0}, "delay_epochs"),
    (rs.LearningRate, {"drop_offset_epochs": -1.0}, "drop_offset_epochs"),
    (rs.LearningRate, {"value_during_delay": -1.0}, "value_during_delay"),
    (rs.LearningRate, {"steps_per_epoch": 0}, "steps_per_epoch"),
    (rs.LearningRate, {"steps_per_epoch": 2.5}, "steps_per_epoch"),
    (rs.LearningRate, {"stretch": 0}, "stretch"),
    (rs.LearningRate, {"drops": (30, 20)}, "drops"),
    (rs.LearningRate, {"drops": (0,)}, "drops"),
    (rs.ManualDrop, {"boundary_step": -1}, "boundary_step"),
    (rs.ManualDrop, {"after": float("nan")}, "after"),
    (rs.Coefficient, {"value": float("inf")}, "value"),
    (rs.Coefficient, {"cycle": 0.0}, "cycle"),
    (rs.Coefficient, {"cycle": -2.0}, "cycle"),
    (rs.Coefficient, {"start": 0.8, "stop": 0.5}, "start <= stop"),
    (rs.Coefficient, {"start": -0.1}, "start"),
    (rs.Coefficient, {"stop": 1.5}, "stop"),
    (rs.Coefficient, {"train_epochs": 0.0}, "train_epochs"),
    (rs.Coefficient, {"schedule_rate": float("nan")}, "schedule_rate"),
    (rs.Coefficient, {"schedule_type": "cyclic"}, "linear, exponential"),
    (rs.Coefficient, {"schedule_type": None}, "schedule_type"),
    (rs.Piecewise, {"epochs": (0.5, 1.0, 2.0)}, "begin with 0"),
    (rs.Piecewise, {"epochs": (), "values": ()}, "begin with 0"),
    (rs.Piecewise, {"epochs": (0.0, 2.0, 1.0)}, "increasing"),
    (rs.Piecewise, {"epochs": (0.0, 0.0, 1.0)}, "epochs"),
    (rs.Piecewise, {"epochs": (0.0, 1.0)}, "a value for each"),
    (rs.Piecewise, {"values": (1.0, float("nan"), 1.0)}, "values"),
    (rs.Piecewise, {"steps_per_epoch": 0}, "steps_per_epoch"),
    (rs.CosineDecay, {"value": -1.0}, "value"),
    (rs.CosineDecay, {"final": float("nan")}, "final"),
    (rs.CosineDecay, {"value_during_delay": -1.0}, "value_during_delay"),
    (rs.CosineDecay, {"train_epochs": 4.0}, "train_epochs"),
    (rs.CosineDecay, {"train_epochs": 0.0}, "train_epochs"),
    (rs.CosineDecay, {"steps_per_epoch": 1.5}, "steps_per_epoch"),
    (rs.LossRate, {"value": -1.0}, "value"),
    (rs.LossRate, {"alternate_step_freq": 0}, "alternate_step_freq"),
    (rs.AlignmentRate, {"delay_epochs": float("nan")}, "delay_epochs"),
]


@pytest.mark.parametrize(("cls", "change", "named"), BAD)
def test_bad_arguments(cls, change, named):
    with pytest.raises(ValueError, match=f"Expected .*{named}.*Received"):
        cls(**(EXAMPLES[cls] | change))
