"""Errors along the whole path against float64 passes written by hand; correlations of pairs."""

import keras
import numpy as np
import pytest

from neural_alignment import alignments, connection_metrics, error_metrics, layers, metrics

SIZES = (6, 7, 5, 4, 3)
X = np.random.default_rng(0).normal(size=(9, SIZES[0])).astype("float32")
LABELS = np.arange(9) % SIZES[-1]
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(alignment):
    """Four Dense layers, tanh between them."""
    keras.utils.set_random_seed(2)
    inputs = x = keras.Input((SIZES[0],))
    for i, units in enumerate(SIZES[1:]):
        last = i == len(SIZES) - 2
        x = layers.Dense(
            units,
            None if last else "tanh",
            alignment=alignment,
            bias_initializer="random_normal",
            name=f"d{i}",
        )(x)
    return keras.Model(inputs, x)


def value(x):
    return np.asarray(keras.ops.convert_to_numpy(x), "float64")


def errors_by_hand(model, backward_kernels):
    """The errors at the inputs of all layers, in float64."""
    kernels = [value(layer.kernel) for layer in model.layers[1:]]
    biases = [value(layer.bias) for layer in model.layers[1:]]
    activations = [X.astype("float64")]
    for w, b in zip(kernels[:-1], biases[:-1], strict=True):
        activations.append(np.tanh(activations[-1] @ w + b))
    logits = activations[-1] @ kernels[-1] + biases[-1]
    p = np.exp(logits - logits.max(1, keepdims=True))
    error = (p / p.sum(1, keepdims=True) - np.eye(SIZES[-1])[LABELS]) / len(X)
    found = []
    for i in reversed(range(len(kernels))):
        at_input = error @ backward_kernels[i].T
        found.insert(0, at_input)
        error = at_input * (1.0 - activations[i] ** 2) if i else None
    return found


def angle(a, b):
    return np.degrees(np.arccos((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)))


@pytest.mark.parametrize(
    "rule", ["feedback", "symmetric", "sign_symmetry", "product", "moving_average"]
)
def test_error_angles_are_those_of_two_passes_by_hand(rule):
    model = network(rule)
    found = error_metrics.error_metrics(model, X, LABELS, LOSS, metrics.named_sites(model))
    backward = [value(layer.backward_kernel_value()) for layer in model.layers[1:]]
    forward = [value(layer.kernel) for layer in model.layers[1:]]
    ours, theirs = errors_by_hand(model, backward), errors_by_hand(model, forward)
    assert list(found) == [f"d{i}" for i in range(4)]
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        values = found[f"d{i}"]
        assert values["error_angle"] == pytest.approx(angle(a, b), abs=2e-2)
        norms = np.linalg.norm(a), np.linalg.norm(b)
        assert values["error_norm"] == pytest.approx(norms[0] / norms[1], rel=1e-4)
        assert values["backprop_norm"] == pytest.approx(norms[1], rel=1e-4)


def test_at_the_last_layer_it_is_the_local_angle_and_not_elsewhere():
    model = network("feedback")
    local = metrics.path_metrics(model, X, LABELS, LOSS)
    whole = error_metrics.error_metrics(model, X, LABELS, LOSS)
    assert whole.keys() == local.keys()
    apart = {
        name: abs(whole[name]["error_angle"] - local[name]["local_gradient_angle"])
        for name in whole
    }
    assert apart["d3"] < 1e-3
    assert all(apart[name] > 0.1 for name in ("d0", "d1", "d2"))


@pytest.mark.parametrize("rule", ["feedback", "kolen_pollack", "product"])
def test_zero_where_the_kernels_are_equal(rule):
    model = network(rule)
    for layer in model.layers[1:]:
        layer.kernel.assign(layer.backward_kernel_value())
    for values in error_metrics.error_metrics(model, X, LABELS, LOSS).values():
        assert values["error_angle"] < 1e-3
        assert values["error_norm"] == pytest.approx(1.0, rel=1e-5)


def test_of_convolutions_and_skips_nothing_is_left_out():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(3, 3, padding="same", activation="tanh", alignment="feedback", name="a")(
        inputs
    )
    x = keras.layers.Add()([x, inputs])
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(3, alignment="feedback", name="b")(x))
    images = np.random.default_rng(1).normal(size=(9, 6, 6, 3)).astype("float32")
    before = model.get_weights()
    found = error_metrics.error_metrics(model, images, LABELS, LOSS)
    assert found.keys() == {"a", "b"}
    assert 20.0 < found["a"]["error_angle"] < 160.0
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("density", [1.0, 0.3])
def test_correlation_and_shares(density):
    rng = np.random.default_rng(3)
    w = rng.normal(size=(20, 30))
    b = 0.5 * w + rng.normal(size=w.shape) + 0.2
    b *= rng.random(w.shape) < density
    w *= rng.random(w.shape) < 0.8
    both = (w != 0) & (b != 0)
    expected = np.corrcoef(w[both], b[both])[0, 1]
    assert float(connection_metrics.weight_correlation(w, b)) == pytest.approx(expected, abs=1e-5)
    one_way, both_ways = connection_metrics.connected_shares(w, b)
    assert float(one_way) == pytest.approx(((w != 0) ^ (b != 0)).mean(), abs=1e-6)
    assert float(both_ways) == pytest.approx(both.mean(), abs=1e-6)
    assert connection_metrics.weight_correlation(w, 0.0 * w) == 0.0


def test_connections_of_a_sparse_rule():
    model = network(alignments.Feedback(density=0.25))
    for layer in model.layers[1:]:
        share = round(0.25 * layer.kernel.shape[0] * layer.kernel.shape[1])
        share /= layer.kernel.shape[0] * layer.kernel.shape[1]
        values = connection_metrics.connection_metrics(model)[layer.path]
        assert values["both_ways"] == pytest.approx(share, abs=1e-6)
        assert values["one_way"] == pytest.approx(1.0 - share, abs=1e-6)
