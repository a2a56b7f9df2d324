"""Small networks of every map train in plain `fit`, on every back end."""

import keras
import numpy as np
import pytest

from neural_alignment import layers

pytestmark = pytest.mark.backend

K = keras.layers


def tokens():
    inputs = keras.Input((5,), dtype="int32")
    h = K.Embedding(9, 8, mask_zero=True)(inputs)
    h = K.MultiHeadAttention(2, 3)(h, h, use_causal_mask=True)
    outputs = K.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d")(h)
    return keras.Model(inputs, outputs), np.array([[1, 2, 3, 0, 0], [4, 5, 6, 7, 8]])


def images():
    inputs = keras.Input((8, 8, 3))
    h = K.SeparableConv2D(4, 3, strides=2, padding="same", activation="relu")(inputs)
    h = K.DepthwiseConv2D(3, padding="same", activation="relu")(h)
    model = keras.Model(inputs, K.Conv2DTranspose(3, 3, strides=2, padding="same")(h))
    return model, np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")


# Keras's EinsumDense knows no masks.
@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask:UserWarning")
@pytest.mark.parametrize("rule", ["activation", "product", "moving_average"])
@pytest.mark.parametrize("network", [tokens, images])
def test_a_network_trains(network, rule):
    keras.utils.set_random_seed(0)
    model, x = network()
    model = layers.align(model, rule)
    sites = layers.sites(model)
    before = [keras.ops.convert_to_numpy(site.backward_kernel_value()).copy() for site in sites]
    model.compile(keras.optimizers.SGD(1e-2), "mse")
    y = np.ones(tuple(model(x).shape), "float32")
    losses = [float(model.train_on_batch(x, y)) for _ in range(6)]
    assert np.all(np.isfinite(losses))
    assert losses[-1] < losses[0]
    for site, old in zip(sites, before, strict=True):
        new = keras.ops.convert_to_numpy(site.backward_kernel_value())
        assert np.any(new != old), site.path
