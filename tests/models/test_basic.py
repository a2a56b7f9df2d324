import json

import keras
import numpy as np
import pytest

from neural_alignment import models
from neural_alignment.layers import Conv2D, Dense, aligned_layers, training_step


def names(model, kind):
    return [layer.name for layer in model.layers if isinstance(layer, kind)]


def test_fc():
    model = models.get("fc", input_shape=(8, 8, 1), layers_list=(20, 12), activation="tanh")
    assert names(model, Dense) == ["dense0", "dense1", "dense_output"]
    assert model.count_params() == 64 * 20 + 20 + 20 * 12 + 12 + 12 * 10 + 10
    assert [model.get_layer(n).activation for n in names(model, Dense)] == [
        keras.activations.tanh,
        keras.activations.tanh,
        keras.activations.linear,
    ]


def test_fc_decays_kernels_by_half_the_square():
    model = models.get("fc", input_shape=(5,), layers_list=(4,), l2=0.5)
    model.get_layer("dense0").bias.assign(np.ones(4))
    expected = sum(
        0.25 * np.sum(np.square(model.get_layer(name).kernel.numpy()))
        for name in names(model, Dense)
    )
    np.testing.assert_allclose(sum(model.losses), expected, rtol=1e-6)
    assert models.get("fc", input_shape=(5,), l2=0.0).losses == []


def test_conv():
    model = models.get("conv", input_shape=(28, 28, 1), filters_list=(4, 6), kernels_list=(5, 3))
    assert names(model, Conv2D) == ["conv0", "conv1"]
    assert model.count_params() == 25 * 4 + 4 + 9 * 4 * 6 + 6 + 2904 * 10 + 10
    assert model.get_layer("conv0").activation is keras.activations.sigmoid
    assert model.losses == []


def test_conv_wants_a_window_for_each_filter():
    with pytest.raises(ValueError, match="as many windows as filters"):
        models.get("conv", input_shape=(28, 28, 1), filters_list=(4,), kernels_list=(5, 3))


def test_lenet5_has_its_known_number_of_parameters():
    assert models.get("lenet5", input_shape=(28, 28, 1)).count_params() == 61_706
    with pytest.raises(ValueError, match="12 pixels"):
        models.get("lenet5", input_shape=(8, 8, 1))


@pytest.mark.parametrize("name", ["fc", "conv", "lenet5"])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_kernels_are_drawn_at_a_scale(name, scale):
    keras.utils.set_random_seed(0)
    model = models.get(name, input_shape=(28, 28, 1), alignment="feedback", kernel_scale=scale)
    for layer in aligned_layers(model):
        kernel, window = layer.kernel.numpy(), int(np.prod(layer.kernel.shape[:-2]))
        glorot = np.sqrt(2.0 / (window * sum(kernel.shape[-2:])))
        for drawn in (kernel, layer.backward_kernel.numpy()):
            assert drawn.std() == pytest.approx(scale * glorot, rel=0.15)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_of_no_size_is_refused(scale):
    with pytest.raises(ValueError, match="kernel_scale > 0. Received"):
        models.get("fc", input_shape=(5,), kernel_scale=scale)


def test_negative_decay_is_refused():
    with pytest.raises(ValueError, match="l2 >= 0"):
        models.get("fc", input_shape=(5,), l2=-1.0)


@pytest.mark.parametrize("name", ["fc", "conv", "lenet5"])
def test_every_layer_takes_the_rule(name):
    model = models.get(name, input_shape=(16, 16, 1), alignment="mirror")
    assert [la.name for la in aligned_layers(model)] == names(model, Conv2D | Dense)
    with training_step(0) as step:
        model(np.ones((2, 16, 16, 1), "float32"), training=True)
    assert [path for path, _ in step.losses] == names(model, Conv2D | Dense)


@pytest.mark.parametrize("name", ["fc", "conv", "lenet5"])
def test_a_saved_model_is_the_same(name, tmp_path):
    model = models.get(name, input_shape=(16, 16, 1), alignment="information")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(2, 16, 16, 1)).astype("float32")
    np.testing.assert_array_equal(model(x), loaded(x))
    assert json.dumps(loaded.get_config()) == json.dumps(model.get_config())
