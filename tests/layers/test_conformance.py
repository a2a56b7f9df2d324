"""What every layer with every rule must do alike: see `conformance.py` for the table."""

import inspect
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from neural_alignment import alignments, layers
from neural_alignment.layers import Aligned, training_step
from tests.layers.conformance import (
    COMPILED_BY_KERAS,
    EVERY,
    LAYERS,
    PLAIN_RULES,
    REPRESENTATIVES,
    RULES,
    draw,
    quick,
    rule,
)
from tests.layers.measure import (
    built,
    measure,
    numpy,
    output_shape,
    outputs,
    reference_loss,
    upstream_errors,
    weights,
)

EAGER_LAYERS = [name for name in LAYERS if name not in COMPILED_BY_KERAS]

# Keras hands its variables to h5py, which warns of NumPy 2.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


# Of a layer's config, where they are not given.
KERAS_LEAVES_OUT = {"quantization_config", "gptq_unpacked_column_size"}


def rules_to_compile(name):
    """Every variant through a matmul and a convolution, every rule through other maps."""
    if name in ("dense", "conv2d_same"):
        return tuple(RULES)
    # XLA is slow to compile; `test_gradients` has all rules through these, too.
    return PLAIN_RULES if name in REPRESENTATIVES else ("feedback", "activation", "product")


def rules_to_save(name):
    """Every variant through the representatives; elsewhere one of each kind of variable."""
    if name in REPRESENTATIVES:
        return tuple(EVERY)
    return ("feedback", "symmetric", "mirror:noise", "sign_symmetry", "product:sparse")


def test_the_table_leaves_no_rule_out():
    assert {variant.partition(":")[0] for variant in EVERY} == set(alignments.layer_names())
    plain = [n for n in alignments.layer_names() if not alignments.rule(n).disturbs_input]
    assert sorted(PLAIN_RULES) == plain


def test_the_table_leaves_no_layer_out():
    public = (getattr(layers, name) for name in layers.__all__)
    classes = {
        made
        for made in public
        if inspect.isclass(made) and issubclass(made, Aligned) and made is not Aligned
    }
    assert {case.cls for case in LAYERS.values()} == classes


def every_rule(made, x, dy):
    """Outputs, R and all gradients of every rule's layer, in one structure."""
    found = {}
    for variant, layer in made.items():
        m = measure(layer, x, dy)
        found[variant] = {"outputs": m.outputs} | ({} if m.loss is None else {"R": m.loss})
        for prefix, gradients in (("J", m.of_j), ("R", m.of_r)):
            present = {f"d{prefix}/d{k}": g for k, g in gradients.items() if g is not None}
            found[variant] |= present
    return found


def compiled(made, x, dy, xla):
    return tf.function(lambda x, dy: every_rule(made, x, dy), jit_compile=xla)(x, dy)


def assert_same(found, expected):
    wrong = []
    for variant, values in expected.items():
        assert set(found[variant]) == set(values), variant
        for key, value in values.items():
            value, other = numpy(value), numpy(found[variant][key])
            scale = np.abs(value).max() + 1e-12
            error = np.abs(other - value).max() / scale
            if not error < 5e-5:
                wrong.append((variant, key, error))
    assert not wrong


@pytest.mark.parametrize("name", quick(EAGER_LAYERS))
def test_eager_graph_and_xla_agree(name):
    case = LAYERS[name]
    made = {variant: built(case, rule(variant)) for variant in rules_to_compile(name)}
    x, dy = tf.constant(draw(case.input_shape)), tf.constant(draw(output_shape(case), 1))
    eager = every_rule(made, x, dy)
    if set(made) == set(RULES):  # `fit` and the other graph tests cover the rest
        assert_same(compiled(made, x, dy, xla=False), eager)
    assert_same(compiled(made, x, dy, xla=True), eager)


@pytest.mark.parametrize("name", COMPILED_BY_KERAS)
def test_what_keras_compiles_agrees_with_the_equations(name):
    """Groups and channels_first, which TensorFlow has on a CPU under XLA only."""
    case = LAYERS[name]
    made = {variant: built(case, rule(variant)) for variant in rules_to_compile(name)}
    x, dy = draw(case.input_shape), draw(output_shape(case), 1)
    found = compiled(made, tf.constant(x), tf.constant(dy), xla=True)
    expected = {}
    for variant, layer in made.items():
        values = weights(layer)
        dx = upstream_errors(layer, x, dy, values)[0]
        expected[variant] = {"outputs": outputs(layer, x, values), "dJ/dx": dx}
        if layer.alignment.has_loss:
            expected[variant]["R"] = reference_loss(layer, x, values)
    subset = {v: {key: found[v][key] for key in values} for v, values in expected.items()}
    assert_same(subset, expected)
    for variant, layer in made.items():
        assert ("R" in found[variant]) == layer.alignment.has_loss
        tied = layer.alignment.tie_grad
        assert any(key.startswith("dJ/dbackward") for key in found[variant]) == tied


@pytest.mark.parametrize(
    ("name", "policy"),
    [("dense", "mixed_bfloat16"), ("conv2d_same", "mixed_float16")]
    + [
        pytest.param(name, policy, marks=pytest.mark.slow)
        for name, policy in (
            ("dense_rank3", "float64"),
            ("dense", "mixed_float16"),
            ("conv2d_same", "mixed_bfloat16"),
            ("dense_rank3", "bfloat16"),
            *itertools.product(("conv1d_causal", "conv3d"), ("mixed_bfloat16", "mixed_float16")),
            ("einsum", "mixed_bfloat16"),
            ("depthwise2d", "mixed_bfloat16"),
            ("separable2d", "mixed_bfloat16"),
            ("conv2d_transpose", "mixed_bfloat16"),
        )
    ],
)
def test_dtype_policies(name, policy):
    case = LAYERS[name]
    x, dy = tf.constant(draw(case.input_shape)), draw(output_shape(case), 1)
    tolerance = {"float64": 1e-5, "mixed_float16": 5e-3}.get(policy, 4e-2)
    known = ("dense", "dense_rank3", "conv1d_causal", "conv2d_same", "conv3d")
    for variant in RULES if name in known else PLAIN_RULES:
        full = built(case, rule(variant))
        low = built(case, rule(variant), dtype=policy)
        for ours, theirs in zip(low.weights, full.weights, strict=True):
            ours.assign(theirs)
            if policy.startswith("mixed") and "int" not in ours.dtype:
                assert ours.dtype == "float32"
        low._path = full.path  # its noise depends on the path
        expected, found = measure(full, x, dy), measure(low, x, dy)
        assert found.outputs.dtype == low.compute_dtype
        for key in ("x", *(site.place.kernel for site in full.sites)):
            scale = np.abs(expected.of_j[key]).max()
            error = np.abs(numpy(found.of_j[key]) - expected.of_j[key]).max()
            assert error < tolerance * scale, (variant, key)
        if expected.loss is not None:
            assert found.loss.dtype == "float32"
            # Relative to the sum of the terms' sizes, as they may cancel.
            scale = sum(np.abs(numpy(w)).sum() for w in full.weights if w.dtype == "float32")
            error = abs(float(found.loss) - float(expected.loss))
            assert error < tolerance * (abs(float(expected.loss)) + 1e-2 * scale), variant
            assert np.isfinite(found.loss)


def all_rules_model(case, seed=0, variants=tuple(EVERY), **changes):
    """A model with a branch for every rule."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(case.input_shape[1:], batch_size=case.input_shape[0])
    made = [
        case.make(rule(variant), name=variant.replace(":", "_"), **changes) for variant in variants
    ]
    return keras.Model(inputs, [layer(inputs) for layer in made])


def assert_equal_models(first, second, x):
    for ours, theirs in zip(first.weights, second.weights, strict=True):
        assert (ours.name, ours.shape, ours.dtype) == (theirs.name, theirs.shape, theirs.dtype)
        assert ours.trainable == theirs.trainable
        np.testing.assert_array_equal(ours, theirs, err_msg=theirs.path)
    for y, z in zip(first(x), second(x), strict=True):
        np.testing.assert_allclose(y, z, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", quick(EAGER_LAYERS))
def test_files_and_clones(name, tmp_path):
    """`.keras` and weights files and clone_model give the same weights, configs and rules."""
    case = LAYERS[name]
    variants = rules_to_save(name)
    model, x = all_rules_model(case, variants=variants), draw(case.input_shape)
    for layer in model.layers[1:]:
        for site in layer.sites:
            if site.alignment.is_random:
                site.noise_state.assign([5, 7])
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert_equal_models(loaded, model, x)

    model.save_weights(tmp_path / "m.weights.h5")
    other = all_rules_model(case, seed=1, variants=variants)
    assert any(
        np.any(a != b) for a, b in zip(other.get_weights(), model.get_weights(), strict=True)
    )
    other.load_weights(tmp_path / "m.weights.h5")
    assert_equal_models(other, model, x)

    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert_equal_models(clone, model, x)
    for copy in (loaded, clone):
        for ours, theirs in zip(copy.layers[1:], model.layers[1:], strict=True):
            assert type(ours) is type(theirs)
            assert ours.alignment == theirs.alignment
            assert ours.alignment is not None


@pytest.mark.parametrize(
    "name", ["dense", *(pytest.param(n, marks=pytest.mark.slow) for n in ("conv2d_same", "einsum"))]
)
def test_files_with_lora(name, tmp_path):
    case = LAYERS[name]
    model = all_rules_model(case, lora_rank=2)
    for layer in model.layers[1:]:
        layer.lora_kernel_b.assign(draw(tuple(layer.lora_kernel_b.shape), 3))
        assert "lora_kernel_a" in {w.name for w in layer.trainable_weights}
        assert not layer._kernel.trainable
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    x = draw(case.input_shape)
    for y, z in zip(loaded(x), model(x), strict=True):
        np.testing.assert_allclose(y, z, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(loaded.layers[1:], model.layers[1:], strict=True):
        np.testing.assert_allclose(ours.kernel, theirs.kernel, rtol=1e-6, atol=1e-6)
        for weight in theirs.weights:
            if weight.name.startswith(("backward", "noise")):
                np.testing.assert_array_equal(getattr(ours, weight.name), weight)


@pytest.mark.filterwarnings("ignore:Skipping nested container:UserWarning")
def test_a_file_without_the_backward_kernel_is_refused(tmp_path):
    case = LAYERS["dense"]
    inputs = keras.Input(case.input_shape[1:])
    # As many weights in both: Keras's own check counts them.
    other = alignments.SignSymmetry(magnitude="fixed_random")
    keras.Model(inputs, case.make(other, name="d")(inputs)).save_weights(tmp_path / "m.weights.h5")
    aligned = keras.Model(inputs, case.make("symmetric", name="d")(inputs))
    with pytest.raises(ValueError, match="Expected the weight 'backward_kernel'"):
        aligned.load_weights(tmp_path / "m.weights.h5")


@pytest.mark.parametrize("policy", ["float8_from_float32", "int8_from_float32", "map"])
def test_a_quantized_dtype_policy_is_refused(policy):
    """Keras would compute with its own operations, past the rule."""
    if policy == "map":
        policy = keras.dtype_policies.DTypePolicyMap()
        policy["d"] = keras.dtype_policies.get("float8_from_float32")
    layer = layers.Dense(4, alignment="mirror", dtype=policy, name="d")
    with pytest.raises(
        ValueError, match="Expected a floating dtype policy .*Received: .*(float|int)8"
    ):
        layer.build((None, 5))


@pytest.mark.parametrize("name", LAYERS)
def test_layer_configs(name):
    case = LAYERS[name]
    parameters = set()
    for cls in (case.cls, case.stock):
        for key, parameter in inspect.signature(cls.__init__).parameters.items():
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD or key == "alignment":
                parameters.add(key)
    # Keras lists these only when they are given.
    arguments = {"name": "l", "trainable": False}
    # Not of every layer, and alpha not in Keras 3.8.
    arguments |= {k: v for k, v in {"lora_rank": 2, "lora_alpha": 3}.items() if k in parameters}
    regularizer = keras.regularizers.L2(0.1)
    for variant in (None, *EVERY):
        alignment = None if variant is None else rule(variant)
        layer = case.make(alignment, activity_regularizer=regularizer, **arguments)
        config = layer.get_config()
        assert parameters - {"self"} <= set(config) | KERAS_LEAVES_OUT
        for key, value in arguments.items():
            assert config[key] == value
        again = case.cls.from_config(config)
        assert again.get_config() == config
        assert again.alignment == layer.alignment


@pytest.mark.parametrize("name", ["dense", "conv2d_same"])
def test_one_trace_for_many_steps(name):
    case = LAYERS[name]
    made = {variant: built(case, rule(variant)) for variant in EVERY}
    traces = []

    @tf.function
    def step(x, global_step):
        traces.append(1)
        with training_step(global_step, seed=1) as active:
            outputs = [layer(x, training=True) for layer in made.values()]
        return outputs, [loss for _, loss in active.losses]

    for i in range(4):
        step(tf.constant(draw(case.input_shape, i)), tf.constant(i, tf.int64))
    assert len(traces) == 1


class CountCalls(keras.layers.Layer):
    """Counts how often Python runs through it: once a trace."""

    calls = 0

    def call(self, inputs):
        self.calls += 1
        return inputs


@pytest.mark.parametrize("name", ["dense", "conv2d_same"])
def test_fit_adds_the_loss_that_the_step_collects(name):
    """And one trace serves all its steps."""
    case = LAYERS[name]
    keras.utils.set_random_seed(0)
    inputs = keras.Input(case.input_shape[1:])
    counter = CountCalls()
    variants = (*PLAIN_RULES, "activation:noise", "mirror:noise", "sign_symmetry:batch_random")
    made, counted = [case.make(rule(variant)) for variant in variants], counter(inputs)
    model = keras.Model(inputs, [layer(counted) for layer in made])
    x = tf.constant(draw(case.input_shape))
    model.compile(keras.optimizers.SGD(0.0), ["mse"] * len(made))
    states = {layer: layer.noise_state.numpy() for layer in made if hasattr(layer, "noise_state")}
    targets = [np.zeros(output_shape(case), "float32") for _ in made]
    total = model.fit(x, targets, verbose=0).history["loss"][0]
    calls = counter.calls
    model.fit(x, targets, epochs=2, verbose=0)
    assert counter.calls == calls
    j = sum(float(tf.reduce_mean(tf.square(y))) for y in model(x))
    with training_step(0) as active:
        model(x, training=True)
    assert len(active.losses) == sum(layer.alignment.has_loss for layer in made)
    assert not model.losses
    for layer, state in states.items():
        assert layer.noise_state[1] == state[1] + 3  # a step each
        layer.noise_state.assign(state)
    for layer in made:
        layer(x, training=True)
    added = [float(loss) for layer in made for loss in layer.losses]
    np.testing.assert_allclose(total, j + sum(added), rtol=1e-5)
    noisy = {layer.path for layer in states}
    collected = {path: float(loss) for path, loss in active.losses}
    by_layer = {layer.path: float(layer.losses[0]) for layer in made if layer.losses}
    for path, value in by_layer.items():
        if path not in collected:  # of a rule that moves its variables itself
            assert value == 0.0
        elif path not in noisy:
            np.testing.assert_allclose(collected[path], value, rtol=1e-6)
    model(x, training=False)
    assert not model.losses


@pytest.mark.parametrize("name", EAGER_LAYERS)
def test_without_alignment_the_layer_is_keras_own(name):
    case = LAYERS[name]
    ours, stock = case.make(None), case.stock(**case.arguments)
    x, dy = tf.constant(draw(case.input_shape)), draw(output_shape(case), 1)
    ours.build(case.input_shape)
    stock.build(case.input_shape)
    assert [w.name for w in ours.weights] == [w.name for w in stock.weights]
    ours.set_weights(stock.get_weights())
    first, second = measure(ours, x, dy), measure(stock_in_step(stock), x, dy)
    np.testing.assert_array_equal(first.outputs, second.outputs)
    for key, gradient in second.of_j.items():
        np.testing.assert_array_equal(first.of_j[key], gradient)
    assert not ours.losses
    np.testing.assert_array_equal(
        ours.backward_kernel_value(), getattr(ours, ours.places[0].kernel)
    )


def stock_in_step(stock):
    """Stock layers know no `training`."""
    stock._call_has_training_arg = False
    return stock


@pytest.mark.parametrize(
    "name",
    ["dense", "conv2d_same", "conv3d", "einsum", "depthwise2d", "separable2d", "conv2d_transpose"],
)
def test_with_equal_kernels_every_rule_is_backpropagation(name):
    """The loop over rules that also pins the outputs and gradients to stock Keras."""
    case = LAYERS[name]
    x, dy = tf.constant(draw(case.input_shape)), draw(output_shape(case), 1)
    for variant in PLAIN_RULES:
        layer = built(case, rule(variant))
        for site in layer.sites:
            site.kernel.assign(site.backward_kernel_value())
        stock = case.stock(**case.arguments)
        stock.build(case.input_shape)
        stock.set_weights([*(site.kernel for site in layer.sites), layer.bias])
        ours, theirs = measure(layer, x, dy), measure(stock_in_step(stock), x, dy)
        np.testing.assert_allclose(ours.outputs, theirs.outputs, rtol=1e-6, atol=1e-6)
        for key, gradient in theirs.of_j.items():
            scale = np.abs(gradient).max()
            np.testing.assert_allclose(ours.of_j[key], gradient, rtol=1e-5, atol=2e-6 * scale)


@pytest.mark.parametrize("variant", RULES)
def test_a_shared_layer(variant):
    """Called twice its gradients add up, and R is that of the layer: the mean of its calls'."""
    case = LAYERS["dense"]
    layer = built(case, rule(variant))
    x, z = tf.constant(draw(case.input_shape)), tf.constant(draw(case.input_shape, 1))
    kernel = layer.kernel.value
    with tf.GradientTape(persistent=True) as tape:
        with training_step(0) as active:
            y, w = layer(x, training=True), layer(z, training=True)
        j = tf.reduce_sum(y) + tf.reduce_sum(w * w)
    singles = [tape.gradient(value, kernel) for value in (tf.reduce_sum(y), j)]
    assert singles[1] is not None
    assert len(active.losses) == layer.alignment.has_loss
    if active.losses:
        alone = [measure(layer, t, tf.zeros(y.shape), step=0, seed=0).loss for t in (x, z)]
        ((_, both),) = active.losses
        np.testing.assert_allclose(both, np.mean(alone), rtol=1e-5)
    with tf.GradientTape() as tape:
        with training_step(0):
            a = tf.reduce_sum(layer(x, training=True))
            b = tf.reduce_sum(tf.square(layer(z, training=True)))
        parts = a, b
    del parts
    np.testing.assert_allclose(singles[1], tape.gradient(a, kernel) + _second(layer, z), rtol=1e-4)


def _second(layer, z):
    with tf.GradientTape() as tape, training_step(0):
        value = tf.reduce_sum(tf.square(layer(z, training=True)))
    return tape.gradient(value, layer.kernel.value)


@pytest.mark.parametrize("name", ["dense", "conv2d_same"])
def test_native_arguments(name):
    """Regularizers and constraints of the kernel leave the backward kernel alone."""
    case = LAYERS[name]
    arguments = {
        "kernel_regularizer": keras.regularizers.L2(0.5),
        "bias_regularizer": "l1",
        "activity_regularizer": keras.regularizers.L2(0.25),
        "kernel_constraint": keras.constraints.MaxNorm(0.01),
        "bias_constraint": "non_neg",
        "kernel_initializer": keras.initializers.RandomNormal(stddev=0.3),
        "use_bias": True,
    }
    x = draw(case.input_shape)
    for variant in RULES:
        layer = built(case, rule(variant), **arguments)
        kernel, bias = layer.kernel.numpy(), layer.bias.numpy()
        with training_step(0):
            layer(x, training=True)
        stock = case.stock.from_config(case.stock.get_config(layer))
        stock.build(x.shape)
        stock.set_weights([kernel, bias])
        stock(x, training=True)
        losses, expected = (sorted(map(float, each.losses)) for each in (layer, stock))
        assert len(expected) == 3
        np.testing.assert_allclose(losses, expected, rtol=1e-4)
        for weight in layer.weights:
            constrained = weight.name in ("kernel", "bias")
            assert (weight.constraint is not None) == constrained
            assert (weight.regularizer is not None) == constrained
        without = built(case, rule(variant), use_bias=False)
        assert without.bias is None
        assert np.all(np.isfinite(without(x, training=True)))


@pytest.mark.parametrize(
    "regularizer",
    ["l2", "l1", keras.regularizers.L2(0.3), keras.regularizers.L1L2(0.1, 0.2), None],
    ids=["l2", "l1", "L2", "L1L2", "none"],
)
def test_a_kernels_regularizer_has_kerass_value_and_gradient(regularizer):
    case, x = LAYERS["dense"], draw(LAYERS["dense"].input_shape)
    found = []
    ours = built(case, "feedback", kernel_regularizer=regularizer)
    stock = case.stock.from_config(case.stock.get_config(ours))
    stock.build(x.shape)
    stock.kernel.assign(ours.kernel)
    for layer in (ours, stock):
        with tf.GradientTape() as tape:
            value = sum(layer.losses, tf.zeros(()))
        found.append((value, tape.gradient(value, layer.kernel.value)))
    (value, gradient), (expected, of_stock) = found
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert (gradient is None) == (of_stock is None) == (regularizer is None)
    if regularizer is not None:
        np.testing.assert_allclose(gradient, of_stock, rtol=1e-6)
        assert float(value) > 0.0
    # What the layer has and saves is Keras's own.
    assert type(ours.kernel_regularizer) is type(stock.kernel_regularizer)
    assert ours.get_config()["kernel_regularizer"] == stock.get_config()["kernel_regularizer"]


@pytest.mark.parametrize("variant", RULES)
def test_a_frozen_layer_has_no_loss_and_no_weights_to_train(variant):
    layer = built(LAYERS["dense"], rule(variant), trainable=False)
    layer(draw((3, 5)), training=True)
    assert not layer.losses
    assert not layer.trainable_weights
    layer.trainable = True
    names = {w.name for w in layer.trainable_weights}
    assert names == {w.name for w in built(LAYERS["dense"], rule(variant)).trainable_weights}


def test_keras_arguments_by_position():
    assert layers.Dense(3, "relu", False, alignment="symmetric").activation.__name__ == "relu"
    layer = layers.Conv2D(4, 3, 2, "same", alignment="mirror")
    assert (layer.strides, layer.padding) == ((2, 2), "same")


@pytest.mark.parametrize(
    "name", ["conv2d_same", "einsum", "depthwise2d", "separable2d", "conv2d_transpose"]
)
def test_unknown_batch_and_sizes(name):
    """Every rule in a graph that knows no batch size and no image size."""
    case = LAYERS[name]
    variants = RULES if name == "conv2d_same" else PLAIN_RULES
    made = {v: built(case, rule(v)) for v in variants}
    unknown = (None,) * (len(case.input_shape) - 1)

    @tf.function(input_signature=[tf.TensorSpec((*unknown, case.input_shape[-1]))])
    def step(x):
        with training_step(0) as active:
            for layer in made.values():
                layer(x, training=True)
        return dict(active.losses)

    x = draw(case.input_shape)
    with training_step(0) as active:
        for layer in made.values():
            layer(x, training=True)
    for path, loss in step(x).items():
        np.testing.assert_allclose(loss, dict(active.losses)[path], rtol=1e-5)


@pytest.mark.parametrize("name", ["einsum", "depthwise1d", "separable1d", "conv1d_transpose"])
def test_in_time_distributed(name):
    """And R is that of the layer: the mean over the calls, one a step of time."""
    case = LAYERS[name]
    for variant in ("feedback", "activation", "symmetric"):
        layer = built(case, rule(variant))
        x = draw((case.input_shape[0], 2, *case.input_shape[1:]))
        with training_step(0) as active:
            found = keras.layers.TimeDistributed(layer)(x, training=True)
        parts, losses = [], []
        for i in range(2):
            with training_step(0) as alone:
                parts.append(layer(x[:, i], training=True))
            losses.append([value for _, value in alone.losses])
        np.testing.assert_allclose(found, np.stack(parts, axis=1), rtol=1e-5, atol=1e-6)
        for (_, value), calls in zip(active.losses, zip(*losses, strict=True), strict=True):
            np.testing.assert_allclose(value, np.mean(calls), rtol=1e-5)
