"""Angles and norms against float64 NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from neural_alignment import connection_metrics, layers, metrics
from tests.alignments.reference_maps import map_of
from tests.layers.conformance import LAYERS, PLAIN_RULES, draw, rule
from tests.layers.measure import built, output_shape


def angle(a, b):
    a, b = (np.asarray(t, "float64").ravel() for t in (a, b))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    return np.degrees(2.0 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b)))


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
@pytest.mark.parametrize("degrees", [1e-3, 0.1, 1.0, 45.0, 90.0, 179.0, 179.99])
def test_angles_of_all_sizes(degrees, scale):
    radians = np.radians(degrees)
    first = np.array([1.0, 0.0])
    second = np.array([np.cos(radians), np.sin(radians)]) * scale
    found = metrics.angle(first, second.astype("float32"))
    np.testing.assert_allclose(found, degrees, rtol=1e-4)


def test_angle_of_random_tensors():
    a, b = draw((3, 4, 5)), draw((3, 4, 5), 1)
    np.testing.assert_allclose(metrics.angle(a, b), angle(a, b), rtol=1e-5)
    np.testing.assert_allclose(metrics.angle(a, a + 1e-4 * b), angle(a, a + 1e-4 * b), rtol=1e-2)


def test_equal_opposite_and_zero_tensors():
    a, zero = draw((4, 5)), np.zeros((4, 5), "float32")
    assert metrics.angle(a, a) == 0.0
    np.testing.assert_allclose(metrics.angle(a, -a), 180.0)
    for pair in ((a, zero), (zero, a), (zero, zero)):
        np.testing.assert_allclose(metrics.angle(*pair), 90.0, rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_has_no_angle(value):
    w = draw((4, 5))
    spoilt = np.array(w)
    spoilt[1, 2] = value
    for pair in ((w, spoilt), (spoilt, w), (spoilt, spoilt), (spoilt, 0.0 * w)):
        assert np.isnan(metrics.angle(*pair))
        assert np.isnan(connection_metrics.weight_correlation(*pair)) or not pair[1].any()


def test_norms():
    w, b = draw((4, 5)), draw((4, 5), 1)
    expected = np.linalg.norm(b) / np.linalg.norm(w)
    np.testing.assert_allclose(metrics.norm_ratio(w, b), expected, rtol=1e-6)
    assert metrics.norm_ratio(0.0 * w, 0.0 * w) == 0.0
    np.testing.assert_allclose(metrics.squared_norm(w), (w**2).sum(), rtol=1e-6)
    np.testing.assert_allclose(metrics.mean_square(w), (w**2).mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics.weight_angle(w, b), angle(w, b), rtol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        "dense_rank3",
        "conv1d_causal",
        "conv2d_same",
        "conv3d",
        "einsum_heads",
        "depthwise2d",
        "conv2d_transpose",
    ],
)
def test_angles_of_the_paths(name):
    case = LAYERS[name]
    layer = built(case, "feedback")
    x, dy = draw(case.input_shape), draw(output_shape(case), 1)
    w, b = layer.kernel.numpy(), layer.backward_kernel.numpy()
    linear = map_of(layer)
    np.testing.assert_allclose(
        metrics.projection_angle(layer.linear(), x, w, b),
        angle(linear.apply(x, w), linear.apply(x, b)),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        metrics.local_gradient_angle(layer.linear(), tf.constant(x), tf.constant(dy), w, b),
        angle(linear.transpose(x.shape, b, dy), linear.transpose(x.shape, w, dy)),
        rtol=1e-5,
    )


def small_model(alignment, **changes):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(6, alignment=alignment, name="first", **changes),
            layers.Dense(3, alignment=alignment, name="last", **changes),
        ]
    )


def squares(labels, outputs):
    return tf.reduce_sum(tf.square(outputs - labels))


@pytest.mark.parametrize("variant", PLAIN_RULES)
def test_metrics_of_a_model(variant):
    model = small_model(rule(variant))
    x, labels = draw((7, 5)), draw((7, 3), 1)
    w1, w2 = (layer.kernel.numpy().astype("float64") for layer in model.layers)
    b1, b2 = (np.asarray(layer.backward_kernel_value(), "float64") for layer in model.layers)
    of_kernels = metrics.kernel_metrics(model)
    assert list(of_kernels) == [layer.path for layer in model.layers]
    for found, w, b in zip(of_kernels.values(), (w1, w2), (b1, b2), strict=True):
        np.testing.assert_allclose(found["weight_angle"], angle(w, b), rtol=1e-5)
        ratio = np.linalg.norm(b) / np.linalg.norm(w)
        np.testing.assert_allclose(found["norm_ratio"], ratio, rtol=1e-5)

    of_paths = metrics.path_metrics(model, x, labels, squares)
    first, last = (of_paths[layer.path] for layer in model.layers)
    np.testing.assert_allclose(first["projection_angle"], angle(x @ w1, x @ b1), rtol=1e-4)
    hidden = x @ w1
    np.testing.assert_allclose(last["projection_angle"], angle(hidden @ w2, hidden @ b2), rtol=1e-4)
    upstream = 2.0 * (hidden @ w2 - labels)
    delivered = upstream @ b2.T
    np.testing.assert_allclose(
        last["local_gradient_angle"], angle(delivered, upstream @ w2.T), rtol=1e-4
    )
    # The first layer's error is the one that the rule delivers, not backpropagation's.
    np.testing.assert_allclose(
        first["local_gradient_angle"], angle(delivered @ b1.T, delivered @ w1.T), rtol=1e-4
    )


@pytest.mark.parametrize(
    "changes", [{"dtype": "mixed_bfloat16", "lora_rank": 2}, {"dtype": "float64"}]
)
def test_metrics_under_other_dtypes(changes):
    model = small_model("symmetric", **changes)
    model.layers[0].kernel.dtype  # noqa: B018 - built
    for found in (
        metrics.kernel_metrics(model),
        metrics.path_metrics(model, draw((7, 5)), draw((7, 3), 1), lambda y, z: tf.reduce_sum(z)),
    ):
        for values in found.values():
            assert all(np.isfinite(value) for value in values.values())


def test_layers_of_nested_models_are_found_and_those_without_alignment_left_out():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, alignment="mirror", name="deep")])
    inputs = keras.Input((5,))
    x = layers.Dense(4, alignment="symmetric", name="outer")(inputs)
    x = layers.Dense(4, name="plain")(inner(x))
    model = keras.Model(inputs, keras.layers.Dense(2, name="stock")(x))
    names = {path.split("/")[-1] for path in metrics.kernel_metrics(model)}
    assert names == {"outer", "deep"}
    found = metrics.path_metrics(model, draw((3, 5)), draw((3, 2)), squares)
    assert {path.split("/")[-1] for path in found} == {"outer", "deep"}
