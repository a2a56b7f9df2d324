"""R in a layer's compute type: how far it is from float64, and what is multiplied in bfloat16."""

import warnings

import keras
import numpy as np
import pytest

from benchmarks import operations
from neural_alignment import alignments, layers, noise
from neural_alignment.layers import training_step
from tests.backends.gradients import gradients
from tests.layers.conformance import LAYERS, draw

pytestmark = pytest.mark.backend

BACKEND = keras.backend.backend()
# JAX has no float64 where nobody asks for it; beside bfloat16 float32 is exact.
EXACT = "float32" if BACKEND == "jax" else "float64"
STEP, SEED = 7, 3
WITH_LOSS = [
    name
    for name in alignments.layer_names()
    if issubclass(alignments.rule(name), alignments.LayerwiseAlignment)
]
PROJECTING = [n for n in WITH_LOSS if "input_distribution" in alignments.rule(n).option_names()]
CASES = {
    **{name: {} for name in WITH_LOSS},
    **{f"{name}:own": {"input_distribution": None} for name in PROJECTING},
    **{f"{name}:noise": {"input_distribution": "normal"} for name in PROJECTING},
    "information:reversal": {"reconstruction_reversal": True, "null_coef": 0.1},
    "information:amp": {"reconstruction_amp": True, "use_sparse": True, "null_coef": 0.1},
    "information:forward": {"update_forward": True, "average_positions": False},
}
# A product has operands and a result, each rounded by 2^-9 of itself; null, the longest chain,
# squares a product of a product, and its gradient is a third: at most 14 roundings.
BOUND = 14 * 2.0**-9


def rule(case, **changes):
    with warnings.catch_warnings():  # of coefficients that are 0
        warnings.simplefilter("ignore")
        return alignments.get({"name": case.partition(":")[0], **CASES[case], **changes})


def r_and_gradients(case, alignment, dtype, size=1.0, absolute=False):
    """R of a layer and its gradients, with weights and an input that bfloat16 can hold."""
    layer = case.make(alignment, dtype=dtype, name="layer")
    layer.build(case.input_shape)

    def value(shape, seed):
        drawn = keras.ops.cast(keras.ops.cast(draw(shape, seed), "bfloat16"), "float32")
        drawn = keras.ops.convert_to_numpy(drawn)
        return np.abs(drawn) if absolute else drawn

    for i, weight in enumerate(layer.weights):
        if "int" not in keras.backend.standardize_dtype(weight.dtype):
            weight.assign(value(tuple(weight.shape), i))
        else:
            weight.assign([17, 4])
    sources = {w.name: w for w in layer.weights if "int" not in str(w.dtype)}

    def loss(values):
        with training_step(STEP, SEED) as active:
            layer(size * value(case.input_shape, 9), training=True)
        ((_, r),) = active.losses
        return r, {}

    r, _, found = gradients(loss, sources)
    return r, {name: np.zeros(()) if g is None else g for name, g in found.items()}


def of_absolute_values(case, variant, monkeypatch):
    """What R and its gradients would be if nothing cancelled: of absolute values, term by term."""
    normal = noise.normal
    with monkeypatch.context() as patch:
        patch.setattr(noise, "normal", lambda *args: keras.ops.abs(normal(*args)))
        whole, total, sums = rule(variant), 0.0, {}
        names = whole.coefficient_names()
        for name in names:
            if not getattr(whole, name):
                continue
            alone = rule(variant, **{other: 0.0 for other in names if other != name})
            r, found = r_and_gradients(case, alone, EXACT, absolute=True)
            total += abs(r)
            sums = {key: sums.get(key, 0.0) + np.abs(g) for key, g in found.items()}
    return total, sums


@pytest.mark.parametrize("variant", [v for v in CASES if not rule(v).disturbs_input])
@pytest.mark.parametrize("name", ["dense", "conv2d_same"] if BACKEND == "tensorflow" else ["dense"])
def test_bfloat16_is_near_float64(name, variant, monkeypatch):
    case = LAYERS[name]
    r, exact = r_and_gradients(case, rule(variant), EXACT)
    low_r, low = r_and_gradients(case, rule(variant), "mixed_bfloat16")
    size, sizes = of_absolute_values(case, variant, monkeypatch)
    assert abs(low_r - r) <= BOUND * size + 1e-6
    for key, gradient in exact.items():
        assert (np.abs(low[key] - gradient) <= BOUND * sizes[key] + 1e-6).all(), key


# Options of phaseless, how many times its noise the input is, and the error of B's gradient.
NOISY = {
    "clean": ({}, 20.0, 0.01),
    "clean, large inputs": ({}, 400.0, 0.01),
    "clean, activation": ({"activation_forward": True, "use_bias_forward": True}, 20.0, 0.03),
    "batch": ({"high_pass": "batch"}, 20.0, 0.1),
}


@pytest.mark.parametrize("name", NOISY)
def test_phaseless_noise_is_not_lost_in_bfloat16(name):
    """What it does to an output is not the difference of two outputs, of which it is a fraction."""
    options, times, error = NOISY[name]
    case, alignment = LAYERS["conv2d_same"], rule("phaseless", **options)
    size = times * alignment.noise_stddev
    _, exact = r_and_gradients(case, alignment, EXACT, size)
    _, low = r_and_gradients(case, alignment, "mixed_bfloat16", size)
    expected, found = exact["backward_kernel"], low["backward_kernel"]
    assert np.linalg.norm(found - expected) < error * np.linalg.norm(expected)


@pytest.mark.parametrize("variant", ["activation:own", "information:own", "mirror:noise"])
def test_float16_sums_r_in_float32(variant):
    """R's sums pass float16's largest number, 65504, and its smallest, 6e-8."""
    case = LAYERS["conv2d_same"]
    for size in (1.0, 256.0, 2.0**-8):
        r, exact = r_and_gradients(case, rule(variant), EXACT, size)
        half_r, half = r_and_gradients(case, rule(variant), "mixed_float16", size)
        assert half_r == pytest.approx(r, rel=1e-4)
        for key, gradient in exact.items():
            np.testing.assert_allclose(
                half[key], gradient, rtol=1e-4, atol=1e-4 * np.abs(gradient).max()
            )


def network(alignment, dtype):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", alignment=alignment, dtype=dtype)(
        inputs
    )
    x = layers.Conv2D(6, 3, strides=2, padding="same", alignment=alignment, dtype=dtype)(x)
    x = keras.layers.GlobalAveragePooling2D(dtype=dtype)(x)
    return keras.Model(inputs, layers.Dense(10, alignment=alignment, dtype=dtype)(x))


def types_of_products(model):
    """The types of every convolution and matrix product in the HLO of a training step."""
    images, labels = np.zeros((2, 8, 8, 3), "float32"), np.zeros((2,), "int32")
    if BACKEND == "jax":
        return operations.types_jax(*_jax_step(model), images, labels)
    import tensorflow as tf

    from benchmarks import steps

    step = steps.training_step(model, jit=True)
    return operations.types_xla(step, tf.constant(images), tf.constant(labels))


def _jax_step(model):
    import jax

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def total(trainable, images, labels):
        bound = list(zip(model.trainable_variables, trainable, strict=True))
        with keras.StatelessScope(state_mapping=bound), training_step(0) as active:
            value = loss(labels, model(images, training=True))
        return sum((one for _, one in active.losses), value)

    return jax.value_and_grad(total), [v.value for v in model.trainable_variables]


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch has no HLO")
@pytest.mark.parametrize("variant", [*CASES, "feedback", "direct", "mixed"])
def test_every_product_is_in_bfloat16(variant):
    alignment = rule(variant) if variant in CASES else variant
    if variant == "mixed":
        alignment = alignments.Mixed(fractions="mirror:0.5,information:0.5")
    if variant == "direct":
        model = layers.align(network(None, "mixed_bfloat16"), "direct")
    else:
        model = network(alignment, "mixed_bfloat16")
    found = types_of_products(model)
    assert found["convolution", "bf16"] >= 4 and found["dot", "bf16"] >= 2
    # B = R Q and dR = dW Q^T are products of variables, and direct feedback's error that of float32
    # logits.
    wide = {("dot", "f32")} if variant in ("product", "direct") else set()
    assert set(found) - {("convolution", "bf16"), ("dot", "bf16")} == wide


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch has no HLO")
def test_the_types_are_seen():
    found = types_of_products(network(rule("activation:own"), "mixed_float16"))
    assert {kind for kind, dtype in found if dtype == "f32"} == {"convolution", "dot"}
    assert {dtype for _, dtype in found} == {"f16", "f32"}
    assert {d for _, d in types_of_products(network(None, "float32"))} == {"f32"}
