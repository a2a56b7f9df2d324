"""Forward kernels of which a part is fixed at zero."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from neural_alignment import alignments, connection_metrics, layers, metrics, optimizers
from tests.layers.conformance import LAYERS, draw
from tests.layers.measure import built, measure, output_shape

DENSITY = 0.4


@pytest.mark.parametrize("name", ["dense", "conv2d_same", "separable2d", "conv2d_transpose"])
@pytest.mark.parametrize("rule", ["feedback", "symmetric", "product", "mixed"])
def test_the_layer_is_that_of_the_kernel_with_its_zeros(name, rule):
    """Outputs, R and errors; the gradient for W is that of the others, and 0 there."""
    case = LAYERS[name]
    sparse = built(case, alignments.get({"name": rule, "forward_density": DENSITY}))
    whole = built(case, rule)
    for site, other in zip(sparse.sites, whole.sites, strict=True):
        kernel, mask = site.kernel.numpy(), getattr(sparse, site.mask_name).numpy()
        assert np.count_nonzero(kernel) == np.count_nonzero(mask) == round(DENSITY * mask.size)
        np.testing.assert_array_equal(kernel != 0.0, mask == 1.0)
        assert kernel.std() == pytest.approx(np.sqrt(DENSITY) * other.kernel.numpy().std(), rel=0.6)
    for weight in whole.weights:
        weight.assign(getattr(sparse, weight.name))
    x, dy = tf.constant(draw(case.input_shape)), draw(output_shape(case), 1)
    ours, theirs = measure(sparse, x, dy), measure(whole, x, dy)
    np.testing.assert_array_equal(ours.outputs, theirs.outputs)
    if theirs.loss is not None:
        np.testing.assert_allclose(ours.loss, theirs.loss, rtol=1e-6)
    for key, expected in theirs.of_j.items():
        site = next((site for site in sparse.sites if site.place.kernel == key), None)
        expected = expected if site is None else expected * getattr(sparse, site.mask_name)
        if expected is None:
            assert ours.of_j[key] is None
        else:
            np.testing.assert_allclose(ours.of_j[key], expected, rtol=1e-5, atol=1e-6)


def network(rule):
    keras.utils.set_random_seed(0)
    parts = [keras.Input((6,)), layers.Dense(8, "tanh", alignment=rule, name="a")]
    return keras.Sequential([*parts, layers.Dense(3, alignment=rule, name="b")])


@pytest.mark.parametrize("optimizer", ["adam", "noisy"])
def test_zeros_stay_in_training_and_in_files(optimizer, tmp_path):
    """Noise on W itself does not reach what the layer computes, nor what is measured of it."""
    model = network(alignments.KolenPollack(forward_density=DENSITY, density=0.5))
    made = optimizers.get("adam", learning_rate=0.1)
    if optimizer == "noisy":
        made = optimizers.Noisy(made, variance=0.1)
    model.compile(made, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, labels = draw((16, 6)), np.arange(16) % 3
    before = [layer.sites[0].forward_kernel.numpy() for layer in model.layers]
    model.fit(x, labels, epochs=3, verbose=0)
    for layer, old in zip(model.layers, before, strict=True):
        new = layer.sites[0].forward_kernel.numpy()
        np.testing.assert_array_equal(new != 0.0, old != 0.0)
        assert np.abs(new - old).max() > 1e-2
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    assert loaded.layers[0].alignment == model.layers[0].alignment
    w, b = before[0], model.layers[0].backward_mask.numpy()
    shares = connection_metrics.connection_metrics(model, metrics.named_sites(model))["a"]
    assert shares["one_way"] == pytest.approx(((w != 0) ^ (b != 0)).mean(), abs=1e-6)
    assert shares["both_ways"] == pytest.approx(((w != 0) & (b != 0)).mean(), abs=1e-6)


def test_stripped_it_is_a_kernel_with_zeros_and_aligning_is_refused():
    model, x = network(alignments.Feedback(forward_density=DENSITY)), draw((4, 6))
    stripped = layers.strip(model)
    np.testing.assert_array_equal(stripped(x), model(x))
    assert {w.name for w in stripped.layers[0].weights} == {"kernel", "bias"}
    with pytest.raises(ValueError, match=r"forward_density=1 .*weights are kept.*Received: 0\.4"):
        layers.align(stripped, alignments.Feedback(forward_density=DENSITY))
    again = layers.align(model, "symmetric")
    np.testing.assert_array_equal(again(x), model(x))


@pytest.mark.parametrize("name", ["direct", "frozen"])
def test_rules_of_whole_models_refuse_it(name):
    with pytest.raises(ValueError, match=r"forward_density.*Keras's own.*forward_density=0\.5"):
        alignments.get({"name": name, "forward_density": 0.5})
