"""Inputs that users bring: integers, sparse ones, masks, an empty batch, a layer called often."""

import keras
import numpy as np
import pytest

from neural_alignment import layers
from neural_alignment.layers import training_step
from tests.backends.gradients import gradients
from tests.layers.conformance import PLAIN_RULES, RULES, draw, rule

pytestmark = pytest.mark.backend

ops = keras.ops
PROJECTING = [name for name in RULES if rule(name).has_loss and rule(name).compares_projections]


def numpy(x):
    return keras.ops.convert_to_numpy(x)


@pytest.mark.parametrize("variant", PLAIN_RULES)
@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_whole_numbers_are_taken_as_stock_layers_take_them(variant, dtype, policy):
    x = np.arange(12).reshape(4, 3).astype(dtype)
    stock = keras.layers.Dense(2, dtype=policy)
    stock.build(x.shape)
    layer = layers.Dense(2, alignment=variant, dtype=policy)
    layer.build(x.shape)
    layer.kernel.assign(numpy(stock.kernel))
    expected = stock(ops.convert_to_tensor(x))
    found = layer(ops.convert_to_tensor(x), training=True)
    assert keras.backend.standardize_dtype(found.dtype) == keras.backend.standardize_dtype(
        expected.dtype
    )
    np.testing.assert_allclose(
        numpy(ops.cast(found, "float32")), numpy(ops.cast(expected, "float32")), rtol=1e-2, atol=0.1
    )
    assert all(np.isfinite(numpy(loss)) for loss in layer.losses)


@pytest.mark.parametrize("variant", ["feedback", "kolen_pollack", "activation", "product"])
def test_whole_numbers_train(variant):
    x = np.arange(12).reshape(4, 3).astype("int32")
    inputs = keras.Input((3,), dtype="int32")
    model = keras.Model(inputs, layers.Dense(2, alignment=variant)(inputs))
    model.compile("sgd", "mse")
    before = numpy(model.layers[1].kernel)
    model.fit(x, np.zeros((4, 2)), verbose=0)
    assert np.all(np.isfinite(numpy(model.layers[1].kernel)))
    assert not np.array_equal(numpy(model.layers[1].kernel), before)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras has no sparse tensors there")
@pytest.mark.parametrize("variant", PLAIN_RULES)
def test_sparse_inputs_give_what_dense_ones_give(variant):
    dense = (draw((4, 3)) > 0.5).astype("float32")
    layer = layers.Dense(2, alignment=variant)
    layer.build(dense.shape)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        sparse = tf.sparse.from_dense(dense)
    else:
        import jax.experimental.sparse

        sparse = jax.experimental.sparse.BCOO.fromdense(dense)
    np.testing.assert_allclose(numpy(layer(sparse)), numpy(layer(dense)), rtol=1e-6)

    inputs = keras.Input((3,), sparse=True)
    model = keras.Model(inputs, layers.Dense(2, alignment=variant)(inputs))
    model.compile("sgd", "mse")
    model.train_on_batch(sparse, np.zeros((4, 2)))
    assert np.all(np.isfinite(numpy(model.layers[-1].kernel)))


def _padded(lengths, size, features, seed=0):
    x = draw((len(lengths), size, features), seed)
    mask = np.arange(size)[None, :] < np.array(lengths)[:, None]
    return x, mask


def _loss(layer, x, mask=None):
    x = ops.convert_to_tensor(x)
    if mask is not None:
        x._keras_mask = ops.convert_to_tensor(mask)
    with training_step(3, 5) as active:
        layer(x, training=True)
    return float(numpy(active.losses[0][1]))


# A rule of one's own may take another mean over positions.
OF_PROJECTIONS = [v for v in PROJECTING if hasattr(rule(v), "batch_center_backward_input")]


@pytest.mark.parametrize("variant", [v for v in OF_PROJECTIONS if not rule(v).is_random])
def test_padded_steps_are_left_out(variant):
    """R of padded sequences is the mean of each sequence's own, without its padding."""
    layer = layers.Dense(
        4, activation="tanh", bias_initializer="ones", alignment=rule(variant), name="padded"
    )
    lengths = (5, 2, 3)
    x, mask = _padded(lengths, 5, 3)
    layer.build(x.shape)
    options = rule(variant)
    if options.batch_center_backward_input or options.batch_center_forward_output:
        lengths = (3, 3, 3)  # batch means are those of a place, over sequences that reach it
        x, mask = _padded(lengths, 5, 3)
        expected = _loss(layer, x[:, :3])
    else:
        parts = [_loss(layer, x[i : i + 1, :n]) for i, n in enumerate(lengths)]
        expected = np.mean(parts)
        if getattr(options, "average_positions", False):
            lengths = (3, 3, 3)
            x, mask = _padded(lengths, 5, 3)
            expected = _loss(layer, x[:, :3])
    found = _loss(layer, x, mask)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert abs(_loss(layer, x) - expected) > 1e-4 * abs(expected)  # the padding would be in it


@pytest.mark.parametrize("variant", ["activation", "mirror", "information"])
def test_masks_of_a_model_reach_the_layers(variant):
    tokens = np.array([[3, 1, 2, 0, 0], [4, 0, 0, 0, 0]])
    inputs = keras.Input((5,), dtype="int32")
    embedded = keras.layers.Embedding(6, 3, mask_zero=True)(inputs)
    # Summed over positions: an average over those of all sequences is not the mean of each one's.
    summed = {"name": variant, "input_distribution": None, "average_positions": False}
    layer = layers.Dense(4, activation="relu", alignment=summed)
    model = keras.Model(inputs, layer(embedded))
    with training_step(0) as active:
        model(tokens, training=True)
    vectors = numpy(model.layers[1](tokens))
    expected = np.mean([_loss(layer, vectors[:1, :3]), _loss(layer, vectors[1:, :1])])
    np.testing.assert_allclose(numpy(active.losses[0][1]), expected, rtol=1e-5)


# Shapes of inputs, and whether they have a mask, which then leaves all out.
NOTHING = {
    "empty": ((0, 3), False),
    "empty, masked": ((0, 5, 3), True),
    "masked": ((2, 5, 3), True),
}


@pytest.mark.parametrize("variant", PROJECTING)
@pytest.mark.parametrize("name", NOTHING)
def test_a_batch_of_nothing_has_a_finite_loss(name, variant):
    """As a replica has that gets none of a short batch's examples, or padding alone."""
    shape, masked = NOTHING[name]
    layer = layers.Dense(4, activation="tanh", alignment=rule(variant))
    layer.build((None, *shape[1:]))
    mask = np.zeros(shape[:-1], bool) if masked else None
    assert np.isfinite(_loss(layer, np.zeros(shape, "float32"), mask))
    x = {"x": np.zeros(shape, "float32"), "b": layer.backward_kernel}

    def r(values):
        inputs = values["x"]
        with training_step(3, 5) as active:
            layer(inputs, training=True, mask=None if mask is None else ops.convert_to_tensor(mask))
        return active.losses[0][1], {}

    assert np.all(np.isfinite(gradients(r, x)[2]["b"]))


def _calls(layer, way, x):
    """Calls a layer several times in one step; gives the inputs of each call."""
    if way == "shared":
        inputs = [keras.Input(x.shape[2:], batch_size=x.shape[0]) for _ in range(x.shape[1])]
        model = keras.Model(inputs, keras.layers.Add()([layer(one) for one in inputs]))
        return model, [x[:, i] for i in range(x.shape[1])]
    inputs = keras.Input(x.shape[1:], batch_size=x.shape[0])
    return keras.Model(inputs, keras.layers.TimeDistributed(layer)(inputs)), x


@pytest.mark.parametrize("way", ["shared", "time_distributed"])
@pytest.mark.parametrize("variant", [v for v in RULES if rule(v).has_loss])
def test_the_loss_is_the_layers_not_the_calls(way, variant):
    """Of several calls in a step the mean counts; in a step of ours and in Keras's losses."""
    x = draw((2, 5, 3))
    layer = layers.Dense(4, activation="tanh", alignment=rule(variant))
    model, inputs = _calls(layer, way, x)
    with training_step(3, 5) as active:
        model(inputs, training=True)
    ((_, found),) = active.losses
    singles = [_loss(layer, x[:, i]) for i in range(5)]
    np.testing.assert_allclose(numpy(found), np.mean(singles), rtol=1e-5, atol=1e-6)
    if "noise" in variant or rule(variant).is_random:
        return  # there each call draws anew
    model(inputs, training=True)
    (added,) = model.losses
    np.testing.assert_allclose(numpy(added), np.mean(singles), rtol=1e-5, atol=1e-6)
    model(inputs, training=True)
    assert len(model.losses) == 1


@pytest.mark.parametrize("steps", [3, None])
@pytest.mark.parametrize("nested", [False, True])
def test_masked_steps_of_a_time_distributed_layer_are_left_out(nested, steps):
    """Also where the wrapper calls a model, and over a number of steps that is not known before."""
    mask = np.array([[True, True, False], [True, False, False], [True, True, True]])
    x = draw((3, 3, 2)) * mask[..., None]
    layer = layers.Dense(4, activation="tanh", alignment=rule("activation"))
    wrapped = keras.Sequential([keras.Input((2,)), layer]) if nested else layer
    inputs = keras.Input((steps, 2))
    masked = keras.layers.Masking()(inputs)
    model = keras.Model(inputs, keras.layers.TimeDistributed(wrapped)(masked))
    with training_step(3, 5) as active:
        model(x, training=True)
    expected = np.mean([_loss(layer, x[mask[:, i], i]) for i in range(3)])
    np.testing.assert_allclose(numpy(active.losses[0][1]), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("variant", ["symmetric", "activation", "kolen_pollack"])
def test_the_loss_of_a_shared_layer_in_fit(variant):
    x = draw((2, 5, 3))
    layer = layers.Dense(4, activation="tanh", alignment=rule(variant))
    model, inputs = _calls(layer, "time_distributed", x)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    total = model.fit(inputs, np.zeros((2, 5, 4)), batch_size=2, verbose=0).history["loss"][0]
    task = np.mean(numpy(model(inputs)) ** 2)
    expected = np.mean([_loss(layer, x[:, i]) for i in range(5)])
    np.testing.assert_allclose(total - task, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's recompute_grad")
@pytest.mark.parametrize("variant", RULES)
def test_recomputing_gradients_is_exact_or_refused(variant):
    import tensorflow as tf

    layer = layers.Dense(4, activation="tanh", alignment=rule(variant))
    x = tf.constant(draw((2, 3)))
    layer.build(x.shape)

    @tf.recompute_grad
    def recomputed(x):
        return layer(x, training=True)

    if layer.alignment.has_loss or layer.alignment.updates_itself:
        refused = r"recompute_grad.*a rule without either"
        with tf.GradientTape(), pytest.raises(ValueError, match=refused):
            recomputed(x)
        recomputed_inference = tf.recompute_grad(lambda x: layer(x, training=False))
        assert recomputed_inference(x).shape == (2, 4)
        return
    kernel = layer.kernel.value
    if layer.alignment.is_random:
        layer.noise_state.assign([3, 0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(layer(x, training=not layer.alignment.is_random) ** 2)
    expected = tape.gradient(total, [x, kernel])
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(
            tf.recompute_grad(lambda x: layer(x, training=not layer.alignment.is_random))(x) ** 2
        )
    for found, value in zip(tape.gradient(total, [x, kernel]), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6)
