"""What align and strip say and are told: rules, `skip`, `rest`, the report, what is kept."""

import keras
import numpy as np
import pytest

from neural_alignment import alignments, layers
from tests.layers import conversion, origins

pytestmark = pytest.mark.backend

K = keras.layers


def _model(*extra):
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            K.Conv2D(3, 3, padding="same", activation="relu", name="first"),
            K.BatchNormalization(name="norm"),
            *extra,
            K.Flatten(name="flat"),
            K.Dense(4, name="head"),
        ],
        name="net",
    )


def _functional():
    inputs = keras.Input((6,), name="inputs")
    hidden = K.Dense(5, activation="tanh", name="a")(inputs)
    inner = keras.Sequential([keras.Input((5,)), K.Dense(5, name="b")], name="inner")
    outputs = K.Dense(2, name="c")(K.Add(name="add")([hidden, inner(hidden)]))
    return keras.Model(inputs, outputs, name="functional")


def _names(model):
    return [layer.name for layer in layers.aligned_layers(model)]


@pytest.mark.parametrize("rule", alignments.layer_names())
@pytest.mark.parametrize("build", [_model, _functional])
def test_same_outputs_with_a_rule_and_without(rule, build):
    model = build()
    x = np.random.default_rng(0).normal(size=(3, *model.input_shape[1:])).astype("float32")
    aligned = layers.align(model, {"name": rule})
    assert [layer.alignment.name for layer in layers.aligned_layers(aligned)] == [rule] * (
        2 if build is _model else 3
    )
    assert origins.difference(model, aligned, x) == 0.0
    stripped = layers.strip(aligned)
    assert not layers.aligned_layers(stripped)
    assert len(stripped.weights) == len(model.weights)
    assert origins.difference(model, stripped, x) == 0.0


def test_another_rule_replaces_the_first():
    first = layers.align(_model(), "feedback")
    aligned = layers.align(first, "symmetric")
    assert {layer.alignment.name for layer in layers.aligned_layers(aligned)} == {"symmetric"}
    for old, new in zip(*map(layers.aligned_layers, (first, aligned)), strict=True):
        assert np.any(origins.array(old.backward_kernel) != origins.array(new.backward_kernel))


def test_a_layer_that_is_skipped_keeps_its_rule_and_its_weights():
    model = conversion.aligned_stack()
    aligned = layers.align(model, "feedback", skip=K.Dense)
    before, after = map(layers.aligned_layers, (model, aligned))
    assert [layer.alignment.name for layer in after] == ["feedback", "activation", "mirror"]
    for old, new in zip(before[1:], after[1:], strict=True):
        kernels = old.backward_kernel, new.backward_kernel
        np.testing.assert_array_equal(*map(origins.array, kernels))
    states = before[2].noise_state, after[2].noise_state
    np.testing.assert_array_equal(*map(origins.array, states))


def test_a_subclass_of_ours_keeps_its_class():
    class Mine(layers.Dense):
        pass

    model = keras.Sequential([keras.Input((3,)), Mine(2, alignment="feedback", name="mine")])
    for copy, rule in ((layers.align(model, "mirror"), "mirror"), (layers.strip(model), None)):
        layer = copy.get_layer("mine")
        assert type(layer) is Mine
        assert (layer.alignment and layer.alignment.name) == rule


def test_a_layer_type_without_a_rule_is_refused_by_name():
    model = _model(_kernel("own"))
    with pytest.raises(ValueError, match="'own', a Kernel.*skip.*rest='backprop'"):
        layers.align(model, "symmetric")
    aligned = layers.align(model, "symmetric", skip=("own",))
    assert _names(aligned) == _names(layers.align(model, "symmetric", rest="backprop"))
    assert _names(aligned) == ["first", "head"]
    with pytest.raises(ValueError, match="Expected a rule's name"):
        layers.align(model, "symetric")
    with pytest.raises(ValueError, match="rest='error' or rest='backprop'. Received: 'skip'"):
        layers.align(model, "symmetric", rest="skip")


class Kernel(K.Layer):
    """A layer with a kernel of another name."""

    def build(self, input_shape):
        self.w = self.add_weight(shape=(input_shape[-1], input_shape[-1]), name="w")

    def call(self, inputs):
        return inputs @ self.w


def _kernel(name):
    return Kernel(name=name)


# Layers by what `align` makes of them: with a kernel of no version here, or without one.
WITH_KERNEL = {
    "lstm": lambda: K.LSTM(3, name="it"),
    "gru": lambda: K.GRU(3, name="it"),
    "rnn": lambda: K.RNN(K.SimpleRNNCell(3), name="it"),
    "bidirectional": lambda: K.Bidirectional(K.LSTM(3), name="it"),
    "conv_lstm": lambda: K.ConvLSTM1D(2, 2, name="it"),
    "block": lambda: conversion.Block(3, name="it"),
    "block_model": lambda: conversion.BlockModel(3, name="it"),
    "custom": lambda: Kernel(name="it"),
    "inside_time_distributed": lambda: K.TimeDistributed(conversion.Block(3, name="it")),
    "spectral": lambda: K.SpectralNormalization(K.Dense(3), name="it"),
    "subclass": lambda: type("Own", (K.Dense,), {})(3, name="it"),
    "frozen": lambda: K.LSTM(3, trainable=False, name="it"),
}
WITHOUT_KERNEL = {
    "embedding": lambda: K.Embedding(7, 3),
    "batch": K.BatchNormalization,
    "layer": lambda: K.LayerNormalization(axis=(1, 2)),
    "group": lambda: K.GroupNormalization(1),
    "prelu": K.PReLU,
    "prelu_shared": lambda: K.PReLU(shared_axes=[1]),
    "scaled": conversion.Scaled,
    "positions": conversion.Positions,
    "attention": lambda: K.Attention(use_scale=True),
    "dropout": lambda: K.SpatialDropout1D(0.5),
}


def _around(layer):
    shape = (4, 5, 3) if "ConvLSTM" in type(layer).__name__ else (4, 5)
    inputs = keras.Input(shape)
    h = layer([inputs, inputs] if isinstance(layer, K.Attention) else inputs)
    return keras.Model(inputs, K.Dense(2, name="head")(h))


@pytest.mark.parametrize("name", WITH_KERNEL)
def test_layers_whose_kernel_has_no_version_are_refused(name):
    model = _around(WITH_KERNEL[name]())
    with pytest.raises(ValueError, match="(?s)Expected layers with a kernel.*Received: 'it'"):
        layers.align(model, "symmetric")
    assert _names(layers.align(model, "symmetric", skip="it")) == ["head"]
    assert _names(layers.align(model, "symmetric", rest="backprop")) == ["head"]


@pytest.mark.parametrize("name", WITHOUT_KERNEL)
def test_layers_without_a_kernel_need_no_word(name):
    assert _names(layers.align(_around(WITHOUT_KERNEL[name]()), "symmetric")) == ["head"]


def test_many_layers_are_refused_in_one_message():
    model = keras.Sequential([keras.Input((4,)), *(_kernel(f"own{i}") for i in range(9))])
    with pytest.raises(ValueError, match="'own0', a Kernel; .*'own5', a Kernel; and 3 more"):
        layers.align(model, "symmetric")


def _tower(*, inner):
    """Its layers: own, lstm, inner's deep, each's dense, head."""
    inputs = keras.Input((4, 5))
    h = K.TimeDistributed(K.Dense(5, name="dense"), name="each")(_kernel("own")(inputs))
    return keras.Model(inputs, K.Dense(2, name="head")(inner(K.LSTM(3, name="lstm")(h))))


@pytest.mark.parametrize(
    ("skip", "left"),
    [
        (["own", "lstm"], ["dense", "deep", "head"]),
        ([Kernel, K.LSTM], ["dense", "deep", "head"]),
        (lambda layer: isinstance(layer, (Kernel, K.LSTM)), ["dense", "deep", "head"]),
        ({"own", K.LSTM}, ["dense", "deep", "head"]),
        ((name for name in ("own", "lstm", "head")), ["dense", "deep"]),
        ([Kernel, "lstm", lambda layer: layer.name == "deep"], ["dense", "head"]),
        (["own", K.LSTM, K.TimeDistributed], ["deep", "head"]),
        (["own", K.LSTM, "dense"], ["deep", "head"]),
        (K.Layer, []),
        (lambda layer: not isinstance(layer, K.TimeDistributed) and layer.trainable, []),
        (["own", K.LSTMCell, K.Embedding], ["dense", "deep", "head"]),
    ],
    ids=[
        "names",
        "classes",
        "predicate",
        "set",
        "generator",
        "mixed",
        "wrapper class",
        "name inside a wrapper",
        "every layer",
        "every layer with a kernel",
        "classes that are there or not",
    ],
)
def test_what_is_skipped(skip, left):
    inner = keras.Sequential([keras.Input((3,)), K.Dense(3, name="deep")], name="inner")
    model = _tower(inner=inner)
    aligned = layers.align(model, "symmetric", skip=skip)
    assert _names(aligned) == left
    assert origins.difference(model, aligned, origins.batch(model)) == 0.0


def test_layers_of_a_nested_model_are_skipped_together():
    inner = keras.Sequential([keras.Input((3,)), K.Dense(3, name="deep")], name="inner")
    model = _tower(inner=inner)
    aligned = layers.align(model, "symmetric", skip=inner.layers, rest="backprop")
    assert _names(aligned) == ["dense", "head"]


@pytest.mark.parametrize(("skip", "left"), [("c", "ab"), (["c"], "ab"), (("a", "b"), "c")])
def test_skip_takes_one_name_or_several(skip, left):
    assert _names(layers.align(_functional(), "symmetric", skip=skip)) == list(left)


def test_a_name_is_skipped_as_a_whole():
    model = keras.Sequential([keras.Input((3,)), K.Dense(3, name="a"), K.Dense(2, name="head")])
    assert _names(layers.align(model, "symmetric", skip="head")) == ["a"]


@pytest.mark.parametrize("name", ["typo", "inner"])
def test_a_name_to_skip_that_no_layer_has_is_refused(name):
    with pytest.raises(ValueError, match=f"names of layers to skip: .*c. Received: '{name}'"):
        layers.align(_functional(), "symmetric", skip=("a", name))


@pytest.mark.parametrize(
    ("skip", "error", "words"),
    [
        (K.Dense(3, name="foreign"), ValueError, "'foreign', a Dense"),
        (keras.Sequential, ValueError, "Sequential"),
        ([3], TypeError, "names, classes, layers or functions.*Received: 3"),
        (str, TypeError, "classes of layers in `skip`. Received: str"),
    ],
    ids=str,
)
def test_what_can_skip_nothing_is_refused(skip, error, words):
    with pytest.raises(error, match=f"(?s)Expected .*{words}"):
        layers.align(_functional(), "symmetric", skip=skip)


def test_the_report_says_what_became_of_each_layer(capsys):
    model = conversion.wrappers()
    aligned = layers.align(model, "mirror", skip="each", rest="backprop", summary=True)
    report = layers.conversion_report(aligned)
    assert capsys.readouterr().out == report + "\n"
    rows = {line.split()[0]: line.split()[1:] for line in report.splitlines()[2:]}
    assert report.startswith(f"Model {model.name!r}, layers with a kernel: ")
    assert rows["each"] == ["TimeDistributed"]
    assert rows["both"] == ["Bidirectional", "backprop"]
    assert rows[model.layers[-1].name] == ["Dense", "mirror"]
    stripped = layers.conversion_report(layers.strip(aligned))
    assert "mirror" not in stripped
    shared = layers.conversion_report(conversion.nested())
    assert [line.split()[0] for line in shared.splitlines() if "as above" in line] == [
        "inner",
        "innermost",
    ]


def test_the_summary_goes_where_keras_writes(capsys):
    keras.config.disable_interactive_logging()
    try:
        layers.align(_functional(), "mirror", summary=True)
    finally:
        keras.config.enable_interactive_logging()
    assert capsys.readouterr().out == ""


def test_the_losses_of_the_last_call_stay():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, K.Dense(2, activity_regularizer="l2")(inputs))
    model(np.ones((2, 3)))
    before = [id(loss) for loss in model.losses]
    layers.strip(model)
    assert len(before) == 1
    assert [id(loss) for loss in model.losses] == before


def _one(rule, built=True):
    layer = layers.Dense(2, alignment=rule, name="it")
    if built:
        layer.build((None, 3))
    return layer


def _attention(rule):
    layer = layers.MultiHeadAttention(2, 3, alignment=rule, name="it")
    layer.build((None, 4, 5), (None, 4, 5))
    return layer


MIRROR = {"name": "mirror", "input_distribution": "normal"}
# A layer, the rule that it is given later, and whether that fits its weights.
GIVEN_LATER = {
    "not built": (lambda: _one("feedback", built=False), "mirror", True),
    "other coefficients": (
        lambda: _one("symmetric"),
        {"name": "symmetric", "self_coef": 3.0},
        True,
    ),
    "the same": (lambda: _one("product"), "product", True),
    "attention, the same": (lambda: _attention("mirror"), "mirror", True),
    "weights that are not there": (lambda: _one("symmetric"), "product", False),
    "B that trains and did not": (lambda: _one("feedback"), "symmetric", False),
    "B that does not and did": (lambda: _one("symmetric"), "feedback", False),
    "noise that was none": (lambda: _one("symmetric"), MIRROR, False),
    "gradients to W": (
        lambda: _one("symmetric"),
        {"name": "symmetric", "update_forward": True},
        False,
    ),
    "built without": (lambda: _one(None), "symmetric", False),
    "attention": (lambda: _attention("mirror"), "feedback", False),
    "attention, none": (lambda: _attention("mirror"), None, False),
}


@pytest.mark.parametrize("case", GIVEN_LATER)
def test_a_rule_that_is_given_later_fits_the_weights_or_is_refused(case):
    make, rule, fits = GIVEN_LATER[case]
    layer = make()
    before = layer.alignment
    if not fits:
        with pytest.raises(ValueError, match=r"Expected .*layer .*'it'.*align\(model, rule\)"):
            layer.alignment = rule
        assert layer.alignment is before
        return
    layer.alignment = rule
    assert layer.alignment == alignments.get(rule)
    if "attention" not in case:
        x = np.ones((2, 3), "float32")
        assert np.all(np.isfinite(keras.ops.convert_to_numpy(layer(x, training=True))))


def test_a_rule_is_turned_off_and_on():
    layer = _one("symmetric")
    layer.alignment = None
    layer(np.ones((2, 3)), training=True)
    assert not layer.sites and not layer.losses
    with pytest.raises(ValueError, match="built with Symmetric"):
        layer.alignment = "feedback"
    layer.alignment = "symmetric"
    layer(np.ones((2, 3)), training=True)
    assert len(layer.sites) == len(layer.losses) == 1
    with pytest.raises(ValueError, match="a rule of single layers"):
        layer.alignment = "direct"
