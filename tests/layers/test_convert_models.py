"""Conversion over a table: models as users build them, in the ways that models come about."""

import keras
import numpy as np
import pytest

from neural_alignment import layers
from tests.layers import conversion, origins

pytestmark = pytest.mark.backend

ALL_ORIGINS_FAST = ("stack", "aligned_stack")
CASES = [
    pytest.param(
        name,
        origin,
        id=f"{name}-{origin}",
        marks=() if origin == "as_built" or name in ALL_ORIGINS_FAST else pytest.mark.slow,
    )
    for name in conversion.MODELS
    for origin in origins.ORIGINS
    if origin not in origins.NOT_IN_KERAS.get(name, ())
]


def align(model):
    return layers.align(model, {"name": "symmetric"}, rest="backprop")


def there_and_back(model):
    return layers.strip(layers.align(layers.strip(model), "mirror", rest="backprop"))


CONVERSIONS = (layers.strip, align, there_and_back)


def facts(model):
    """What a conversion must not touch."""
    compiled = model.compiled and (model.optimizer, model.loss)
    flags = [weight.trainable for weight in model.weights]
    return (
        origins.values(model),
        flags,
        compiled,
        [keras.ops.convert_to_numpy(loss).tolist() for loss in model.losses],
    )


def described(model):
    """Names and flags of layers and weights, but for those of rules."""
    of_layers = [(layer.name, layer.trainable) for layer in model.layers]
    of_weights = [
        (weight.name.rstrip("_0123456789"), weight.trainable)
        for weight in model.weights
        if not weight.name.startswith(("backward", "noise_state"))
    ]
    return of_layers, of_weights


def seeds(model):
    found = [v for v in model.variables if "seed_generator" in v.name]
    return [keras.ops.convert_to_numpy(v.value).tolist() for v in found]


@pytest.mark.parametrize(("name", "origin"), CASES)
def test_the_copy_computes_the_same(name, origin, tmp_path):
    if name == "adapted":
        pytest.importorskip("tensorflow", reason="Keras's adapt() needs it on every back end")
    model = conversion.MODELS[name]()
    if name != "adapted":  # its constants are made of its weights when they are loaded
        origins.perturb(model)
    model = origins.ORIGINS[origin](model, tmp_path)
    x = origins.batch(model)
    expected = origins.outputs(model, x)
    before = facts(model)
    copies = [convert(model) for convert in CONVERSIONS]
    after = facts(model)
    assert after == before
    for copy in copies:
        for one, other in zip(expected, origins.outputs(copy, x), strict=True):
            np.testing.assert_array_equal(one, other)
        assert not copy.compiled
        assert type(copy) is type(model)
        assert described(copy) == described(model)
        assert seeds(copy) == seeds(model)
        assert not {id(v) for v in copy.variables} & {id(v) for v in model.variables}


def test_the_table_names_what_keras_cannot_do():
    for name, ways in origins.NOT_IN_KERAS.items():
        assert name in conversion.MODELS
        assert set(ways) <= set(origins.ORIGINS)
