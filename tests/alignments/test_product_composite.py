"""Product feedback that keeps R Q and Q^T Q trains as the one that keeps the factors."""

import itertools
import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks import networks, steps
from neural_alignment import alignments, maps, optimizers
from neural_alignment.layers import Conv2D, Dense, training_step
from neural_alignment.layers.aligned import aligned_layers
from neural_alignment.runs.directory import RunDirectoryError
from neural_alignment.training import job
from tests.layers.conformance import draw
from tests.presets.support import parse

STEPS = 100
SHAPES = {"dense": (6, 5), "conv": (4, 5, 5, 4), "groups": (4, 5, 5, 4)}
# One optimizer takes J + R, two take one each.
OPTIMIZERS = {
    "gd": lambda: [optimizers.get("gd", learning_rate=0.1)],
    "momentum": lambda: [optimizers.get("momentum", learning_rate=0.02, nesterov=False)],
    "nesterov_decayed": lambda: [
        optimizers.get("momentum", learning_rate=0.02, nesterov=True, weight_decay=1e-2)
    ],
    "keras_sgd": lambda: [keras.optimizers.SGD(0.02, 0.9, nesterov=True, weight_decay=1e-2)],
    # In float32 differences of rounding must not grow.
    "slow": lambda: [optimizers.get("momentum", learning_rate=5e-3)],
    "two": lambda: [
        optimizers.get("momentum", learning_rate=0.02),
        optimizers.get("gd", learning_rate=0.5),
    ],
}


QUICK = (("dense", "gaussian", "tiled"), ("conv", "orthogonal", "glorot"))


def network(name, dtype, **options):
    keras.utils.set_random_seed(3)
    rule = alignments.Product(expansion=2.5, decay_coef=1e-2, **options)
    shared = {"activation": "tanh", "alignment": rule, "dtype": dtype}
    inputs = x = keras.Input(SHAPES[name][1:], batch_size=SHAPES[name][0], dtype=dtype)
    if name == "dense":
        x = Dense(7, **shared)(x)
        x = Dense(6, **shared)(x)
    else:
        groups = 2 if name == "groups" else 1
        x = Conv2D(6, 3, padding="same", **shared)(x)
        x = Conv2D(4, 2, strides=2, groups=groups, **shared)(x)
        x = keras.layers.Flatten(dtype=dtype)(x)
    return keras.Model(inputs, Dense(3, alignment=rule, dtype=dtype)(x))


def trained(name, dtype, made_optimizers, steps=STEPS, **options):
    """W and B of every layer after some steps."""
    model = network(name, dtype, **options)
    used = made_optimizers()
    for one in used:
        one.build(model.trainable_variables)

    @tf.function(jit_compile=name == "groups")
    def gradients(x, targets, step):
        with tf.GradientTape(persistent=True) as tape:
            with training_step(step) as active:
                outputs = model(x, training=True)
            j = tf.reduce_mean(tf.square(outputs - targets))
            r = tf.cast(tf.add_n([value for _, value in active.losses]), j.dtype)
            losses = [j + r] if len(used) == 1 else [j, r]
        return [tape.gradient(loss, model.trainable_variables) for loss in losses]

    for step in range(steps):
        x = tf.constant(draw(SHAPES[name], step), dtype)
        targets = tf.constant(draw((SHAPES[name][0], 3), 1000 + step), dtype)
        for one, of_loss in zip(used, gradients(x, targets, tf.constant(step)), strict=True):
            reached = [
                (g, v)
                for g, v in zip(of_loss, model.trainable_variables, strict=True)
                if g is not None
            ]
            one.apply(*zip(*reached, strict=True))
    return {
        f"{layer.name.split('_')[0]}{i}/{which}": np.asarray(value, "float64")
        for i, layer in enumerate(aligned_layers(model))
        for which, value in (
            ("W", layer.kernel.value),
            ("B", layer.alignment.backward_kernel(layer.kernel.value, layer.sites[0]._read())),
        )
    }


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [("dense", optimizer) for optimizer in OPTIMIZERS if optimizer not in ("slow", "keras_sgd")]
    + [("conv", "two")]
    # TensorFlow runs groups on a CPU under XLA only, which compiles for seconds.
    + [
        pytest.param(name, optimizer, marks=pytest.mark.slow)
        for name, optimizer in (
            ("dense", "keras_sgd"),
            ("conv", "nesterov_decayed"),
            ("groups", "nesterov_decayed"),
            ("groups", "two"),
        )
    ],
)
def test_both_forms_train_alike_in_float64(name, optimizer):
    factored, composite = (
        trained(name, "float64", OPTIMIZERS[optimizer], factored=f) for f in (True, False)
    )
    start = trained(name, "float64", OPTIMIZERS[optimizer], steps=0, factored=False)
    assert factored.keys() == composite.keys()
    for key, expected in factored.items():
        scale = np.abs(expected).max()
        assert np.abs(composite[key] - expected).max() < 1e-12 * max(scale, 1.0), key
        assert np.abs(start[key] - expected).max() > 1e-2 * scale, key


@pytest.mark.parametrize(
    ("name", "feedback", "scale"),
    [
        pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
        for case in itertools.product(
            ("dense", "conv"), ("gaussian", "orthogonal"), ("tiled", "glorot")
        )
    ],
)
def test_both_forms_train_alike_in_float32(name, feedback, scale):
    options = {"feedback": feedback, "scale": scale}
    factored, composite = (
        trained(name, "float32", OPTIMIZERS["slow"], factored=f, **options) for f in (True, False)
    )
    for key, expected in factored.items():
        np.testing.assert_allclose(composite[key], expected, rtol=1e-5, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("batch", [2, 200])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first", None])
def test_both_ways_to_the_tied_gradient_agree(data_format, known, batch):
    """Small batches go by `x^T (dy G)`, large ones by `dW G`; None is a matmul."""
    if data_format == "channels_first" and not known:
        pytest.skip("TensorFlow has channels_first on a CPU under XLA only, where sizes are known")
    if data_format is None:
        linear, x_shape, kernel_shape, y_shape = maps.Matmul(), (9,), (9, 8), (8,)
    else:
        linear = maps.Conv(1, "valid", data_format, 1)
        first = data_format == "channels_first"
        x_shape = (5, 2, 2) if first else (2, 2, 5)
        y_shape = (8, 1, 1) if first else (1, 1, 8)
        kernel_shape = (2, 2, 5, 8)
    rule = alignments.Product(factored=False)
    gram = draw((8, 8), 5)
    gram = gram + gram.T
    spec = [tf.TensorSpec((batch if known else None, *s)) for s in (x_shape, y_shape)]

    @tf.function(input_signature=spec, jit_compile=data_format == "channels_first")
    def both(x, dy):
        dw = linear.kernel_gradient(x, tf.zeros(kernel_shape), dy)
        return dw, rule.tied_gradient(
            x, dy, dw, variables={"backward_kernel_g": tf.constant(gram)}, linear=linear
        )

    dw, found = both(draw((batch, *x_shape)), draw((batch, *y_shape), 1))
    expected = np.asarray(dw) @ gram
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_what_is_kept_does_not_grow_with_the_expansion():
    for expansion in (1.0, 10.0):
        layer = Dense(20, alignment=alignments.Product(factored=False, expansion=expansion))
        layer.build((None, 30))
        kept = {w.name: (tuple(w.shape), w.trainable) for w in layer.weights}
        assert kept == {
            "kernel": ((30, 20), True),
            "bias": ((20,), True),
            "backward_kernel_rq": ((30, 20), True),
            "backward_kernel_g": ((20, 20), False),
        }


def numbers(variables):
    return sum(math.prod(v.shape) for v in variables)


@pytest.mark.parametrize("name", ["mlp", "resnet20"])
def test_what_is_kept_is_at_most_twice_the_forward_kernels(name):
    """In memory and in a checkpoint; the factors are more than ten times as much."""
    kept = {}
    for factored in (True, False):
        model = networks.NETWORKS[name].build({"name": "product", "factored": factored})
        of_rule = [v for v in model.variables if v.name.startswith("backward_")]
        kept[factored] = numbers(of_rule) / numbers(
            [layer.kernel for layer in aligned_layers(model)]
        )
    assert kept[False] <= 2.0, kept
    assert kept[True] > 10.0, kept


def largest(step, *arguments):
    """The numbers in the largest array of the compiled step."""
    hlo = step.experimental_get_compiler_ir(*arguments)(stage="optimized_hlo")
    shapes = re.findall(r"f32\[([\d,]+)\]", hlo)
    return max(math.prod(map(int, shape.split(","))) for shape in shapes)


def test_the_compiled_step_makes_nothing_larger_than_a_kernel():
    most = {}
    for factored in (True, False):
        rule = alignments.Product(factored=factored)
        inputs = keras.Input((60,))
        model = keras.Model(inputs, Dense(10, alignment=rule)(Dense(40, alignment=rule)(inputs)))
        step = steps.training_step(model, jit=True)
        most[factored] = largest(step, tf.zeros((4, 60)), tf.zeros((4,), tf.int32))
    assert most[False] <= 60 * 40
    assert most[True] >= 10 * 60 * 40


@pytest.mark.parametrize("begun", ["true", "false"])
def test_a_run_is_not_resumed_with_the_other_form(begun, tmp_path):
    def run(factored):
        network = ("--model=fc", "--layers_list=4", "--train_batch_size=64", "--max_epochs=0.05")
        rule = ("--alignment=product", f"--factored={factored}", f"--workdir={tmp_path}/run")
        return job.train(parse(*network, *rule))

    run(begun)
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "run").rglob("*"))
    other = {"true": "false", "false": "true"}[begun]
    with pytest.raises(RunDirectoryError, match=f"was --factored={begun}, now --factored={other}"):
        run(other)
    kept = {path for path, _ in before}
    after = [(path, path.stat().st_mtime_ns) for path in sorted(kept)]
    assert [one for one in before if one[0].is_file() and one[0].name != "lock"] == [
        one for one in after if one[0].is_file() and one[0].name != "lock"
    ]


@pytest.mark.parametrize("factored", [True, False])
def test_the_scale_of_the_start(factored):
    ratios = {}
    for scale in ("tiled", "glorot"):
        keras.utils.set_random_seed(0)
        layer = Dense(200, alignment=alignments.Product(factored=factored, scale=scale))
        layer.build((None, 300))
        backward = layer.backward_kernel_value()
        ratios[scale] = float(np.linalg.norm(backward) / np.linalg.norm(layer.kernel))
    assert ratios["tiled"] == pytest.approx(1.0, abs=0.03)
    assert ratios["glorot"] == pytest.approx(np.sqrt(500 / 2300), rel=0.03)


@pytest.mark.filterwarnings("ignore:Skipping nested container:UserWarning")
@pytest.mark.parametrize("factored", [True, False])
def test_weights_of_one_form_are_refused_by_the_other(factored, tmp_path):
    def model(factored):
        inputs = keras.Input((5,))
        rule = alignments.Product(factored=factored, expansion=1.0)
        return keras.Model(inputs, Dense(4, alignment=rule, name="d")(inputs))

    model(factored).save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(ValueError, match="Expected the weight 'backward_kernel_"):
        model(not factored).load_weights(tmp_path / "m.weights.h5")


def test_a_mask_has_no_composite_form():
    with pytest.raises(ValueError, match=r"density=1 with factored=False.*Received: density=0\.5"):
        alignments.Product(factored=False, density=0.5)


@pytest.mark.parametrize(
    ("optimizer", "refused"),
    [
        (lambda: optimizers.get("momentum"), False),
        (lambda: keras.optimizers.SGD(0.1, 0.9, nesterov=True, weight_decay=1e-3), False),
        (lambda: optimizers.get("adam"), True),
        (lambda: keras.optimizers.Adam(), True),
        (lambda: keras.optimizers.SGD(global_clipnorm=1.0), True),
        (lambda: optimizers.Noisy(optimizers.get("gd"), variance=1e-3), True),
    ],
)
@pytest.mark.parametrize("factored", [True, False])
def test_in_fit_the_routed_optimizer_refuses_what_is_not_linear(factored, optimizer, refused):
    model = network("dense", "float32", factored=factored)
    routed = optimizers.RoutedOptimizer(optimizer(), optimizers.get("gd"))
    if refused and not factored:
        with pytest.raises(ValueError, match=r"exact only where updates are linear.*Received: "):
            routed.build(model.trainable_variables)
        return
    routed.build(model.trainable_variables)
    assert routed.built
