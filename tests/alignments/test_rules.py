"""What is particular to a rule: cheap forms, sign symmetry, product, sparse feedback."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from neural_alignment import alignments
from neural_alignment.alignments import primitives
from neural_alignment.alignments.projections import Projections
from neural_alignment.layers import Conv2D, Dense, training_step
from neural_alignment.maps import Conv, Matmul
from tests.layers.conformance import LAYERS, draw, rule
from tests.layers.measure import built, measure, noise

MAPS = {
    "dense": (Matmul(), (3, 5), (5, 4)),
    "dense_rank3": (Matmul(), (3, 2, 5), (5, 4)),
    "conv2d": (Conv((2, 2), "same", "channels_last", (1, 1)), (3, 5, 4, 2), (3, 3, 2, 4)),
    "conv1d_causal": (Conv((1,), "causal", "channels_last", (2,)), (3, 6, 2), (2, 2, 4)),
}

AMP_OPTIONS = [
    {},
    {"use_bias_backward": True},
    {"use_bias_forward": True, "activation_forward": True, "use_bias_backward": True},
    {"batch_center_backward_input": True, "use_bias_backward": True},
    {"center_input": True, "center_forward_output": True},
    {"normalize_forward_output": True, "batch_center_forward_output": True},
    {"batch_center_forward_output": True, "use_bias_backward": True},
    {"input_distribution": "normal", "batch_center_forward_output": True},
    {"activation_backward": True, "use_bias_backward": True},
    {"center_backward_output": True},
    {"normalize_backward_output": True, "activation_forward": True},
]


def projections(options, linear, x_shape, kernel_shape, tensors):
    return Projections(
        alignments.Mirror(**options),
        linear=linear,
        inputs=tf.constant(draw(x_shape)) + 0.3,
        forward_kernel=tensors[0],
        backward_kernel=tensors[1],
        bias=tf.constant(draw((kernel_shape[-1],), 4)),
        activation=keras.activations.tanh,
        seed=tf.constant([1, 2]),
    )


@pytest.mark.parametrize("options", AMP_OPTIONS, ids=lambda o: "-".join(o) or "none")
@pytest.mark.parametrize("made", ["nothing", "reconstruction", "projection"])
@pytest.mark.parametrize("name", MAPS)
def test_every_form_of_amp_is_the_plain_form(name, made, options):
    linear, x_shape, kernel_shape = MAPS[name]
    tensors = [tf.constant(draw(kernel_shape, 1)), tf.constant(draw(kernel_shape, 2))]
    found = []
    for plain in (True, False):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            p = projections(options, linear, x_shape, kernel_shape, tensors)
            if plain:
                value = primitives.amp(p.forward_projection, p.backward_projection)
            else:
                if made == "reconstruction":
                    _ = p.forward_reconstruction
                elif made == "projection":
                    _ = p.backward_projection
                value = p.amp()
        found.append([value, *tape.gradient(value, tensors)])
    for plain, cheap in zip(*found, strict=True):
        scale = np.abs(plain).max()
        np.testing.assert_allclose(cheap, plain, rtol=1e-4, atol=1e-4 * scale)


def test_amp_does_not_project_backward_where_the_path_is_linear():
    linear, x_shape, kernel_shape = MAPS["conv2d"]
    tensors = [tf.constant(draw(kernel_shape, 1)), tf.constant(draw(kernel_shape, 2))]
    p = projections({"use_bias_backward": True}, linear, x_shape, kernel_shape, tensors)
    p.amp()
    assert "_backward" not in vars(p)


def test_a_known_projection_is_used_on_the_layers_own_input_only():
    linear, x_shape, kernel_shape = MAPS["dense"]
    kernels = [tf.constant(draw(kernel_shape, 1)), tf.constant(draw(kernel_shape, 2))]
    for options, used in (({}, True), ({"center_input": True}, False)):
        p = Projections(
            alignments.Mirror(**options, input_distribution=None),
            linear=linear,
            inputs=tf.constant(draw(x_shape)),
            forward_kernel=kernels[0],
            backward_kernel=kernels[1],
            forward_projection=tf.fill((3, 4), 9.0),
        )
        assert np.all(p.forward_projection == 9.0) == used


def model(alignment, name="dense", units=6, optimizer="sgd"):
    """Two layers with a rule and a head without, compiled."""
    keras.utils.set_random_seed(1)
    if name == "dense":
        inputs, body = keras.Input((5,)), [Dense(units, "tanh", alignment=alignment)]
        body.append(Dense(4, "tanh", alignment=alignment))
    else:
        inputs = keras.Input((6, 5, 2))
        body = [Conv2D(units, 3, activation="tanh", padding="same", alignment=alignment)]
        body += [Conv2D(4, 2, strides=2, activation="tanh", alignment=alignment)]
        body.append(keras.layers.GlobalAveragePooling2D())
    made = keras.Sequential([inputs, *body, keras.layers.Dense(2)])
    made.compile(optimizer, "mse", run_eagerly=True)
    return made


def fit(made, name="dense", steps=4):
    shape = (8, 5) if name == "dense" else (8, 6, 5, 2)
    for step in range(steps):
        made.train_on_batch(draw(shape, step), draw((8, 2), 100 + step))


@pytest.mark.parametrize("magnitude", ["uniform", "batch_random", "fixed_random"])
@pytest.mark.parametrize("name", ["dense", "conv"])
def test_sign_symmetry_keeps_the_signs_while_the_kernel_changes_its_own(name, magnitude):
    made = model(
        alignments.SignSymmetry(magnitude=magnitude), name, optimizer=keras.optimizers.SGD(0.5)
    )
    layer = made.layers[0]
    before = np.sign(layer.kernel)
    for _ in range(3):
        fit(made, name, steps=3)
        backward = layer.backward_kernel_value().numpy()
        np.testing.assert_array_equal(np.sign(backward), np.sign(layer.kernel))
        assert np.all(backward != 0.0)
    assert np.any(before != np.sign(layer.kernel))


def test_magnitudes_of_sign_symmetry():
    fan_in, fan_out = 9 * 20, 9 * 30
    stddev = np.sqrt(2.0 / (fan_in + fan_out))
    drawn = {}
    for magnitude in ("uniform", "batch_random", "fixed_random"):
        layer = Conv2D(30, 3, alignment=alignments.SignSymmetry(magnitude=magnitude))
        layer.build((None, 8, 8, 20))
        drawn[magnitude] = np.abs(layer.backward_kernel_value())
    np.testing.assert_allclose(drawn["uniform"], stddev, rtol=1e-6)
    for magnitude in ("batch_random", "fixed_random"):
        np.testing.assert_allclose(np.sqrt((drawn[magnitude] ** 2).mean()), stddev, rtol=0.05)
        np.testing.assert_allclose(drawn[magnitude].mean(), stddev * np.sqrt(2 / np.pi), rtol=0.05)


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@pytest.mark.parametrize("magnitude", ["uniform", "batch_random", "fixed_random"])
def test_magnitudes_of_the_peers(magnitude, distribution):
    """BioTorch's: 1 / sqrt(3 fan_in); |U(-sqrt(3) s, sqrt(3) s)|."""
    options = {"magnitude": magnitude, "magnitude_scale": "kaiming"}
    if magnitude == "uniform" and distribution == "uniform":
        with pytest.raises(ValueError, match="Expected magnitude='batch_random' or"):
            alignments.SignSymmetry(**options, magnitude_distribution=distribution)
        return
    layer = Conv2D(
        30, 3, alignment=alignments.SignSymmetry(**options, magnitude_distribution=distribution)
    )
    layer.build((None, 8, 8, 20))
    sizes, stddev = np.abs(layer.backward_kernel_value()), 1.0 / np.sqrt(3 * 9 * 20)
    np.testing.assert_allclose(np.sqrt((sizes**2).mean()), stddev, rtol=0.05)
    if distribution == "uniform":
        assert sizes.max() <= np.sqrt(3) * stddev * 1.0001
        np.testing.assert_allclose(sizes.mean(), np.sqrt(3) * stddev / 2, rtol=0.05)


def delivered(layer, x, step=None):
    """dx of ones: what the backward kernel of this call was."""
    x = tf.constant(x)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        if step is None:
            outputs = [layer(x, training=True)]
        else:
            with training_step(step, seed=5):
                outputs = [layer(x, training=True), layer(x, training=True)]
    return [tape.gradient(y, x).numpy() for y in outputs]


def test_batch_random_draws_once_a_step():
    layer = Dense(4, alignment=alignments.SignSymmetry(magnitude="batch_random"))
    x = draw((2, 5))
    first, again = delivered(layer, x, step=0)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(delivered(layer, x, step=0)[0], first)
    assert np.all(delivered(layer, x, step=1)[0] != first)
    in_fit = [delivered(layer, x)[0] for _ in range(2)]
    assert np.all(in_fit[0] != in_fit[1])


def test_fixed_magnitudes_stay():
    for magnitude in ("uniform", "fixed_random"):
        layer = Dense(4, alignment=alignments.SignSymmetry(magnitude=magnitude))
        x = draw((2, 5))
        np.testing.assert_array_equal(delivered(layer, x)[0], delivered(layer, x)[0])


@pytest.mark.parametrize("name", ["dense", "conv"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_product_with_identity_is_kolen_pollack(name, optimizer):
    options = {"decay_coef": 0.01, "update_forward": True}
    optimizer = {"class_name": optimizer, "config": {"learning_rate": 0.1}}
    product = model(
        alignments.Product(feedback="identity", expansion=1.0, **options), name, optimizer=optimizer
    )
    kolen_pollack = model(alignments.KolenPollack(**options), name, optimizer=optimizer)
    for ours, theirs in zip(product.layers, kolen_pollack.layers, strict=True):
        for weight in theirs.weights:
            mine = "backward_kernel_r" if weight.name == "backward_kernel" else weight.name
            getattr(ours, mine).assign(weight)
    start = product.layers[0].kernel.numpy()
    for made in (product, kolen_pollack):
        fit(made, name)
    assert np.abs(product.layers[0].kernel - start).max() > 1e-2
    for ours, theirs in zip(product.layers[:2], kolen_pollack.layers[:2], strict=True):
        np.testing.assert_allclose(ours.kernel, theirs.kernel, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(
            ours.backward_kernel_r, theirs.backward_kernel, rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("name", ["dense", "conv"])
def test_product_with_a_rate_of_zero_is_feedback(name):
    product = model(alignments.Product(update_forward=False), name)
    feedback = model("feedback", name)
    for ours, theirs in zip(product.layers, feedback.layers, strict=True):
        for weight in theirs.weights:
            if weight.name == "backward_kernel":
                weight.assign(ours.backward_kernel_value())
                ours.backward_kernel_r.trainable = False  # the rate of R
            else:
                weight.assign(getattr(ours, weight.name))
    start = product.layers[0].kernel.numpy()
    for made in (product, feedback):
        fit(made, name)
    assert np.abs(product.layers[0].kernel - start).max() > 1e-3
    for ours, theirs in zip(product.layers[:2], feedback.layers[:2], strict=True):
        np.testing.assert_allclose(ours.kernel, theirs.kernel, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(ours.bias, theirs.bias, rtol=1e-6, atol=1e-6)


def product_layer(units=40, **options):
    layer = Dense(units, alignment=alignments.Product(**options))
    layer.build((None, 30))
    return layer


@pytest.mark.parametrize("expansion", [1.0, 2.5, 10.0])
def test_the_fixed_factor_of_product(expansion):
    n = int(np.ceil(expansion * 40))
    gaussian = product_layer(expansion=expansion)
    q = gaussian.backward_kernel_q.numpy().astype("float64")
    assert q.shape == (n, 40)
    assert gaussian.backward_kernel_r.shape == (30, n)
    np.testing.assert_allclose(q.var(), 1.0 / n, rtol=0.12)
    assert abs(q.mean()) < 4.0 / np.sqrt(q.size * n)
    # Marchenko and Pastur: the edges of the spectrum of Q^T Q.
    eigenvalues = np.linalg.eigvalsh(q.T @ q)
    ratio = 1.0 / expansion
    np.testing.assert_allclose(eigenvalues.mean(), 1.0, rtol=0.12)
    assert eigenvalues.max() < 1.15 * (1.0 + np.sqrt(ratio)) ** 2
    assert eigenvalues.min() > 0.6 * (1.0 - np.sqrt(ratio)) ** 2

    q = product_layer(expansion=expansion, feedback="orthogonal").backward_kernel_q.numpy()
    np.testing.assert_allclose(q.T @ q, np.eye(40), atol=1e-5)


def test_the_identity_factor_of_product():
    layer = product_layer(expansion=1.0, feedback="identity")
    np.testing.assert_array_equal(layer.backward_kernel_q, np.eye(40))
    np.testing.assert_array_equal(layer.backward_kernel_value(), layer.backward_kernel_r)


def test_the_fixed_factor_is_not_trained():
    made = model("product")
    before = made.layers[0].backward_kernel_q.numpy()
    fit(made)
    np.testing.assert_array_equal(made.layers[0].backward_kernel_q, before)
    names = {w.name for w in made.layers[0].trainable_weights}
    assert names == {"kernel", "bias", "backward_kernel_r"}


@pytest.mark.parametrize("density", [0.1, 0.37, 0.5])
# The groups of a mixed rule have densities of their own.
@pytest.mark.parametrize("name", [n for n in alignments.layer_names() if n != "mixed"])
def test_exactly_the_fraction_is_kept_and_zeros_stay(name, density):
    made = model(alignments.get({"name": name, "density": density}), optimizer="adam")
    layer = made.layers[0]

    def values():
        if name != "product":
            return [layer.backward_kernel_value().numpy()]
        kept = layer.backward_kernel_r * layer.backward_mask
        return [kept.numpy(), layer.backward_kernel_q.numpy()]

    before = values()
    for value in before:
        assert np.count_nonzero(value) == round(density * value.size)
    fit(made, steps=2)
    for old, new in zip(before, values(), strict=True):
        np.testing.assert_array_equal(old == 0.0, new == 0.0)


def test_a_sparse_factor_keeps_its_variance():
    q = product_layer(density=0.25).backward_kernel_q.numpy()
    np.testing.assert_allclose((q**2).mean(), 1.0 / 400, rtol=0.1)


def test_masks_of_two_layers_differ():
    masks = []
    for _ in range(2):
        layer = Dense(6, alignment=alignments.Feedback(density=0.5))
        layer.build((None, 5))
        masks.append(layer.backward_mask.numpy())
    assert not np.array_equal(*masks)


def test_feedback_and_sign_symmetry_never_train_their_backward_weights():
    for variant in ("feedback", "sign_symmetry", "sign_symmetry:fixed_random"):
        layer = built(LAYERS["dense"], rule(variant))
        assert {w.name for w in layer.trainable_weights} == {"kernel", "bias"}


def test_the_mirror_of_akrouts_mnist_code():
    """Its step `B += 0.01 x^T y`, summed over the batch, for noise of 0.1 (U[0, 1) - 0.5)."""
    options = {"input_distribution": "uniform", "input_stddev": 0.05 / np.sqrt(3.0)}
    options |= {"use_bias_forward": True, "activation_forward": True}
    with pytest.warns(alignments.AlignmentWarning, match="grows without bound"):
        mirror = alignments.Mirror(amp_coef=6 * 0.01, decay_coef=0.0, **options)
    layer = built(LAYERS["dense"], mirror, activation="sigmoid")
    x = draw((6, 5))
    gradient = measure(layer, tf.constant(x), draw((6, 4), 1)).of_r["backward_kernel"]
    drawn = noise(layer.sites[0], x.shape)
    assert 0.02 < np.abs(drawn).max() <= 0.05
    y = 1.0 / (1.0 + np.exp(-(drawn @ layer.kernel.numpy() + layer.bias.numpy())))
    np.testing.assert_allclose(-gradient, 0.01 * drawn.T @ y, rtol=1e-4, atol=1e-7)
