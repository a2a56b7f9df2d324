"""Which gradient flows where, for every rule and layer, against float64 NumPy."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from neural_alignment import alignments, layers
from neural_alignment.layers import training_step
from tests.alignments import reference
from tests.layers.conformance import (
    COMPILED_BY_KERAS,
    LAYERS,
    PLAIN_RULES,
    REPRESENTATIVES,
    RULES,
    draw,
    rule,
)
from tests.layers.measure import (
    SEED,
    STEP,
    bias_for_outputs,
    built,
    groups,
    map_at,
    measure,
    numpy,
    output_shape,
    outputs,
    projections,
    reference_loss,
    trained,
    upstream_errors,
    values_at,
    weights,
)

# Layers that Keras compiles at every eager call get one rule of every kind here; all rules run
# through them in test_conformance, compiled once.
# Where all rules are slow tests, one of every kind is quick.
KINDS = ("feedback", "symmetric", "activation", "mirror", "product")
PAIRS = [
    (variant, name)
    if name in REPRESENTATIVES or variant in KINDS
    else pytest.param(variant, name, marks=pytest.mark.slow)
    for name in LAYERS
    if name not in COMPILED_BY_KERAS
    for variant in (RULES if name in REPRESENTATIVES else PLAIN_RULES)
] + [(variant, "conv2d_groups") for variant in ("information:amp", "mirror:forward", "product")]
EVERY_PAIR = pytest.mark.parametrize(("variant", "name"), PAIRS)


@functools.cache
def call(variant, name):
    """Layer, input, upstream error and what a call of it gave."""
    case = LAYERS[name]
    layer = built(case, rule(variant))
    x, dy = draw(case.input_shape), draw(output_shape(case), seed=1)
    return layer, x, dy, measure(layer, tf.constant(x), dy)


def assert_slopes(function, values, name, gradient, rng, rtol=2e-5):
    """The gradient's products with random directions are the function's slopes along them."""
    for _ in range(3):
        direction = rng.normal(size=values[name].shape)
        expected = reference.slope(
            lambda at: function({**values, name: at}),
            values[name],
            direction,  # noqa: B023
        )
        scale = np.abs(gradient * direction).sum()
        assert abs((gradient * direction).sum() - expected) <= rtol * scale + 1e-9, name


@EVERY_PAIR
def test_the_loss_reaches_the_kernels_only(variant, name):
    layer, _, _, measured = call(variant, name)
    reached = {key for key, g in measured.of_r.items() if g is not None and np.any(g)}
    if not layer.alignment.has_loss:
        assert measured.loss is None
        assert not reached
        return
    kernels = {site.place.kernel for site in layer.sites}
    expected = {name for site in layer.sites for name in trained(site)}
    if layer.alignment.update_forward:
        expected |= kernels
    # A factor, mask or input that gets zeros is not reached, and costs a gradient all the same.
    for never in {"x", "bias", *kernels} - expected:
        assert measured.of_r[never] is None, never
    fixed = {w.name for w in layer.non_trainable_weights}
    assert reached - fixed == expected


@EVERY_PAIR
def test_the_error_goes_back_through_the_backward_kernel(variant, name):
    layer, x, dy, measured = call(variant, name)
    values = weights(layer)
    expected = outputs(layer, x, values)
    np.testing.assert_allclose(measured.outputs, expected, rtol=1e-5, atol=1e-6)

    through_b = upstream_errors(layer, x, dy, values)[0]
    np.testing.assert_allclose(measured.of_j["x"], through_b, rtol=1e-4, atol=1e-5)
    through_w = upstream_errors(layer, x, dy, values, forward_kernel)[0]
    assert np.abs(measured.of_j["x"] - through_w).max() > 0.1 * np.abs(through_w).max()


def forward_kernel(site, values):
    return values[site.place.kernel]


@EVERY_PAIR
def test_the_forward_kernel_learns_as_in_backpropagation(variant, name):
    """Each kernel from the error that reaches it, through the backward kernels above it."""
    layer, x, dy, measured = call(variant, name)
    values = weights(layer)
    inputs = [at for at, _ in projections(layer, x, values)]
    errors = upstream_errors(layer, x, dy, values)[1:]
    rng = np.random.default_rng(2)
    for site, at, error in zip(layer.sites, inputs, errors, strict=True):
        key, linear = site.place.kernel, map_at(site)

        def j(values):
            projection = linear.apply(at, values[key])  # noqa: B023
            if not site.place.ends:  # noqa: B023
                return (error * projection).sum()  # noqa: B023
            return (dy * np.tanh(projection + bias_for_outputs(layer, values))).sum()

        for weight in (key, "bias") if site.place.ends else (key,):
            assert_slopes(j, values, weight, numpy(measured.of_j[weight]), rng)


@EVERY_PAIR
def test_a_tied_gradient_and_no_other_reaches_the_backward_kernel(variant, name):
    layer, _, _, measured = call(variant, name)
    values = weights(layer)
    if not layer.alignment.tie_grad:
        assert {measured.of_j[key] is None for key in values if "backward" in key} <= {True}
        return
    for site in layer.sites:
        dw = numpy(measured.of_j[site.place.kernel])
        of_j = values_at(site, measured.of_j)
        of_trained = {id(measured.of_j[name]) for name in trained(site)}
        at_groups = groups(site, values_at(site, values)), groups(site, of_j | {"kernel": dw})
        for (alignment, linear, own), (_, _, found) in zip(*at_groups, strict=True):
            gradients = {v: g for v, g in found.items() if v != "kernel" and g is not None}
            if not alignment.tie_grad:
                assert not gradients
                continue
            tied = numpy(linear.outputs_last(tf.constant(found["kernel"])))
            if "backward_kernel_q" in own:
                tied = tied @ own["backward_kernel_q"].T
            else:
                tied = tied @ own["backward_kernel_g"] if "backward_kernel_g" in own else tied
                tied = numpy(linear.from_outputs_last(tf.constant(tied), found["kernel"].shape))
            tied = tied * own.get("backward_mask", 1.0)
            (gradient,) = (g for g in gradients.values() if id(g) in of_trained)
            np.testing.assert_allclose(gradient, tied, rtol=1e-4, atol=1e-5)
            assert np.any(tied)


@EVERY_PAIR
def test_the_loss_and_its_gradients_are_those_of_the_equations(variant, name):
    layer, x, _, measured = call(variant, name)
    if not layer.alignment.has_loss:
        return
    values = weights(layer)
    np.testing.assert_allclose(measured.loss, reference_loss(layer, x, values), rtol=2e-5)
    assert measured.loss.dtype == "float32"
    rng = np.random.default_rng(4)
    kernels = {site.place.kernel for site in layer.sites}
    for key in sorted(kernels | {v for site in layer.sites for v in trained(site)}):
        if measured.of_r[key] is not None:
            gradient = numpy(measured.of_r[key])
            assert_slopes(lambda v: reference_loss(layer, x, v), values, key, gradient, rng)


def test_the_factors_of_product_are_those_of_the_outputs():
    """Q is on the output axis wherever the kernel has it; R has the kernel's other axes."""
    shapes = {
        "dense": ((5, 20), (20, 4)),
        "conv2d_groups": ((2, 2, 2, 20), (20, 4)),
        "einsum": ((5, 30), (30, 6)),
        "einsum_heads": ((6, 25), (25, 5)),
        "einsum_grouped": ((5, 40), (40, 8)),
        "depthwise2d": ((3, 2, 1, 30), (30, 6)),
        "conv1d_transpose": ((2, 2, 15), (15, 3)),
        "conv2d_transpose": ((3, 4, 2, 20), (20, 4)),
        "conv3d_transpose": ((2, 2, 2, 2, 15), (15, 3)),
    }
    for name, expected in shapes.items():
        layer = built(LAYERS[name], alignments.Product(expansion=5.0))
        factors = layer.backward_kernel_r.shape, layer.backward_kernel_q.shape
        assert factors == expected, name
        assert layer.backward_kernel_value().shape == layer.kernel.shape, name
    layer = built(LAYERS["separable2d"], alignments.Product(expansion=5.0))
    assert layer.backward_depthwise_kernel_r.shape == (3, 3, 1, 20)
    assert layer.backward_pointwise_kernel_r.shape == (1, 1, 4, 20)


SWITCHES = (
    "use_bias_forward",
    "use_bias_backward",
    "activation_forward",
    "activation_backward",
    "center_input",
    "normalize_input",
    "batch_center_backward_input",
    "center_forward_output",
    "normalize_forward_output",
    "batch_center_forward_output",
    "center_backward_output",
    "normalize_backward_output",
)


def option_sets():
    """Every switch alone, and random combinations with and without noise and update_forward."""
    sets = [{switch: True} for switch in SWITCHES]
    rng = np.random.default_rng(0)
    for i in range(14):
        chosen = {switch: True for switch in SWITCHES if rng.random() < 0.4}
        noise = {"input_distribution": ("normal", "uniform")[i % 2], "input_stddev": 0.7}
        extra = {"activation_fn_override": "sigmoid"} if i % 3 == 0 else {}
        own = {"input_distribution": None, "average_positions": i % 2 == 0}
        sets.append(chosen | extra | {"update_forward": i % 4 < 2} | (noise if i % 5 < 2 else own))
    return sets


PROJECTING = {
    "activation": {},
    "mirror": {},
    "information": {},
    "information:reversal": {"reconstruction_reversal": True},
    "information:amp": {"reconstruction_amp": True},
    "information:reversal_amp": {"reconstruction_amp": True, "reconstruction_reversal": True},
    "information:sparse": {"use_sparse": True},
}


@pytest.mark.parametrize("options", option_sets(), ids=lambda o: "-".join(o) or "none")
@pytest.mark.parametrize(
    "variant",
    [pytest.param(v, marks=pytest.mark.slow if ":" in v else ()) for v in PROJECTING],
)
def test_every_option_against_the_equations(variant, options):
    """Dense and a strided convolution by turns, with coefficients that weigh the terms alike."""
    case = LAYERS["dense" if len(options) % 2 else "conv2d_same"]
    alignment = alignments.rule(variant.partition(":")[0])(**PROJECTING[variant], **options)
    names = alignment.coefficient_names()
    alignment = alignment.replace(**dict(zip(names, (0.3, 0.5, 0.05), strict=False)))
    layer = built(case, alignment)
    x = draw(case.input_shape) + 0.5
    measured = measure(layer, tf.constant(x), draw(output_shape(case), 1))
    values = weights(layer)
    np.testing.assert_allclose(measured.loss, reference_loss(layer, x, values), rtol=5e-5)
    rng = np.random.default_rng(4)
    for key in ("backward_kernel", "kernel")[: 1 + alignment.update_forward]:
        gradient = numpy(measured.of_r[key])
        assert_slopes(lambda v: reference_loss(layer, x, v), values, key, gradient, rng, 1e-4)


def numerical_error(layer, key, x, dy):
    """Largest relative error of J's slopes along random directions, in float64."""
    measured = measure(layer, tf.constant(x), dy)
    gradient, kernel = numpy(measured.of_j[key]), layer.kernel.numpy()

    def j(at):
        if key == "kernel":
            layer.kernel.assign(at)
        with training_step(STEP, SEED):
            outputs = layer(at if key == "x" else x, training=True)
        return float(tf.reduce_sum(outputs * dy))

    errors = []
    for seed in range(2):
        at = x if key == "x" else kernel
        direction = np.random.default_rng(seed).normal(size=at.shape)
        expected = reference.slope(j, at, direction, 1e-5)
        layer.kernel.assign(kernel)
        scale = np.abs(gradient * direction).sum()
        errors.append(abs((gradient * direction).sum() - expected) / scale)
    return max(errors)


@pytest.mark.parametrize(
    "name", ["dense_rank3", "conv2d_same", "conv3d", "einsum", "depthwise2d", "conv2d_transpose"]
)
@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(v, marks=() if v in (*KINDS, "sign_symmetry") else pytest.mark.slow)
        for v in RULES
        if v in PLAIN_RULES or v.startswith(("sign", "product"))
    ],
)
def test_numerical_gradients_agree_exactly_when_the_kernels_are_equal(variant, name):
    case = LAYERS[name]
    layer = built(case, rule(variant), dtype="float64")
    x, dy = draw(case.input_shape).astype("float64"), draw(output_shape(case), 1).astype("float64")
    assert numerical_error(layer, "x", x, dy) > 1e-2
    assert numerical_error(layer, "kernel", x, dy) < 1e-7
    kept = {weight.name: tf.convert_to_tensor(weight) for weight in layer.weights}
    with training_step(STEP, SEED):
        seed = layer.sites[0].noise_seed(training=False)
    # In float64, which `backward_kernel_value` is not.
    made = layer.alignment.backward_kernel(kept["kernel"], kept, seed, linear=layer.linear())
    layer.kernel.assign(made)
    assert numerical_error(layer, "x", x, dy) < 1e-7


@pytest.mark.parametrize("variant", [v for v in RULES if not v.endswith(":identity")])
@pytest.mark.parametrize(
    "name",
    ["dense", "conv2d_transpose"]
    + [pytest.param(name, marks=pytest.mark.slow) for name in ("conv2d_same", "einsum")],
)
def test_fresh_layers_have_different_kernels(variant, name):
    case = LAYERS[name]
    shared = keras.initializers.GlorotNormal()
    for initializer in (None, keras.initializers.HeUniform(seed=5), shared):
        chosen = {} if initializer is None else {"kernel_initializer": initializer}
        pair = [case.make(rule(variant), **chosen) for _ in range(2)]
        for layer in pair:
            layer.build(case.input_shape)
            kernel, backward = layer.kernel.numpy(), layer.backward_kernel_value().numpy()
            differs = kernel != backward
            assert differs.mean() > 0.9
            assert not np.array_equal(kernel, backward)
        if initializer is None and rule(variant).trains_backward_kernel:
            first, second = (layer.backward_kernel_value().numpy() for layer in pair)
            assert not np.array_equal(first, second)


@pytest.mark.parametrize("initializer", ["glorot_uniform", "seeded", "shared"])
def test_backward_kernels_are_uncorrelated_with_kernels(initializer):
    """Not only unequal: the angle of large random kernels is close to a right one."""
    made = {
        "glorot_uniform": "glorot_uniform",
        "seeded": keras.initializers.VarianceScaling(seed=0),
        "shared": keras.initializers.RandomNormal(seed=keras.random.SeedGenerator(0)),
    }[initializer]
    for variant in ("feedback", "symmetric", "product"):
        layer = layers.Dense(80, alignment=variant, kernel_initializer=made)
        layer.build((None, 100))
        w, b = layer.kernel.numpy().ravel(), layer.backward_kernel_value().numpy().ravel()
        assert abs(np.corrcoef(w, b)[0, 1]) < 0.05
        np.testing.assert_allclose(b.std(), w.std(), rtol=0.15)


def test_tie_grad_of_the_operations():
    """Without tie_grad the backward kernel gets no gradient at all, with it the filter's."""
    x, w, b = draw((2, 5)), draw((5, 3), 1), draw((5, 3), 2)
    dy = draw((2, 3), 3)
    for tie in (False, True):
        tensors = [tf.constant(t) for t in (x, w, b)]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            outputs = layers.matmul(*tensors, tie_grad=tie)
        dx, dw, db = tape.gradient(outputs, tensors, dy)
        np.testing.assert_allclose(outputs, x @ w, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(dx, dy @ b.T, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(dw, x.T @ dy, rtol=1e-5, atol=1e-6)
        if tie:
            np.testing.assert_array_equal(db, dw)
        else:
            assert db is None


def test_kernels_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"forward kernel's shape \(5, 3\). Received: \(3, 5\)"):
        layers.matmul(draw((2, 5)), draw((5, 3)), draw((3, 5)))


@pytest.mark.parametrize("variant", ["feedback", "kolen_pollack", "mirror"])
def test_gradients_in_a_while_loop_are_the_eager_ones(variant):
    """A layer that is called again and again in a graph's loop, as by a recurrent cell."""
    layer = built(LAYERS["dense"], rule(variant), units=5)
    x = tf.constant(draw((3, 5)))
    kernel, backward = layer.kernel.value, layer.backward_kernel.value

    def gradients(x):
        with tf.GradientTape() as tape:
            tape.watch([x, kernel, backward])
            z = tf.while_loop(lambda i, z: i < 3, lambda i, z: (i + 1, layer(z)), (0, x))[1]
            total = tf.reduce_sum(z)
        return tape.gradient(total, [x, kernel, *[backward] * layer.alignment.tie_grad])

    for graph, eager in zip(tf.function(gradients)(x), gradients(x), strict=True):
        assert np.any(eager)
        np.testing.assert_allclose(graph, eager, rtol=1e-5, atol=1e-6)
