"""Attention under a rule: its projections are layers with sites, what is between is Keras's."""

import copy
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from neural_alignment import keras_private, layers
from neural_alignment.layers import training_step
from neural_alignment.layers.attention import AlignedAttention
from tests.layers.conformance import PLAIN_RULES, RULES, draw, rule

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

CASES = {
    "multi_head": (layers.MultiHeadAttention, {"num_heads": 2, "key_dim": 3, "value_dim": 4}),
    "group_query": (
        layers.GroupQueryAttention,
        {"head_dim": 3, "num_query_heads": 4, "num_key_value_heads": 2},
    ),
}
# One of each kind: R of the kernels, R of projections, tied, derived from W. All of them go through
# the layers inside in test_conformance and test_gradients.
SOME_RULES = ("symmetric", "activation", "product", "sign_symmetry")
EVERY_CASE = pytest.mark.parametrize("name", CASES)
SHAPE = (2, 5, 6)
SITES = ["query", "key", "value", "attention_output"]


def made(name, alignment, seed=0, **changes):
    """A layer of a case, built for self-attention."""
    cls, arguments = CASES[name]
    keras.utils.set_random_seed(seed)
    layer = cls(
        **{"name": "a", "bias_initializer": "random_normal"} | arguments | changes,
        alignment=alignment,
    )
    layer.build(SHAPE, SHAPE)
    return layer


def stock_of(layer):
    """Keras's class."""
    return next(c for c in type(layer).__mro__ if c.__module__.startswith("keras.src.layers"))


def projections(layer):
    """The layers with kernels inside, by name."""
    return {
        inner.name: inner
        for inner in keras_private.flatten_layers(layer)
        if isinstance(inner, keras.layers.EinsumDense)
    }


def gradients(layer, x, **arguments):
    """Outputs, and the gradients of a sum over them for x and every weight by its path."""
    x, dy = tf.constant(x), draw(SHAPE, 1)
    named = {"x": x, **{w.path: w.value for w in layer.weights if "int" not in w.dtype}}
    with tf.GradientTape() as tape:
        tape.watch(list(named.values()))
        with training_step(0, 1) as active:
            outputs = layer(x, x, training=True, **arguments)
        j = tf.reduce_sum(outputs * dy)
    return outputs, tape.gradient(j, named), active.losses


@EVERY_CASE
def test_without_alignment_the_layer_is_keras_own(name):
    ours = made(name, None)
    config = ours.get_config()
    assert config.pop("alignment") is None
    stock = stock_of(ours).from_config(config)
    stock.build(SHAPE, SHAPE)
    assert [w.path for w in ours.weights] == [w.path for w in stock.weights]
    stock.set_weights(ours.get_weights())
    assert {type(inner) for inner in projections(ours).values()} == {keras.layers.EinsumDense}
    assert not keras_private.flatten_layers(ours)[0].losses
    x = draw(SHAPE)
    for one, other in zip(gradients(ours, x)[:2], gradients(stock, x)[:2], strict=True):
        for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
            np.testing.assert_array_equal(a, b)


@EVERY_CASE
def test_its_projections_follow_the_rule(name):
    for variant in PLAIN_RULES:
        layer = made(name, rule(variant))
        inner = projections(layer)
        assert list(inner) == SITES
        assert [site.path for site in layers.sites(layer)] == [f"a/{each}" for each in SITES]
        for each in inner.values():
            assert type(each) is layers.EinsumDense
            assert each.alignment == layer.alignment == rule(variant)
        losses = gradients(layer, draw(SHAPE))[2]
        assert [path for path, _ in losses] == [
            f"a/{each}" for each in SITES
        ] * layer.alignment.has_loss
        assert all(np.isfinite(value) for _, value in losses)


@EVERY_CASE
@pytest.mark.parametrize("causal", [False, True])
def test_with_equal_kernels_every_rule_is_backpropagation(name, causal):
    x, stock, expected = draw(SHAPE), None, None
    for variant in SOME_RULES:
        layer = made(name, rule(variant))
        for site in layers.sites(layer):
            site.kernel.assign(site.backward_kernel_value())
        stock = made(name, None)
        for path, weight in {w.path: w for w in stock.weights}.items():
            weight.assign(next(w for w in layer.weights if w.path == path))
        outputs, found, _ = gradients(layer, x, use_causal_mask=causal)
        theirs, expected, _ = gradients(stock, x, use_causal_mask=causal)
        np.testing.assert_allclose(outputs, theirs, rtol=1e-5, atol=1e-6)
        for key, gradient in expected.items():
            scale = np.abs(gradient).max() + 1e-6
            np.testing.assert_allclose(found[key], gradient, rtol=1e-4, atol=1e-5 * scale)


@EVERY_CASE
def test_the_error_goes_back_through_the_backward_kernels(name):
    """Against float64, with `x B` in the place of `x W` for the gradient alone."""
    layer, x = made(name, "feedback", dtype="float64"), draw(SHAPE).astype("float64")
    stop, heads = tf.stop_gradient, CASES[name][1].get("num_query_heads", 2)

    def project(x, which):
        inner = projections(layer)[which]
        w, b = (tf.constant(k.numpy()) for k in (inner.kernel, inner.backward_kernel))
        through_b = tf.einsum(inner.equation, x, b)
        return (
            stop(tf.einsum(inner.equation, x, w)) + through_b - stop(through_b) + inner.bias.numpy()
        )

    given = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(given)
        query, key, value = (project(given, which) for which in SITES[:3])
        key, value = (tf.repeat(t, heads // t.shape[2], axis=2) for t in (key, value))
        scores = tf.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(3.0)
        mixed = tf.einsum("bhqk,bkhd->bqhd", tf.nn.softmax(scores), value)
        expected = project(mixed, "attention_output")
        j = tf.reduce_sum(expected * draw(SHAPE, 1))
    of_x = tape.gradient(j, given)
    outputs, found, _ = gradients(layer, x)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found["x"], of_x, rtol=1e-5, atol=1e-7)
    for inner in projections(layer).values():
        assert found[inner.backward_kernel.path] is None
        inner.kernel.assign(inner.backward_kernel)
    assert np.abs(gradients(layer, x)[1]["x"] - of_x).max() > 0.1 * np.abs(of_x).max()


@EVERY_CASE
def test_files_clones_and_copies(name, tmp_path):
    keras.utils.set_random_seed(0)
    cls, arguments = CASES[name]
    inputs, x = keras.Input(SHAPE[1:]), draw(SHAPE)
    variants = ("symmetric", "mirror:noise", "sign_symmetry", "product:sparse")

    def model():
        branches = [
            cls(**arguments, alignment=rule(variant), name=variant.replace(":", "_"))(
                inputs, inputs
            )
            for variant in variants
        ]
        return keras.Model(inputs, branches)

    original = model()
    for site in layers.sites(original):
        if site.alignment.is_random:
            site.noise_state.assign([5, 7])
    original.save(tmp_path / "m.keras")
    original.save_weights(tmp_path / "m.weights.h5")
    cloned, other = keras.models.clone_model(original), model()
    cloned.set_weights(original.get_weights())
    other.load_weights(tmp_path / "m.weights.h5")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    for again in (loaded, cloned, other, copy.deepcopy(original)):
        assert [site.alignment for site in layers.sites(again)] == [
            site.alignment for site in layers.sites(original)
        ]
        assert len(again.weights) == len(original.weights)
        for ours, theirs in zip(again.weights, original.weights, strict=True):
            assert (ours.path, ours.trainable) == (theirs.path, theirs.trainable)
            np.testing.assert_array_equal(ours, theirs)
        for y, z in zip(again(x), original(x), strict=True):
            np.testing.assert_allclose(y, z, rtol=1e-6, atol=1e-6)


@EVERY_CASE
def test_layer_configs(name):
    cls, arguments = CASES[name]
    parameters = set(inspect.signature(stock_of(made(name, None)).__init__).parameters)
    for variant in (None, *RULES):
        alignment = None if variant is None else rule(variant)
        layer = cls(**arguments, alignment=alignment, dropout=0.1, seed=3)
        config = layer.get_config()
        assert parameters - {"self", "kwargs", "flash_attention"} <= set(config)
        again = type(layer).from_config(config)
        assert again.get_config() == config
        assert again.alignment == layer.alignment


@EVERY_CASE
def test_arguments_of_keras_reach_the_projections(name):
    arguments = {
        "kernel_regularizer": keras.regularizers.L2(0.5),
        "kernel_constraint": keras.constraints.MaxNorm(0.01),
        "kernel_initializer": keras.initializers.RandomNormal(stddev=0.3, seed=4),
        "use_bias": False,
    }
    layer = made(name, "mirror", **arguments)
    for inner in projections(layer).values():
        assert inner.bias is None
        assert (inner.kernel.regularizer, inner.backward_kernel.regularizer) == (
            inner.kernel_regularizer,
            None,
        )
        assert inner.kernel.constraint is not None
        kernel, backward = inner.kernel.numpy(), inner.backward_kernel.numpy()
        assert (kernel != backward).mean() > 0.9
        np.testing.assert_allclose([kernel.std(), backward.std()], 0.3, rtol=0.35)
    frozen = made(name, "mirror", trainable=False)
    assert not gradients(frozen, draw(SHAPE))[2]
    assert not frozen.trainable_weights
    frozen.trainable = True
    assert len(gradients(frozen, draw(SHAPE))[2]) == len(SITES)


@EVERY_CASE
def test_dtype_policies(name):
    x, policy = draw(SHAPE), "mixed_bfloat16"
    for variant in SOME_RULES:
        full, low = made(name, rule(variant)), made(name, rule(variant), dtype=policy)
        low.set_weights(full.get_weights())
        (_, expected, losses), (outputs, found, low_losses) = (
            gradients(full, x),
            gradients_cast(low, x),
        )
        assert outputs.dtype == low.compute_dtype
        scale = np.abs(expected["x"]).max()
        assert np.abs(found["x"] - expected["x"]).max() < 5e-2 * scale, variant
        for (_, one), (_, other) in zip(losses, low_losses, strict=True):
            assert other.dtype == "float32"
            np.testing.assert_allclose(one, other, rtol=5e-2, atol=1e-2)


def gradients_cast(layer, x):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        with training_step(0, 1) as active:
            outputs = layer(x, x, training=True)
        j = tf.reduce_sum(tf.cast(outputs, "float32") * draw(SHAPE, 1))
    return outputs, {"x": tape.gradient(j, x)}, active.losses


# Keras's EinsumDense knows no masks, and warns where it is given one: as in stock layers.
@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask:UserWarning")
@EVERY_CASE
def test_padding_does_not_count(name):
    """R of a padded batch is that of the batch cut to its length."""
    layer = made(name, rule("activation"))
    memory = draw((2, 4, 6), 3)
    query, padding = draw((2, 3, 6)), draw((2, 2, 6), 5)
    padded, mask = np.concatenate([query, padding], 1), np.array([[True] * 3 + [False] * 2] * 2)
    memory_padded = np.concatenate([memory, padding], 1)
    memory_mask = np.array([[True] * 4 + [False] * 2] * 2)

    def losses(query, memory, masks=()):
        tensors = [tf.constant(query), tf.constant(memory)]
        for tensor, mask in zip(tensors, masks, strict=False):
            tensor._keras_mask = tf.constant(mask)
        with training_step(0) as active:
            layer(*tensors, training=True)
        return [float(value) for _, value in active.losses]

    expected = losses(query, memory)
    np.testing.assert_allclose(
        losses(padded, memory_padded, (mask, memory_mask)), expected, rtol=1e-4
    )
    for found, value in zip(losses(padded, memory_padded), expected, strict=True):
        assert abs(found - value) > 1e-3 * abs(value)


@EVERY_CASE
def test_fit_adds_the_loss_that_the_step_collects(name):
    keras.utils.set_random_seed(0)
    cls, arguments = CASES[name]
    inputs, x = keras.Input(SHAPE[1:]), draw(SHAPE)
    outputs = [cls(**arguments, alignment=rule(v))(inputs, inputs) for v in SOME_RULES]
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.SGD(0.0), ["mse"] * len(outputs))
    total = model.fit(x, [np.zeros(SHAPE, "float32")] * len(outputs), verbose=0).history["loss"][0]
    with training_step(0) as active:
        j = sum(float(tf.reduce_mean(tf.square(y))) for y in model(x, training=True))
    np.testing.assert_allclose(total, j + sum(float(r) for _, r in active.losses), rtol=1e-5)


def test_a_gate_is_projected_too():
    if "use_gate" not in inspect.signature(keras.layers.MultiHeadAttention.__init__).parameters:
        pytest.skip("not in this Keras")
    for name in CASES:
        layer = made(name, "mirror", use_gate=True)
        assert set(projections(layer)) == {*SITES, "gate"}
        assert len(gradients(layer, draw(SHAPE))[2]) == 5


@EVERY_CASE
def test_lora_of_the_projections(name):
    layer = made(name, "symmetric")
    for inner in projections(layer).values():
        inner.enable_lora(2)
    outputs, found, losses = gradients(layer, draw(SHAPE))
    assert len(losses) == len(SITES)
    lora = [key for key in found if "lora_kernel_b" in key]
    assert len(lora) == len(SITES)
    assert all(np.any(found[key]) for key in lora)
    assert np.all(np.isfinite(outputs))


def test_the_table_leaves_no_layer_out():
    public = (getattr(layers, name) for name in layers.__all__)
    classes = {c for c in public if inspect.isclass(c) and issubclass(c, AlignedAttention)}
    assert {cls for cls, _ in CASES.values()} == classes
