import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from neural_alignment.models.normalization import BatchNormalization

EPSILON = 1e-5
SHAPE = (4, 3, 5, 2)


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(1.0, 2.0, SHAPE).astype("float32")


def built(**options):
    layer = BatchNormalization(momentum=0.9, epsilon=EPSILON, **options)
    layer.build((None, *SHAPE[1:]))
    return layer


def moments(x):
    x = x.astype("float64")
    return x.mean((0, 1, 2)), x.var((0, 1, 2))


@pytest.mark.parametrize(("unbiased", "ddof"), [(True, 1), (False, 0)])
def test_moving_statistics(x, unbiased, ddof):
    layer = built(unbiased_variance=unbiased)
    mean, variance = np.zeros(2), np.ones(2)
    for batch in (x, 2 * x + 1):
        layer(batch, training=True)
        values = batch.astype("float64").reshape(-1, 2)
        mean = 0.9 * mean + 0.1 * values.mean(0)
        variance = 0.9 * variance + 0.1 * values.var(0, ddof=ddof)
    np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-5)


def test_one_value_a_channel_gives_no_infinite_variance():
    layer = BatchNormalization()
    layer(np.ones((1, 2), "float32"), training=True)
    assert np.isfinite(layer.moving_variance).all()


def test_training_normalises_by_the_batch(x):
    mean, variance = moments(x)
    expected = (x - mean) / np.sqrt(variance + EPSILON)
    np.testing.assert_allclose(built()(x, training=True), expected, atol=1e-5)


def test_inference_is_stock(x):
    ours, stock = built(), keras.layers.BatchNormalization(momentum=0.9, epsilon=EPSILON)
    stock.build((None, *SHAPE[1:]))
    weights = np.random.default_rng(1).uniform(0.5, 2.0, (4, 2))
    for layer in (ours, stock):
        layer.set_weights(list(weights))
    np.testing.assert_array_equal(ours(x, training=False), stock(x, training=False))


def test_frozen_uses_the_batch_and_changes_nothing(x):
    layer = built(frozen=True)
    mean, variance = moments(x)
    out = layer(x, training=True)
    np.testing.assert_allclose(out, (x - mean) / np.sqrt(variance + EPSILON), atol=1e-5)
    np.testing.assert_array_equal(layer.moving_mean, [0, 0])
    np.testing.assert_array_equal(layer.moving_variance, [1, 1])
    assert layer.trainable_variables == []
    layer.trainable = True
    assert layer.trainable_variables == []
    np.testing.assert_allclose(layer(x, training=False), x / np.sqrt(1 + EPSILON), rtol=1e-5)


def test_keras_own_freezing_normalises_by_the_moving_statistics(x):
    layer = built()
    layer.trainable = False
    np.testing.assert_array_equal(layer(x, training=True), layer(x, training=False))
    np.testing.assert_array_equal(layer.moving_mean, [0, 0])


@pytest.mark.parametrize("axis", [-1, 1])
def test_gradients_and_updates_are_the_same_in_every_mode(x, axis):
    def step(layer, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.square(layer(x, training=True)) * tf.range(2.0))
        gradient = tape.gradient(loss, [x, *(v.value for v in layer.trainable_variables)])
        return [*gradient, layer.moving_mean.value, layer.moving_variance.value]

    x = tf.constant(x) if axis == -1 else tf.constant(np.moveaxis(x, -1, 1).repeat(2, -1)[..., :2])
    results = []
    for wrap in (lambda f: f, tf.function, tf.function(jit_compile=True)):
        layer = BatchNormalization(axis=axis)
        layer.build(x.shape)
        results.append(wrap(lambda x, layer=layer: step(layer, x))(x))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_statistics_in_float32(x, dtype):
    layer = BatchNormalization(dtype=dtype, momentum=0.0)
    out = layer(tf.cast(1000.0 * x, layer.compute_dtype), training=True)
    assert out.dtype.name == layer.compute_dtype
    assert layer.moving_variance.dtype == "float32"
    assert np.isfinite(out).all()
    assert np.isfinite(layer.moving_variance).all()


def test_config_rebuilds_the_layer():
    layer = BatchNormalization(momentum=0.7, unbiased_variance=False, frozen=True, name="bn")
    again = BatchNormalization.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert (again.unbiased_variance, again.frozen, again.momentum) == (False, True, 0.7)


def test_renorm_is_refused():
    with pytest.raises(ValueError, match="renorm"):
        BatchNormalization(renorm=True)


ON_TWO_REPLICAS = """
import numpy as np, keras, tensorflow as tf
from neural_alignment.models.normalization import BatchNormalization

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
x = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("float32")


def train(layer):
    @tf.function
    def step():
        def replica():
            i = tf.distribute.get_replica_context().replica_id_in_sync_group
            return layer(tf.gather(tf.constant(x), i), training=True)
        return strategy.run(replica)
    return [np.array(v) for v in strategy.experimental_local_results(step())]


with strategy.scope():
    ours = BatchNormalization(unbiased_variance=False, momentum=0.5)
    stock = keras.layers.BatchNormalization(momentum=0.5)
    for layer in (ours, stock):
        layer.build((None, 3))
for a, b in zip(train(ours), train(stock), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
for i, out in enumerate(train(ours)):
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-5)
train(stock)
for a, b in zip(ours.variables, stock.variables, strict=True):
    np.testing.assert_allclose(np.array(a), np.array(b), rtol=1e-5, atol=1e-6)
assert np.abs(np.array(ours.moving_mean)).max() > 0

with strategy.scope():
    together = BatchNormalization(momentum=0.0, synchronized=True)
    together.build((None, 3))
train(together)
values = x.reshape(-1, 3)
np.testing.assert_allclose(np.array(together.moving_mean), values.mean(0), rtol=1e-5, atol=1e-6)
np.testing.assert_allclose(np.array(together.moving_variance), values.var(0, ddof=1), rtol=1e-5)
"""


def test_replicas_use_their_own_batch_as_stock():
    done = subprocess.run([sys.executable, "-c", ON_TWO_REPLICAS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
