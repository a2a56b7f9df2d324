"""Angles and norm ratios in the logs of `fit`."""

import csv

import keras
import numpy as np
import pytest

from neural_alignment import alignments, layers, metrics
from neural_alignment.callbacks import AlignmentMetrics
from tests.callbacks.networks import LABELS, X, fit, nested, value

pytestmark = pytest.mark.backend

KERNELS = ("weight_angle", "norm_ratio", "weight_correlation", "one_way", "both_ways")
ERRORS = ("error_angle", "error_norm", "backprop_norm")
PATHS = ("projection_angle", "local_gradient_angle")
ANGLES = ("weight_angle", *PATHS)


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def keys(names, measures=KERNELS):
    return {f"{measure}/{name}" for measure in measures for name in names}


@pytest.mark.parametrize(
    "alignment", ["mirror", alignments.Mirror(input_distribution="normal")], ids=["own", "noise"]
)
def test_metrics_are_logged_and_change_no_bit_of_the_training(alignment):
    plain, measured = nested(alignment), nested(alignment)
    without = fit(plain)
    logged = fit(measured, AlignmentMetrics(X, LABELS))
    assert logged["loss"] == without["loss"]
    for ours, theirs in zip(measured.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    found = metrics.named_sites(measured)
    assert list(found) == ["first", "inner/deep", "last"]
    assert set(logged) == {"loss"} | keys(found, (*KERNELS, *PATHS, *ERRORS))
    for name, site in found.items():
        values = logged[f"norm_ratio/{name}"]
        assert len(values) == 2
        kernel, backward = value(site.kernel), value(site.layer.backward_kernel)
        ratio = np.linalg.norm(backward) / np.linalg.norm(kernel)
        np.testing.assert_allclose(values[-1], ratio, rtol=1e-5)


def test_without_a_batch_the_kernels_alone_are_measured():
    logged = fit(nested("symmetric"), AlignmentMetrics(), epochs=1)
    assert {key.partition("/")[0] for key in logged} == {"loss", *KERNELS}


def tower(name, alignment="mirror"):
    """A model whose layers have the same names each time."""
    return keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(4, alignment=alignment, name="conv"),
            layers.Dense(3, alignment=alignment, name="head"),
        ],
        name=name,
    )


def two_towers():
    inputs = keras.Input((5,))
    left, right = tower("left"), tower("right")
    outputs = keras.layers.Add()([left(inputs), right(inputs)])
    return keras.Model(inputs, outputs)


def unnamed():
    return keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(4, alignment="mirror"),
            keras.layers.ReLU(),
            layers.Dense(4, alignment="mirror", name="middle"),
            layers.Dense(3, alignment="mirror"),
        ]
    )


def shared():
    inputs, layer = keras.Input((5,)), layers.Dense(5, alignment="mirror", name="again")
    return keras.Model(inputs, layer(layer(inputs)))


def twice_the_same_tower():
    inputs, one = keras.Input((5,)), tower("one")
    return keras.Model(inputs, keras.layers.Add()([one(inputs), one(-inputs)]))


def wrapped():
    inputs = keras.Input((2, 5))
    dense = layers.Dense(3, alignment="mirror", name="inside")
    return keras.Model(inputs, keras.layers.TimeDistributed(dense, name="steps")(inputs))


NAMES = {
    two_towers: {"left/conv", "left/head", "right/conv", "right/head"},
    unnamed: {"dense#1", "middle", "dense#2"},
    shared: {"again"},
    twice_the_same_tower: {"one/conv", "one/head"},
    wrapped: {"steps/inside"},
}


@pytest.mark.parametrize("make", NAMES, ids=lambda make: make.__name__)
def test_keys_depend_on_the_model_alone(make, tmp_path):
    first, second = make(), make()
    for made in (first, second):
        assert set(metrics.named_sites(made)) == NAMES[make]
    callback = AlignmentMetrics()
    callback.set_model(second)
    callback.on_epoch_end(0, logs := {})
    assert set(logs) == keys(NAMES[make])
    second.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert list(metrics.named_sites(loaded)) == list(metrics.named_sites(second))


def test_both_towers_of_equal_paths_are_measured():
    made = two_towers()
    by_path = metrics.kernel_metrics(made)
    assert len(by_path) == 4
    named = metrics.kernel_metrics(made, metrics.named_sites(made))
    assert sorted(map(str, by_path.values())) == sorted(map(str, named.values()))
    assert len({values["weight_angle"] for values in named.values()}) == 4


def two_paths():
    """Two inputs, each through a layer of its own to an output of its own."""
    made = [keras.Input((5,), name="left"), keras.Input((6,), name="right")]
    outputs = [layers.Dense(3, alignment="mirror", name=f"to_{x.name}")(x) for x in made]
    return keras.Model(made, outputs)


@pytest.mark.parametrize("as_dict", [False, True])
def test_metrics_of_a_model_with_two_inputs_and_a_layer_apart_from_the_loss(as_dict):
    x = {"left": X, "right": draw((8, 6))}
    callback = AlignmentMetrics(
        x if as_dict else list(x.values()), LABELS, lambda _, outputs: outputs[0][0, 0] ** 2
    )
    callback.set_model(two_paths())
    callback.on_epoch_end(0, logs := {})
    assert logs.keys() == {
        *keys(["to_left"], (*KERNELS, *PATHS, *ERRORS)),
        *keys(["to_right"], (*KERNELS, "projection_angle")),
    }
    assert all(0.0 < logs[f"{name}/to_left"] < 180.0 for name in ANGLES)


def angle(a, b):
    a, b = (np.asarray(t, "float64").ravel() for t in (a, b))
    return np.degrees(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))


def compiled(loss, **options):
    keras.utils.set_random_seed(0)
    dense = layers.Dense(3, alignment="mirror", name="only")
    made = keras.Sequential([keras.Input((5,)), dense])
    made.compile("sgd", loss, **options)
    return made, dense


@pytest.mark.parametrize(
    ("loss", "labels", "error"),
    [
        ("mse", draw((8, 3), 1), lambda y, z: z - y),
        ("mae", draw((8, 3), 1), lambda y, z: np.sign(z - y)),
        (
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            LABELS,
            lambda y, z: np.exp(z) / np.exp(z).sum(-1, keepdims=True) - np.eye(3)[y],
        ),
    ],
    ids=["mse", "mae", "cross-entropy"],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_the_compiled_one(loss, labels, error, weighted):
    made, dense = compiled(loss)
    weights = np.arange(8.0, dtype="float32") if weighted else None
    logged = made.fit(
        X,
        labels,
        verbose=0,
        callbacks=[AlignmentMetrics(X, labels, sample_weight=weights)],
    ).history
    upstream = error(labels, X @ value(dense.kernel) + value(dense.bias))
    if weighted:
        upstream = upstream * weights[:, None]
    paths = [upstream @ value(kernel).T for kernel in (dense.kernel, dense.backward_kernel)]
    # After an update of the weights, at which they were measured.
    np.testing.assert_allclose(logged["local_gradient_angle/only"], angle(*paths), rtol=1e-3)


def test_several_outputs_with_weights_of_their_own():
    made = two_paths()
    made.compile("sgd", ["mse", "mae"], loss_weights=[1.0, 0.0])
    x, y = [X, draw((8, 6))], [draw((8, 3), 1), draw((8, 3), 2)]
    logged = made.fit(x, y, verbose=0, callbacks=[AlignmentMetrics(x, y)]).history
    assert "local_gradient_angle/to_left" in logged
    assert "local_gradient_angle/to_right" not in logged  # its loss has the weight 0


def angle_of(made, x, y):
    (measured,) = metrics.path_metrics(made, x, y).values()
    return measured["local_gradient_angle"]


def test_masked_positions_do_not_count():
    keras.utils.set_random_seed(0)
    dense = layers.Dense(3, alignment="feedback", name="only")
    made = keras.Sequential([keras.Input((4, 5)), keras.layers.Masking(), dense])
    made.compile("sgd", "mse")
    x, y = draw((2, 4, 5)), draw((2, 4, 3), 1)
    x[:, 2:] = 0.0
    with_padding = angle_of(made, x, y)
    y[:, 2:] += 100.0
    changed = angle_of(made, x, y)
    np.testing.assert_allclose(changed, with_padding, rtol=1e-5)


@pytest.mark.parametrize("first", [True, False])
def test_a_csv_file_has_every_column_wherever_its_logger_stands(first, tmp_path):
    logger = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    callbacks = [logger, AlignmentMetrics(X, LABELS)]
    made = nested("mirror")
    history = fit(made, *(callbacks if first else reversed(callbacks)), validation_data=(X, LABELS))
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == set(history) | {"epoch"}
    assert {"loss", "val_loss"} | keys(metrics.named_sites(made)) < set(history)
    assert not [key for key in history if key.startswith("val_") and "/" in key]
    for key, values in history.items():
        np.testing.assert_allclose([float(row[key]) for row in rows], values, rtol=1e-6)


def test_the_model_is_left_as_it_was_even_by_a_failure():
    class Fails(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise RuntimeError("stop")

    made = nested("mirror")
    with pytest.raises(RuntimeError, match="stop"):
        fit(made, AlignmentMetrics(), Fails())
    fit(made, AlignmentMetrics())
    assert set(fit(made)) == {"loss"}


def test_bad_arguments():
    with pytest.raises(ValueError, match="Expected inputs and labels together"):
        AlignmentMetrics(X)
    with pytest.raises(ValueError, match="Expected a sample_weight with a batch"):
        AlignmentMetrics(sample_weight=np.ones(8))
    with pytest.raises(ValueError, match="Expected a compiled model.*or a loss"):
        metrics.path_metrics(unnamed(), X, LABELS)


def batches():
    for first in range(0, 8, 4):
        yield X[first : first + 4], LABELS[first : first + 4]


# A batch, and what a message says of it; None: it is taken.
BATCHES = {
    "lists of numbers": ((X.tolist(), LABELS.tolist()), "inputs of a batch.* list of single"),
    "labels as a list": ((X, LABELS.tolist()), "labels of a batch.* list of single numbers"),
    "a generator": ((batches(), LABELS), "inputs of a batch.* a generator"),
    "one number": ((X, 3), "labels of a batch.* int of single numbers"),
    "no example": ((X[:0], LABELS[:0]), "one example at least.* inputs of 0; labels of 0"),
    "fewer labels": ((X[:4], LABELS), "as many in each part.* inputs of 4; labels of 8"),
    "fewer weights": ((X, LABELS, None, np.ones(3)), "labels of 8; sample_weight of 3"),
    "inputs that differ": (([X, X[:3]], LABELS), "inputs of 3, 8; labels of 8"),
    "one example": ((X[:1], LABELS[:1]), None),
    "numbers of 64 bits": ((X.astype("float64"), LABELS.astype("int8")), None),
    "tensors": ((keras.ops.convert_to_tensor(X), keras.ops.convert_to_tensor(LABELS)), None),
}


@pytest.mark.parametrize("name", BATCHES)
def test_what_is_a_batch(name):
    """Told when the callback is made, not when an epoch is over."""
    given, words = BATCHES[name]
    if words is not None:
        weights = given[3] if len(given) > 3 else None
        with pytest.raises(ValueError, match=f"(?s)Expected .*{words}"):
            AlignmentMetrics(*given)
        with pytest.raises(ValueError, match=f"(?s)Expected .*{words}"):
            metrics.path_metrics(nested("mirror"), *given[:3], sample_weight=weights)
        return
    assert keys(["last"], PATHS) < set(fit(nested("mirror"), AlignmentMetrics(*given), epochs=1))


# Inputs that the model, of five features, does not take, and what came as the message has it.
MISFITS = {
    "fewer features": (X[:, :4], "\\(None, 4\\)"),
    "one axis more": (X[:, None, :], "\\(None, 1, 5\\)"),
    "two inputs": ([X, X], "\\(None, 5\\), \\(None, 5\\)"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_inputs_that_the_model_does_not_take_are_told_before_it_trains(name):
    given, came = MISFITS[name]
    made = nested("feedback")
    before = [value(weight) for weight in made.weights]
    with pytest.raises(ValueError, match=f"as the model takes them, .*5\\). Received: {came}"):
        fit(made, AlignmentMetrics(given, LABELS))
    for weight, earlier in zip(made.weights, before, strict=True):
        np.testing.assert_array_equal(value(weight), earlier)


class Subclassed(keras.Model):
    """A model whose inputs are known when it is called."""

    def __init__(self):
        super().__init__()
        self.first = layers.Dense(4, alignment="feedback")
        self.last = layers.Dense(3, alignment="feedback")

    def call(self, inputs, training=None):
        return self.last(self.first(inputs, training=training), training=training)


def unbuilt():
    return keras.Sequential([layers.Dense(n, alignment="feedback") for n in (4, 3)])


def failing(labels, outputs):
    raise TypeError("no such labels")


# What is wrong: inputs, labels, a loss of one's own, sample weights.
UNFIT = {
    "inputs": ({"inputs": X[:, :4], "labels": LABELS}, "\\(8, 4\\) and \\(8,\\)"),
    "labels": ({"inputs": X, "labels": np.ones((8, 2, 2), "int32")}, "and \\(8, 2, 2\\)"),
    "loss": ({"inputs": X, "labels": LABELS, "loss": failing}, "no such labels"),
}


@pytest.mark.parametrize("make", [Subclassed, unbuilt, lambda: nested("feedback")])
@pytest.mark.parametrize("name", UNFIT)
def test_a_batch_that_cannot_be_measured_is_told_at_the_first_batch(name, make):
    given, told = UNFIT[name]
    made, ended = make(), []
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile("sgd", loss, run_eagerly=True)
    count = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: ended.append(batch),
        on_epoch_end=lambda epoch, logs: ended.append("epoch"),
    )
    # What is known when training starts, on PyTorch of a Sequential model too, is told then.
    at_once = name == "inputs" and not isinstance(made, Subclassed)
    told = f"takes them, .* Received: \\(None, 4\\)|{told}" if at_once else told
    with pytest.raises(ValueError, match=f"Expected inputs .*of a batch as the model .*({told})"):
        fit(made, count, AlignmentMetrics(**given), batch_size=2)
    assert ended in ([], [0])
