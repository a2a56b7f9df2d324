"""Product feedback in Dense layers: through its factors, or through their product, is the same."""

import warnings

import keras
import numpy as np
import pytest

from neural_alignment import alignments, layers
from neural_alignment.layers import training_step
from tests.backends.gradients import gradients
from tests.layers.conformance import draw

pytestmark = pytest.mark.backend

FAN_IN, UNITS, EXPANDED = 12, 10, 25
# The factors' way takes fewer multiplications for less than 12 * 10 / (12 + 10) = 5.5 places.
SHAPES = {
    "few": (5, FAN_IN),
    "many": (6, FAN_IN),
    "few_places": (1, 5, FAN_IN),
    "many_places": (3, 2, FAN_IN),
    "one": (1, FAN_IN),
}
DTYPES = {"float32": 1e-5, "float64": 1e-6, "mixed_bfloat16": 3e-2}


def _built(rule, dtype="float32"):
    layer = layers.Dense(UNITS, alignment=rule, dtype=dtype)
    layer.build((None, FAN_IN))
    for i, weight in enumerate(layer.weights):
        if "int" not in keras.backend.standardize_dtype(weight.dtype):
            value = draw(tuple(weight.shape), i)
            weight.assign(value > 0 if "mask" in weight.name else value)
    return layer


def _found(layer, x, dy):
    """dx and dR of `sum y dy`, and the layer's weights as arrays."""
    factor = {weight.name: weight for weight in layer.weights}["backward_kernel_r"]

    def j(values):
        with training_step(0, 0):
            outputs = layer(values["x"], training=True)
        outputs = keras.ops.cast(outputs, "float32")
        return keras.ops.sum(outputs * keras.ops.convert_to_tensor(dy)), {}

    _, _, of_j = gradients(j, {"x": x, "r": factor})
    weights = {w.name: np.asarray(keras.ops.convert_to_numpy(w), "float64") for w in layer.weights}
    return of_j, weights


def _equal(found, x, dy, weights, tolerance):
    r, q = weights["backward_kernel_r"], weights["backward_kernel_q"]
    mask = weights.get("backward_mask", 1.0)
    x, dy = x.astype("float64"), dy.astype("float64")
    flat_x, flat_dy = x.reshape(-1, FAN_IN), dy.reshape(-1, UNITS)
    expected = {"x": dy @ (mask * r @ q).T, "r": mask * (flat_x.T @ flat_dy @ q.T)}
    for name, value in expected.items():
        difference = np.abs(np.asarray(found[name], "float64") - value).max()
        assert difference <= tolerance * np.abs(value).max(), name


@pytest.mark.parametrize("density", [1.0, 0.5])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_those_of_float64(shape, dtype, density):
    if dtype == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has no float64 but where its switch is on")
    rule = alignments.Product(expansion=2.5, density=density)
    x, dy = draw(SHAPES[shape], 50), draw((*SHAPES[shape][:-1], UNITS), 51)
    layer = _built(rule, dtype)
    found, weights = _found(layer, x.astype("float64" if dtype == "float64" else "float32"), dy)
    _equal(found, x, dy, weights, DTYPES[dtype])


class _Halved(alignments.Product):
    """A product whose error is half as large."""

    name = "halved_product"

    def backward_kernel(self, forward_kernel, variables, seed=None, **kwargs):
        return 0.5 * super().backward_kernel(forward_kernel, variables, seed, **kwargs)


def test_a_subclass_s_own_backward_kernel_is_what_the_error_goes_through():
    x, dy = draw(SHAPES["few"], 50), draw((5, UNITS), 51)
    found, weights = _found(_built(_Halved(expansion=2.5)), x.astype("float32"), dy)
    composite = weights["backward_kernel_r"] @ weights["backward_kernel_q"]
    np.testing.assert_allclose(found["x"], 0.5 * dy @ composite.T, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="shapes are known elsewhere")
@pytest.mark.parametrize("batch", [5, 6])
@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
def test_a_batch_that_is_known_at_the_step_only(batch, jit):
    import tensorflow as tf

    layer = _built(alignments.Product(expansion=2.5))
    x, dy = draw((batch, FAN_IN), 50), draw((batch, UNITS), 51)

    @tf.function(
        jit_compile=jit,
        input_signature=[tf.TensorSpec((None, n), tf.float32) for n in (FAN_IN, UNITS)],
    )
    def step(inputs, upstream):
        factor = next(w for w in layer.weights if w.name == "backward_kernel_r").value
        with tf.GradientTape() as tape, training_step(0, 0):
            tape.watch(inputs)
            total = tf.reduce_sum(layer(inputs, training=True) * upstream)
        return tape.gradient(total, [inputs, factor])

    made = step(tf.constant(x, tf.float32), tf.constant(dy, tf.float32))
    weights = {w.name: np.asarray(w.numpy(), "float64") for w in layer.weights}
    found = dict(zip(("x", "r"), (one.numpy() for one in made), strict=True))
    _equal(found, x, dy, weights, 1e-5)


@pytest.mark.parametrize("coefficient", [0.0, 0.1])
def test_b_is_not_made_where_its_factors_serve(monkeypatch, coefficient):
    """Without a graph that would drop it, as on PyTorch, it costs `expansion` kernels' products."""
    made = []

    def counted(self, *args, **kwargs):
        made.append(original(self, *args, **kwargs))
        return made[-1]

    original = alignments.Product.backward_kernel
    monkeypatch.setattr(alignments.Product, "backward_kernel", counted)
    with warnings.catch_warnings(action="ignore"):  # that without a decay B is not W
        layer = _built(alignments.Product(decay_coef=coefficient, expansion=2.5))
    with training_step(0, 0) as active:
        layer(draw(SHAPES["few"]), training=True)
    assert len(active.losses) == (coefficient > 0.0) and not made
    r, w = layer.backward_kernel_r, layer.kernel
    squares = sum(np.sum(np.square(keras.ops.convert_to_numpy(one))) for one in (r, w))
    for _, value in active.losses:
        value = keras.ops.convert_to_numpy(value)
        np.testing.assert_allclose(value, coefficient * squares, rtol=1e-5)
    layer.backward_kernel_value()
    assert len(made) == 1
