"""The same seed gives the same bits; TensorFlow leaves no read and update without an order."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from neural_alignment import alignments, layers, optimizers
from neural_alignment.data.arrays import ArrayDataset
from neural_alignment.training.loop import Plan, Trainer
from neural_alignment.training.step import Step
from tests.training import graphs

# Rules whose R is made of one primitive, or 0, cannot align.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", alignments.AlignmentWarning)
    RULES = [
        *alignments.layer_names(),
        alignments.Mirror(decay_coef=0.0, input_distribution=None),
        alignments.Activation(input_distribution="normal"),
        alignments.KolenPollack(decay_coef=0.0),
    ]
IDS = [rule if isinstance(rule, str) else repr(rule)[:40] for rule in RULES]


def network(rule, dropout: float = 0.0) -> keras.Model:
    """A convolution and two Dense layers on 6x6 images, 4 classes."""
    x = inputs = keras.Input((6, 6, 1))
    x = layers.Conv2D(3, 3, activation="relu", alignment=rule, name="conv")(x)
    x = keras.layers.Flatten()(x)
    x = layers.Dense(5, activation="relu", alignment=rule, name="dense")(x)
    if dropout:
        x = keras.layers.Dropout(dropout)(x)
    return keras.Model(inputs, layers.Dense(4, alignment=rule, name="output")(x))


KERNELS = ("conv", "dense", "output")


def has_loss(rule) -> bool:
    return alignments.get(rule).has_loss


def one(step: tf.Tensor) -> tf.Tensor:
    return tf.ones(())


def batch() -> tuple[tf.Tensor, tf.Tensor]:
    draw = np.random.default_rng(0)
    images = draw.normal(size=(8, 6, 6, 1)).astype("float32")
    return tf.constant(images), tf.constant(draw.integers(0, 4, 8), tf.int32)


INNER = ["gd", *(pytest.param(name, marks=pytest.mark.slow) for name in ("momentum", "adam"))]


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("rule", RULES, ids=IDS)
def test_step_orders_reads_and_updates(rule, inner):
    for second in (False, True):
        if second and not has_loss(rule):
            continue
        keras.utils.set_random_seed(0)
        model = network(rule)
        of_alignment = optimizers.get(inner, learning_rate=0.1) if second else None
        step = Step(model, optimizers.get(inner, learning_rate=0.1), of_alignment, one, one)
        function = tf.function(step, autograph=False)
        optimized = graphs.optimized_graphs(function, *batch(), tf.constant(0))
        updated, pairs = graphs.unordered(optimized)
        assert updated >= len(KERNELS)
        assert pairs == []


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("rule", RULES, ids=IDS)
def test_plain_fit_orders_reads_and_updates(rule, inner):
    keras.utils.set_random_seed(0)
    model = network(rule)
    model.compile(
        optimizer=optimizers.get(inner, learning_rate=0.1),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    data = iter(tf.data.Dataset.from_tensors(batch()).repeat())
    model.make_train_function()
    optimized = graphs.optimized_graphs(model.train_function, data)
    updated, pairs = graphs.unordered(optimized)
    assert updated >= len(KERNELS)
    assert pairs == []


def test_the_check_sees_what_is_not_ordered():
    variable = tf.Variable(tf.ones(3))

    @tf.function(autograph=False)
    def ordered():
        value = variable.read_value()
        variable.assign_sub(value)
        return value * variable.read_value()

    optimized = graphs.optimized_graphs(ordered)
    assert graphs.unordered(optimized) == (1, [])
    for graph in optimized:
        for node in graph.node:
            if node.op == "AssignSubVariableOp":
                node.input[1] = "constant"
                del node.input[2:]
    assert len(graphs.unordered(optimized)[1]) == 1


# ---- bits


def dataset() -> ArrayDataset:
    draw = np.random.default_rng(1)
    images = draw.integers(0, 256, (150, 6, 6, 1)).astype("uint8")
    labels = draw.integers(0, 4, 150)
    return ArrayDataset.from_arrays(
        "noise", (images[:130], labels[:130]), (images[130:], labels[130:]), num_classes=4
    )


def result(seed: int = 0, iterations_per_loop: int = 100, rule="kolen_pollack") -> dict:
    """Weights, slots and the last row of a short run with everything random on."""
    keras.utils.set_random_seed(seed)
    model = network(rule, dropout=0.2)
    inner = (optimizers.get("momentum", learning_rate=0.05), optimizers.get("adam"))
    noisy = [
        optimizers.Noisy(optimizer, variance=1e-3, seed=seed + i)
        for i, optimizer in enumerate(inner)
    ]
    step = Step(model, *noisy, one, one, seed=seed)
    plan = Plan(
        train_batch_size=10, train_epochs=2, seed=seed, iterations_per_loop=iterations_per_loop
    )
    trainer = Trainer(model, step, dataset(), plan, tf.distribute.get_strategy())
    row = trainer.fit()
    values = {name: np.asarray(value) for name, value in trainer.variables().items()}
    return values | {f"row/{name}": np.float64(value) for name, value in row.items()}


def differing(a: dict, b: dict) -> list[str]:
    assert a.keys() == b.keys()
    return [name for name in a if a[name].tobytes() != b[name].tobytes()]


NOISE = alignments.Mirror(input_distribution="normal")


def test_same_seed_same_bits():
    assert differing(result(), result()) == []


def test_chunks_do_not_matter_and_the_seed_does():
    first = result(rule=NOISE)
    assert all(np.isfinite(value).all() for value in first.values())
    assert differing(first, result(rule=NOISE, iterations_per_loop=3)) == []
    other = differing(first, result(seed=1, rule=NOISE))
    assert "model/dense/kernel" in other and "row/loss" in other
    assert {name for name in first if name.startswith("model") and "kernel" in name} <= set(other)
