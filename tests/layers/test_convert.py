"""Giving a model's layers a rule, and taking it off again."""

import keras
import numpy as np
import pytest

from neural_alignment import alignments, layers


def _model(*extra):
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            keras.layers.Conv2D(3, 3, padding="same", activation="relu", name="first"),
            keras.layers.BatchNormalization(name="norm"),
            *extra,
            keras.layers.Flatten(name="flat"),
            keras.layers.Dense(4, name="head"),
        ],
        name="net",
    )


def _functional():
    inputs = keras.Input((6,), name="inputs")
    hidden = keras.layers.Dense(5, activation="tanh", name="a")(inputs)
    inner = keras.Sequential([keras.Input((5,)), keras.layers.Dense(5, name="b")], name="inner")
    outputs = keras.layers.Dense(2, name="c")(keras.layers.Add(name="add")([hidden, inner(hidden)]))
    return keras.Model(inputs, outputs, name="functional")


@pytest.mark.parametrize("rule", alignments.names())
@pytest.mark.parametrize("build", [_model, _functional])
def test_same_outputs_with_a_rule_and_without(rule, build):
    model = build()
    x = np.random.default_rng(0).normal(size=(3, *model.input_shape[1:])).astype("float32")
    aligned = layers.align(model, {"name": rule})
    assert [layer.alignment.name for layer in layers.aligned_layers(aligned)] == [rule] * (
        2 if build is _model else 3
    )
    np.testing.assert_array_equal(aligned(x), model(x))
    stripped = layers.strip(aligned)
    assert not layers.aligned_layers(stripped)
    assert len(stripped.weights) == len(model.weights)
    np.testing.assert_array_equal(stripped(x), model(x))


def test_another_rule_replaces_the_first():
    aligned = layers.align(layers.align(_model(), "feedback"), "symmetric")
    assert {layer.alignment.name for layer in layers.aligned_layers(aligned)} == {"symmetric"}


def test_a_layer_type_without_a_rule_is_refused_by_name():
    model = _model(keras.layers.DepthwiseConv2D(3, name="depthwise"))
    with pytest.raises(ValueError, match="'depthwise', a DepthwiseConv2D.*skip"):
        layers.align(model, "symmetric")
    aligned = layers.align(model, "symmetric", skip=("depthwise",))
    assert [layer.name for layer in layers.aligned_layers(aligned)] == ["first", "head"]
    with pytest.raises(ValueError, match="Expected a rule's name"):
        layers.align(model, "symetric")


@pytest.mark.parametrize(("skip", "left"), [("c", "ab"), (["c"], "ab"), (("a", "b"), "c")])
def test_skip_takes_one_name_or_several(skip, left):
    aligned = layers.align(_functional(), "symmetric", skip=skip)
    assert [layer.name for layer in layers.aligned_layers(aligned)] == list(left)


def test_a_name_is_skipped_as_a_whole():
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(3, name="a"), keras.layers.Dense(2, name="head")]
    )
    aligned = layers.align(model, "symmetric", skip="head")
    assert [layer.name for layer in layers.aligned_layers(aligned)] == ["a"]


@pytest.mark.parametrize("name", ["typo", "inner"])
def test_a_name_to_skip_that_no_layer_has_is_refused(name):
    with pytest.raises(ValueError, match=f"names of layers to skip: .*c. Received: '{name}'"):
        layers.align(_functional(), "symmetric", skip=("a", name))
