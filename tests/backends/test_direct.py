"""Direct feedback on every back end: one update of an MLP against NumPy."""

import keras
import numpy as np
import pytest

from neural_alignment import layers

pytestmark = pytest.mark.backend


def value(x):
    return np.asarray(keras.ops.convert_to_numpy(x), "float64")


@pytest.mark.parametrize("rule", ["direct", "frozen"])
def test_one_update(rule):
    keras.utils.set_random_seed(0)
    parts = [keras.layers.Dense(6, "tanh", name="a"), keras.layers.Dense(4, "tanh", name="b")]
    stock = keras.Sequential([keras.Input((5,)), *parts, keras.layers.Dense(3, name="c")])
    model = layers.align(stock, rule)
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(8, 5)).astype("float32"), np.arange(8) % 3
    w = {name: value(model.get_layer(name).kernel) for name in "abc"}
    h = np.tanh(x @ w["a"])
    g = np.tanh(h @ w["b"])
    p = np.exp(g @ w["c"])
    e = (p / p.sum(1, keepdims=True) - np.eye(3)[labels]) / 8
    expected = {"c": g.T @ e, "b": 0.0, "a": 0.0}
    if rule == "direct":
        feedback = {v.name: value(v) for v in model.get_layer("direct_feedback").weights}
        expected["b"] = h.T @ (e @ feedback["backward_c"] * (1 - g**2))
        expected["a"] = x.T @ (e @ feedback["backward_b"] * (1 - h**2))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1.0), loss)
    model.train_on_batch(x, labels)
    for name, gradient in expected.items():
        moved = w[name] - value(model.get_layer(name).kernel)
        np.testing.assert_allclose(moved, gradient, rtol=1e-3, atol=1e-5, err_msg=name)
