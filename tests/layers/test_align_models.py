"""Whole networks of today that follow a rule: converted without a name to skip, and trained."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from neural_alignment import keras_private, layers
from neural_alignment.layers import training_step

K = keras.layers


@keras.saving.register_keras_serializable(package="tests")
class Positions(keras.layers.Layer):
    """Adds a vector for each position."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape):
        self.positions = self.add_weight(shape=(1, *input_shape[1:]), name="positions")

    def call(self, inputs):
        return inputs + self.positions


def block(h, causal=False):
    """A block of a Transformer, normalised first."""
    normal = K.LayerNormalization()(h)
    h = h + K.MultiHeadAttention(2, 4)(normal, normal, use_causal_mask=causal)
    return h + K.Dense(8)(K.Dense(16, activation="gelu")(K.LayerNormalization()(h)))


def vit():
    inputs = keras.Input((12, 12, 3))
    h = K.Reshape((9, 8))(K.Conv2D(8, 4, strides=4)(inputs))
    h = block(block(Positions()(h)))
    return keras.Model(inputs, K.Dense(3)(K.GlobalAveragePooling1D()(K.LayerNormalization()(h))))


def causal_transformer():
    inputs = keras.Input((6,), dtype="int32")
    h = Positions()(K.Embedding(11, 8, mask_zero=True)(inputs))
    h = block(block(h, causal=True), causal=True)
    return keras.Model(inputs, K.Dense(11)(K.LayerNormalization()(h)))


def grouped_attention():
    inputs = keras.Input((6, 8))
    h = K.GroupQueryAttention(4, 4, 2)(inputs, inputs, use_causal_mask=True)
    return keras.Model(inputs, K.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d")(h))


def autoencoder():
    inputs = keras.Input((8, 8, 3))
    h = K.SeparableConv2D(4, 3, strides=2, padding="same", activation="relu")(inputs)
    h = K.DepthwiseConv2D(3, padding="same", activation="relu")(h)
    h = K.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu")(h)
    return keras.Model(inputs, K.Conv2D(3, 1)(h))


def sounds():
    inputs = keras.Input((12, 2))
    h = K.DepthwiseConv1D(3, depth_multiplier=2, activation="relu")(inputs)
    h = K.SeparableConv1D(4, 3, activation="relu")(h)
    return keras.Model(inputs, K.Conv1DTranspose(2, 3)(h))


def volumes():
    inputs = keras.Input((4, 4, 4, 2))
    h = K.Conv3D(4, 2, strides=2, activation="relu")(inputs)
    return keras.Model(inputs, K.Conv3DTranspose(2, 2, strides=2)(h))


def application(name, size):
    def build():
        return getattr(keras.applications, name)(
            weights=None, input_shape=(size, size, 3), classes=3, classifier_activation=None
        )

    return build


MODELS = {
    build.__name__: build
    for build in (vit, causal_transformer, grouped_attention, autoencoder, sounds, volumes)
}
# Their smallest images.
APPLICATIONS = {
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "EfficientNetV2B0": 32,
    "ConvNeXtTiny": 32,
    "Xception": 71,
}
MODELS |= {name: application(name, size) for name, size in APPLICATIONS.items()}
RULES = ("symmetric", "activation", "product")
# One rule by turns; of the small ones all of them with the slow tests.
CASES = [
    pytest.param(
        name, rule, marks=pytest.mark.slow if name in APPLICATIONS or i % 3 != place % 3 else ()
    )
    for i, name in enumerate(MODELS)
    for place, rule in enumerate(RULES)
    if name not in APPLICATIONS or i % 3 == place % 3
]


def batch(model):
    shape = (2, *model.input_shape[1:])
    if model.input.dtype == "int32":
        tokens = np.random.default_rng(0).integers(1, 11, shape)
        tokens[0, 4:] = 0  # padding
        return tokens
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def kernels(model):
    """Names of the stock layers with a kernel, in order."""
    return [
        f"{layer.name}/{weight.name}"
        for layer in keras_private.flatten_layers(model)
        for weight in layer.weights
        if weight.name.endswith("kernel") and not keras_private.sublayers(layer)
    ]


@pytest.mark.parametrize(("name", "rule"), CASES)
def test_a_network_is_converted_whole_and_trains(name, rule):
    keras.utils.set_random_seed(0)
    model = MODELS[name]()
    aligned = layers.align(model, rule)
    sites = layers.sites(aligned)
    at = [f"{site.layer.name}/{site.place.kernel}" for site in sites]
    assert at == kernels(model)

    x = batch(model)
    np.testing.assert_allclose(aligned(x), model(x), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(layers.strip(aligned)(x), model(x), rtol=1e-5, atol=1e-5)

    trained = [v for site in sites for v in site.variables.values() if v.trainable]
    assert len(trained) == len(sites)
    step = tf.function(lambda: of_one_step(aligned, x, trained))
    losses, gradients = step()
    assert [path for path, _ in losses] == [site.path for site in sites]
    assert all(np.isfinite(value) and value != 0.0 for _, value in losses)
    for variable, gradient in zip(trained, gradients, strict=True):
        assert np.all(np.isfinite(gradient)), variable.path
        assert np.any(gradient), variable.path

    before = [np.array(variable) for variable in trained]
    aligned.compile(keras.optimizers.SGD(1e-3), "mse")
    history = aligned.fit(x, np.ones(model(x).shape, "float32"), verbose=0).history
    assert np.isfinite(history["loss"][0])
    assert all(np.any(variable != old) for variable, old in zip(trained, before, strict=True))


def of_one_step(model, x, variables):
    with tf.GradientTape() as tape, training_step(0) as active:
        model(x, training=True)
        total = tf.add_n([value for _, value in active.losses])
    return active.losses, tape.gradient(total, [variable.value for variable in variables])
