"""Conversion of the models of keras.applications, in the ways that they come about."""

import keras
import numpy as np
import pytest

from neural_alignment import layers
from tests.layers import origins

# Each with the smallest image that it takes.
SIZES = {
    "ConvNeXtTiny": 32,
    "DenseNet121": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "InceptionResNetV2": 75,
    "InceptionV3": 75,
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Large": 32,
    "MobileNetV3Small": 32,
    "NASNetMobile": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "VGG16": 32,
    "Xception": 71,
}
WAYS = ("as_built", "from_keras_file", "from_h5_file", "deep_copied", "unpickled")
# Keras does not load these from legacy files: they add numbers, or have a class it does not find.
NO_H5 = ("ConvNeXtTiny", "InceptionResNetV2", "MobileNetV3Large", "MobileNetV3Small")


def build(name, **arguments):
    """A network whose normalization does something."""
    size = SIZES[name]
    network = getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), include_top=False, pooling="avg", **arguments
    )
    generator = np.random.default_rng(0)
    for weight in network.weights:
        if weight.name in ("gamma", "moving_variance"):
            weight.assign(generator.uniform(0.8, 1.2, weight.shape))
        elif weight.name in ("beta", "bias", "moving_mean"):
            weight.assign(generator.uniform(-0.1, 0.1, weight.shape))
    return keras.Sequential([network, keras.layers.Dense(3, name="head")])


def assert_converts(model, rest):
    x = origins.batch(model, 2)
    expected = origins.outputs(model, x)
    assert np.std(expected[0]) > 1e-5
    for copy in (layers.strip(model), layers.align(model, "feedback", rest=rest)):
        np.testing.assert_array_equal(origins.outputs(copy, x)[0], expected[0])
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SIZES)
def test_a_network_computes_the_same(name, way, tmp_path):
    if way == "from_h5_file" and name in NO_H5:
        pytest.skip("Keras does not load it")
    aligned = assert_converts(origins.ORIGINS[way](build(name), tmp_path), rest="error")
    ruled = [layer for layer in layers.aligned_layers(aligned)]
    assert len(ruled) > 10
    keras.utils.clear_session()


def test_a_small_network_computes_the_same():
    model = build("MobileNetV2", alpha=0.35)
    aligned = assert_converts(model, rest="error")
    assert len(layers.aligned_layers(aligned)) == 53


@pytest.mark.slow
def test_two_towers_of_one_network_keep_their_own_weights():
    towers = []
    for name in ("l", "r"):
        tower = keras.applications.ResNet50(weights=None, include_top=False, pooling="avg")
        tower.name = name
        towers.append(tower)
    inputs = [keras.Input((32, 32, 3)), keras.Input((32, 32, 3))]
    features = [tower(x) for tower, x in zip(towers, inputs, strict=True)]
    model = keras.Model(inputs, keras.layers.Concatenate()(features))
    x = [np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype("float32")] * 2
    left, right = np.split(origins.outputs(model, x)[0], 2, axis=1)
    assert np.max(np.abs(left - right)) > 0.01
    for copy in (layers.strip(model), layers.align(model, "symmetric")):
        assert origins.difference(model, copy, x) == 0.0
