"""Errors along the whole path against float64 passes written by hand; correlations of pairs."""

import csv

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks import digits, operations, steps
from neural_alignment import alignments, connection_metrics, error_metrics, layers, metrics
from neural_alignment.callbacks import AlignmentMetrics

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


def dense(model):
    return [model.get_layer(f"d{i}") for i in range(4)]


def direct_network(activation="tanh", **options):
    """The same of Keras's own layers, with errors straight from the logits."""
    keras.utils.set_random_seed(2)
    stock = [keras.Input((SIZES[0],))]
    for i, units in enumerate(SIZES[1:]):
        last = i == len(SIZES) - 2
        stock.append(keras.layers.Dense(units, None if last else activation, name=f"d{i}"))
    return layers.align(keras.Sequential(stock), alignments.Direct(**options))


def value(x):
    return np.asarray(keras.ops.convert_to_numpy(x), "float64")


def errors_by_hand(model, backward_kernels):
    """The errors at the inputs of all layers, in float64; e itself is the last."""
    kernels = [value(layer.kernel) for layer in dense(model)]
    biases = [value(layer.bias) for layer in dense(model)]
    activations = [X.astype("float64")]
    for w, b in zip(kernels[:-1], biases[:-1], strict=True):
        activations.append(np.tanh(activations[-1] @ w + b))
    logits = activations[-1] @ kernels[-1] + biases[-1]
    p = np.exp(logits - logits.max(1, keepdims=True))
    error = (p / p.sum(1, keepdims=True) - np.eye(SIZES[-1])[LABELS]) / len(X)
    found = [error]
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
    assert_errors(found, ours[:-1], theirs[:-1])


def assert_errors(found, ours, theirs):
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        values = found[f"d{i}"]
        assert values["error_angle"] == pytest.approx(angle(a, b), abs=2e-2)
        norms = np.linalg.norm(a), np.linalg.norm(b)
        assert values["error_norm"] == pytest.approx(norms[0] / norms[1], rel=1e-4)
        assert values["backprop_norm"] == pytest.approx(norms[1], rel=1e-4)


@pytest.mark.parametrize("size", [1e5, 1.0, 1e-4, 1e-7])
@pytest.mark.parametrize("rule", ["feedback", "direct"])
def test_errors_of_any_size_come_through_float16(rule, size):
    """Of a net that has learnt they are below its smallest number: training scales the loss."""

    def measured(policy):
        keras.config.set_dtype_policy(policy)
        try:
            model = direct_network() if rule == "direct" else network(rule)
        finally:
            keras.config.set_dtype_policy("float32")
        batch = model, X, LABELS, lambda labels, outputs: size * LOSS(labels, outputs)
        return metrics.path_metrics(*batch), error_metrics.error_metrics(*batch)

    for exact, half in zip(measured("float32"), measured("mixed_float16"), strict=True):
        assert half.keys() == exact.keys()
        for name, values in exact.items():
            for key, number in values.items():
                assert half[name][key] == pytest.approx(number, rel=5e-3), (name, key)


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
    for constant in (0.1, 1.7, -3e4):  # float32 has no exact mean of these
        flat = np.full((300, 7), constant, np.float32)
        other = np.random.default_rng(0).standard_normal((300, 7)).astype(np.float32)
        for pair in ((flat, flat), (flat, other), (other, flat)):
            assert connection_metrics.weight_correlation(*pair) == 0.0
    near = 1.0 + 1e-3 * other  # a small spread around a large mean is no constant
    assert float(connection_metrics.weight_correlation(near, near)) == pytest.approx(1.0, abs=1e-3)


def test_connections_of_a_sparse_rule():
    model = network(alignments.Feedback(density=0.25))
    for layer in model.layers[1:]:
        share = round(0.25 * layer.kernel.shape[0] * layer.kernel.shape[1])
        share /= layer.kernel.shape[0] * layer.kernel.shape[1]
        values = connection_metrics.connection_metrics(model)[layer.path]
        assert values["both_ways"] == pytest.approx(share, abs=1e-6)
        assert values["one_way"] == pytest.approx(1.0 - share, abs=1e-6)


# ---- direct feedback


@pytest.mark.parametrize("options", [{}, {"density": 0.5}, {"projection": "full"}], ids=str)
def test_direct_feedback_is_compared_where_it_arrives(options):
    model = direct_network(**options)
    found = error_metrics.error_metrics(model, X, LABELS, LOSS)
    feedback = {w.name: value(w) for w in model.get_layer("direct_feedback").weights}
    exact = errors_by_hand(model, [value(layer.kernel) for layer in dense(model)])
    delivered = [exact[-1] @ feedback[f"backward_d{i}"] for i in range(4)]
    assert list(found) == [f"d{i}" for i in range(4)]
    assert_errors(found, delivered, exact[:-1])


def test_direct_feedback_by_the_product_of_the_kernels_is_backpropagation():
    model = direct_network(activation=None)
    through = np.eye(SIZES[-1])
    for layer, feedback in zip(
        reversed(dense(model)), reversed(model.get_layer("direct_feedback").weights), strict=True
    ):
        through = through @ value(layer.kernel).T
        feedback.assign(through)
    for values in error_metrics.error_metrics(model, X, LABELS, LOSS).values():
        assert values["error_angle"] < 1e-3
        assert values["error_norm"] == pytest.approx(1.0, rel=1e-5)


def test_at_blocks_the_error_is_the_blocks():
    """Of a skip and a branch: what comes to where the block begins on both ways."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIZES[0],))
    h = keras.layers.Dense(5, name="d0")(inputs)
    y = keras.layers.Add()([h, keras.layers.Dense(5, name="d1")(h)])
    stock = keras.Model(inputs, keras.layers.Dense(SIZES[-1], name="d2")(y))
    model = layers.align(stock, alignments.Direct(points="blocks"))
    found = error_metrics.error_metrics(model, X, LABELS, LOSS)
    w0, w1, w2 = (value(model.get_layer(f"d{i}").kernel) for i in range(3))
    logits = value(model(X))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    e = (p - np.eye(SIZES[-1])[LABELS]) / len(X)
    at_y = e @ w2.T
    at_h = at_y + at_y @ w1.T
    feedback = {w.name: value(w) for w in model.get_layer("direct_feedback").weights}
    exact = [at_h @ w0.T, at_h, at_y]
    assert_errors(found, [e @ feedback[f"backward_d{i}"] for i in range(3)], exact)


def test_points_of_equal_names_in_two_models_are_all_there():
    def tower(name):
        parts = [keras.layers.Dense(5, "tanh", name="a"), keras.layers.Dense(4, name="b")]
        return layers.align(keras.Sequential([keras.Input((6,)), *parts], name=name), "direct")

    left, right = tower("left"), tower("right")
    inputs = keras.Input((6,))
    joined = keras.layers.Concatenate()([left(inputs), right(inputs)])
    head = layers.Dense(3, alignment="feedback", name="b")
    model = keras.Model(inputs, head(joined))
    x = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    of = {"b": layers.sites(model)[0]}
    measured = error_metrics.error_metrics(model, x, np.arange(8) % 3, loss, of)
    assert set(measured) == {"b", "a#1", "a#2", "b#2", "b#3"}
    assert len({values["error_angle"] for values in measured.values()}) == 5


def test_a_model_of_ones_own_is_measured_and_frozen_has_no_error():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.d0, self.d1 = keras.layers.Dense(5, "tanh"), keras.layers.Dense(SIZES[-1])
            self.stop, self.feedback = layers.StopError(), layers.DirectFeedback()

        def call(self, x):
            h = self.d0(x)
            return self.feedback([self.d1(self.stop(h)), h])

    model = Net()
    model(X)
    found = error_metrics.error_metrics(model, X, LABELS, LOSS)
    assert list(found) == ["point0"]
    assert 0.0 < found["point0"]["error_angle"] < 180.0
    frozen = layers.align(keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)]), "frozen")
    assert error_metrics.error_metrics(frozen, X, LABELS, LOSS) == {}


@pytest.mark.parametrize("rule", ["direct", "symmetric"])
def test_measuring_leaves_the_compiled_step_as_it_was(rule):
    def counted(model):
        step = steps.training_step(model, jit=True)
        return operations.count_xla(step, tf.constant(X), tf.constant(LABELS, "int32"))

    model = direct_network() if rule == "direct" else network(rule)
    before = counted(model)
    assert len(error_metrics.error_metrics(model, X, LABELS, LOSS)) == 4
    assert counted(model) == before


def test_in_fit_direct_feedback_is_logged():
    model = direct_network()
    model.compile(keras.optimizers.SGD(0.0), LOSS)
    callback = AlignmentMetrics(X, LABELS)
    logs = model.fit(X, LABELS, verbose=0, callbacks=[callback]).history
    found = error_metrics.error_metrics(model, X, LABELS)
    assert {f"error_angle/d{i}" for i in range(4)} <= set(logs)
    for name, values in found.items():
        for measure, expected in values.items():
            assert logs[f"{measure}/{name}"] == [pytest.approx(expected, rel=1e-5)]


@pytest.mark.slow
def test_on_the_digits_lenet_feedback_is_far_from_backpropagation_and_symmetric_near(tmp_path):
    """The first layers' errors after training: FA above 60 degrees, SA below 1."""
    angles = {}
    for preset in ("digits_feedback", "digits_symmetric"):
        fv = digits.job_flags(preset, 0, tmp_path / preset, "lenet5", "--path_metrics")
        digits.train(fv)
        with open(tmp_path / preset / "layers.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        last = [row for row in rows if row["epoch"] == rows[-1]["epoch"]]
        angles[preset] = [float(row["error_angle"]) for row in last]
    assert min(angles["digits_feedback"][:2]) > 60.0, angles
    assert max(angles["digits_symmetric"]) < 1.0, angles
