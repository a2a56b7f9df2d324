"""Every layer that has a version here: from Keras's to ours and back."""

import keras
import numpy as np
import pytest

from neural_alignment import layers
from neural_alignment.layers import table
from tests.layers import conformance, origins

pytestmark = pytest.mark.backend

K = keras.layers


def _in_model(layer, *shapes):
    inputs = [keras.Input(shape) for shape in shapes]
    return keras.Model(inputs, layer(*inputs))


def _case(case):
    return lambda: _in_model(case.stock(**case.arguments), case.input_shape[1:])


MODELS = {
    name: (case.stock, _case(case))
    for name, case in conformance.LAYERS.items()
    if name not in conformance.COMPILED_BY_KERAS
    # Keras 3.8 refuses a padding of 0.
    and not (name.endswith("output_padding") and keras.__version__.startswith("3.8."))
} | {
    "attention": (
        K.MultiHeadAttention,
        lambda: _in_model(K.MultiHeadAttention(2, 3, value_dim=4, dropout=0.1), (4, 5), (6, 5)),
    ),
    "attention_without_bias": (
        K.MultiHeadAttention,
        lambda: _in_model(K.MultiHeadAttention(2, 3, use_bias=False), (4, 5), (6, 5)),
    ),
    "group_query": (
        K.GroupQueryAttention,
        lambda: _in_model(K.GroupQueryAttention(4, 4, 2), (4, 5), (4, 5)),
    ),
}


def test_every_row_is_tried():
    assert {stock for stock, _ in MODELS.values()} == set(table.VERSIONS)


@pytest.mark.parametrize(("stock", "ours"), table.VERSIONS.items(), ids=lambda cls: cls.__name__)
def test_a_row_names_a_public_class(stock, ours):
    assert issubclass(ours, stock)
    assert getattr(layers, ours.__name__) is ours


@pytest.mark.parametrize(
    "rule",
    ["mirror", *(pytest.param(rule, marks=pytest.mark.slow) for rule in ("product", "feedback"))],
)
@pytest.mark.parametrize("name", MODELS)
def test_there_and_back(name, rule):
    stock, build = MODELS[name]
    model = build()
    origins.perturb(model)
    x = origins.batch(model)
    aligned = layers.align(model, rule)
    again = layers.align(aligned, "symmetric")
    stripped = layers.strip(again)
    for copy, cls in (
        (aligned, table.VERSIONS[stock]),
        (again, table.VERSIONS[stock]),
        (stripped, stock),
    ):
        assert type(copy.layers[-1]) is cls
        assert origins.difference(model, copy, x) <= origins.ROUNDING
    assert {site.alignment.name for site in layers.sites(aligned)} == {rule}
    assert {site.alignment.name for site in layers.sites(again)} == {"symmetric"}
    assert not layers.sites(stripped)
    assert [weight.name for weight in stripped.weights] == [weight.name for weight in model.weights]


@pytest.mark.parametrize("name", ["dense", "separable2d", "attention"])
def test_a_layer_with_a_rule_is_skipped_with_all_its_weights(name):
    model = layers.align(MODELS[name][1](), "symmetric")
    origins.perturb(model)
    copy = layers.align(model, "feedback", skip=model.layers[-1].name)
    for old, new in zip(model.weights, copy.weights, strict=True):
        np.testing.assert_array_equal(origins.array(old), origins.array(new))


@pytest.mark.parametrize("name", ["dense", "separable2d", "attention"])
def test_a_frozen_layer_has_frozen_backward_kernels(name):
    model = MODELS[name][1]()
    model.layers[-1].trainable = False
    aligned = layers.align(model, "symmetric")
    assert not aligned.trainable_weights
    aligned.layers[-1].trainable = True
    backward = [w for w in aligned.trainable_weights if w.name.startswith("backward")]
    assert len(backward) == len(layers.sites(aligned))
