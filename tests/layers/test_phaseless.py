"""Phaseless alignment: noise in the forward pass of training, and what B learns from it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from neural_alignment import alignments, layers, models, optimizers
from neural_alignment.data import get as dataset
from neural_alignment.layers import training_step
from tests.layers.conformance import COMPILED_BY_KERAS, LAYERS, draw, quick
from tests.layers.measure import built, measure, output_shape

RULES = {"": {}, **alignments.Phaseless.examples}
NAMES = [name for name in LAYERS if name not in COMPILED_BY_KERAS]


def rule(variant="", **changes):
    return alignments.Phaseless(**{**RULES[variant], **changes})


def drawn(layer, x, step=7, seed=3):
    """The noise of every site in a step, of its input's shape; for layers of one site."""
    with training_step(step, seed):
        return layer.alignment.input_noise(x, layer.sites[0].noise_seed(training=False))


@pytest.mark.parametrize("variant", RULES)
@pytest.mark.parametrize("name", ["dense", "dense_rank3", "conv1d_causal", "conv2d_same", "conv3d"])
def test_training_has_noise_on_the_input_and_inference_has_none(name, variant):
    case = LAYERS[name]
    layer, x = built(case, rule(variant)), tf.constant(draw(case.input_shape))
    plain = case.make(None)
    plain.build(case.input_shape)
    plain.set_weights([layer.kernel, layer.bias])
    np.testing.assert_array_equal(layer(x, training=False), plain(x))
    xi = drawn(layer, x)
    assert float(tf.math.reduce_std(xi)) == pytest.approx(layer.alignment.noise_stddev, rel=0.5)
    with training_step(7, 3):
        noisy = layer(x, training=True)
    np.testing.assert_allclose(noisy, plain(x + xi), rtol=1e-4, atol=1e-5)
    assert np.abs(noisy - plain(x)).max() > 1e-3


@pytest.mark.parametrize("variant", RULES)
@pytest.mark.parametrize("name", ["dense", "conv2d_same"])
def test_the_loss_is_the_equation_and_reaches_the_backward_kernel_alone(name, variant):
    case = LAYERS[name]
    layer, x = built(case, rule(variant)), tf.constant(draw(case.input_shape))
    r, xi, linear = layer.alignment, drawn(layer, x), layer.linear()
    w, b = layer.kernel.value, layer.backward_kernel_value()

    def f(inputs):
        y = linear.apply(inputs, w) + (layer.bias if r.use_bias_forward else 0.0)
        return tf.tanh(y) if r.activation_forward else y

    fast = f(x + xi)
    fast = fast - (f(x) if r.high_pass == "clean" else tf.reduce_mean(fast, axis=0))
    amp = tf.reduce_sum(fast * linear.apply(xi, b)) / x.shape[0]
    amp /= float(np.prod(fast.shape[1:-1]))
    expected = r.decay_coef * tf.reduce_sum(b**2) - r.amp_coef * amp
    found = measure(layer, x, draw(output_shape(case), 1))
    np.testing.assert_allclose(found.loss, expected, rtol=1e-3, atol=1e-4)
    reached = {key for key, g in found.of_r.items() if g is not None and np.any(g)}
    assert reached - {"backward_mask"} == {"backward_kernel"}
    assert found.of_j["backward_kernel"] is None


@pytest.mark.parametrize("high_pass", ["clean", "batch"])
def test_the_expected_gradient(high_pass):
    """`2 decay_coef B - amp_coef s^2 W`, by averaging over many draws."""
    r = alignments.Phaseless(high_pass=high_pass, noise_stddev=0.5, amp_coef=0.4, decay_coef=0.1)
    layer = layers.Dense(4, alignment=r)
    layer.build((None, 5))
    # What does not change is taken off: a batch of one example, many times.
    x = tf.repeat(draw((1, 5)), 40000, axis=0)
    gradient = measure(layer, x, tf.zeros((40000, 4))).of_r["backward_kernel"]
    expected = 0.2 * layer.backward_kernel - 0.4 * 0.25 * layer.kernel
    np.testing.assert_allclose(gradient, expected, atol=3e-3)


@pytest.mark.parametrize("name", quick(NAMES))
def test_eager_graph_and_xla_agree(name):
    case = LAYERS[name]
    made = {variant: built(case, rule(variant)) for variant in RULES}
    x, dy = tf.constant(draw(case.input_shape)), tf.constant(draw(output_shape(case), 1))

    def every():
        found = {}
        for variant, layer in made.items():
            m = measure(layer, x, dy)
            found |= {f"{variant}/R": m.loss, f"{variant}/y": m.outputs}
            for prefix, of in (("J", m.of_j), ("R", m.of_r)):
                found |= {f"{variant}/{prefix}/{k}": g for k, g in of.items() if g is not None}
        return found

    eager = every()
    for key, value in tf.function(every, jit_compile=True)().items():
        scale = np.abs(eager[key]).max() + 1e-6
        assert np.abs(value - eager[key]).max() < 2e-3 * scale, key


def test_files(tmp_path):
    inputs = keras.Input((5,))
    model = keras.Model(inputs, layers.Dense(4, alignment=rule("batch"))(inputs))
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert loaded.layers[1].alignment == rule("batch")
    for ours, theirs in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_no_noise_is_refused():
    for stddev in (0.0, -1.0):
        with pytest.raises(ValueError, match="noise_stddev > 0.*Received: noise_stddev="):
            alignments.Phaseless(noise_stddev=stddev)


def test_a_step_repeats_its_noise_and_the_next_has_another():
    layer, x = built(LAYERS["dense"], rule()), tf.constant(draw((3, 5)))
    first, again, later = (drawn(layer, x, step) for step in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.all(first != later)


def test_on_the_digits_b_comes_near_w_in_a_plain_fit():
    keras.utils.set_random_seed(0)
    data = dataset("digits")
    images, labels = (
        np.concatenate(part) for part in zip(*data.train(32, epoch=0, seed=0), strict=True)
    )
    model = models.get(
        "fc",
        input_shape=(8, 8, 1),
        num_classes=10,
        layers_list=(64, 64),
        alignment=rule(),
        activation="relu",
    )
    model.compile(
        optimizers.RoutedOptimizer(
            optimizers.get("momentum", learning_rate=0.02),
            optimizers.get("gd", learning_rate=0.05),
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    logs = model.fit(images, labels, batch_size=32, epochs=15, verbose=0).history
    assert logs["accuracy"][-1] > 0.95
    for layer in layers.aligned_layers(model):
        w, b = (np.ravel(v) for v in (layer.kernel, layer.backward_kernel))
        angle = np.degrees(np.arccos(w @ b / np.linalg.norm(w) / np.linalg.norm(b)))
        assert angle < 15.0, (layer.name, angle)
