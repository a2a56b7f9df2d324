"""Subclasses with a `call` of their own follow the layer's rule, or are refused by name."""

import keras
import numpy as np
import pytest

from neural_alignment import layers
from tests.callbacks.networks import value

pytestmark = pytest.mark.backend

X = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")


class Past(layers.Dense):
    def call(self, inputs, training=None):
        return keras.ops.matmul(inputs, keras.ops.convert_to_tensor(self.kernel))


class Untold(layers.Dense):
    def call(self, inputs):
        return 2.0 * super().call(inputs)


class Forgetful(layers.Dense):
    def call(self, inputs, training=None):
        return 2.0 * super().call(inputs)


class Right(layers.Dense):
    def call(self, inputs, training=None):
        return 2.0 * super().call(inputs, training)


class Always(layers.Dense):
    """Says itself that it trains."""

    def call(self, inputs):
        return super().call(inputs, training=True)


class PastRight(Right):
    def call(self, inputs, training=None):
        return inputs


class AboveForgetful(Forgetful):
    def call(self, inputs, training=None, mask=None):
        return super().call(inputs, training=training) + 1.0


class Pointwise(layers.Conv1D):
    def call(self, inputs, training=None):
        return inputs[..., : self.filters]


PAST, HANDS = r"computes by super\(\).call", "that hands `training` on"
# The class, what happens in inference, and in training: a part of the error, or None.
CLASSES = {
    "Past": (Past, PAST, PAST),
    "PastRight": (PastRight, PAST, PAST),
    "Untold": (Untold, HANDS, HANDS),
    "Forgetful": (Forgetful, None, HANDS),
    "AboveForgetful": (AboveForgetful, None, HANDS),
    "Right": (Right, None, None),
    "Always": (Always, None, None),
    "Dense": (layers.Dense, None, None),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("rule", ["feedback", "symmetric", "moving_average", None])
@pytest.mark.parametrize("name", CLASSES)
def test_a_call_of_ones_own_follows_the_rule_or_is_refused(name, rule, training):
    cls, *expected = CLASSES[name]
    layer = cls(2, alignment=rule, name="mine")
    message = expected[training]
    # Rules that only send the error back learn nothing in training.
    if rule is None or (message == HANDS and rule == "feedback"):
        message = None
    if message is None:
        assert layer(X, training=training).shape[0] == len(X)
        if rule == "symmetric":
            assert len(layer.losses) == (training or cls is Always)
        return
    with pytest.raises(ValueError, match=message) as error:
        layer(X, training=training)
    assert f"{cls.__name__}.call of layer 'mine' (rule {rule!r})" in str(error.value)


@pytest.mark.parametrize("cls", [Past, Forgetful])
def test_in_time_distributed_too(cls):
    layer = keras.layers.TimeDistributed(cls(2, alignment="mirror", name="mine"))
    with pytest.raises(ValueError, match=f"Received: {cls.__name__}.call of layer"):
        layer(X[:, None], training=True)


def test_align_refuses_what_would_leave_the_rule_out():
    inputs = keras.Input((5, 3))
    model = keras.Model(inputs, Pointwise(2, 1, name="cut")(inputs))
    with pytest.raises(ValueError, match="Received: Pointwise.call of layer .*cut' \\(rule"):
        layers.align(model, "feedback")
    kept = layers.align(model, "feedback", skip="cut")
    x = np.ones((2, 5, 3), "float32")
    np.testing.assert_array_equal(*(value(made(x)) for made in (kept, model)))
