"""A step compiled by JAX runs the operations that TensorFlow's runs (tests/test_cost.py)."""

import keras
import numpy as np
import pytest

from benchmarks import operations
from neural_alignment import alignments, layers
from tests import counted
from tests.counted import CONV_LAYERS, DENSE_LAYERS

pytestmark = [
    pytest.mark.backend,
    pytest.mark.skipif(keras.backend.backend() != "jax", reason="counts what JAX compiles"),
]

NOISE = {"input_distribution": "normal"}
CASES = [
    *({"name": name} for name in alignments.layer_names()),
    *(
        {"name": name, **NOISE}
        for name in alignments.layer_names()
        if "input_distribution" in alignments.rule(name).option_names()
    ),
    {"name": "product", "factored": False},
]


def _counts(alignment):
    import jax

    if jax.default_backend() != "cpu":
        pytest.skip("XLA merges products of one tensor on other devices: fewer than the rule asks")
    model = counted.network(alignment)
    return operations.count_jax(_step(model), *_arguments(model))


def _arguments(model):
    trainable = [variable.value for variable in model.trainable_variables]
    return trainable, np.zeros((2, 8, 8, 3), "float32"), np.zeros((2,), "int32")


def _step(model):
    import jax

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def total(trainable, images, labels):
        bound = list(zip(model.trainable_variables, trainable, strict=True))
        with keras.StatelessScope(state_mapping=bound), layers.training_step(0) as active:
            value = loss(labels, model(images, training=True))
        return sum((one for _, one in active.losses), value)

    return jax.value_and_grad(total)


def test_stock_is_counted_right():
    # Output and dW of every layer, dx of every layer but the first.
    assert _counts(None) == operations.Counts(3 * CONV_LAYERS - 1, 3 * DENSE_LAYERS)


@pytest.mark.parametrize("config", CASES, ids=lambda config: "-".join(map(str, config.values())))
def test_a_rule_runs_its_floor(config):
    rule, counts = alignments.get(config), _counts(config)
    stock = operations.Counts(3 * CONV_LAYERS - 1, 3 * DENSE_LAYERS)
    assert counts.convolutions == stock.convolutions + rule.extra_operations * CONV_LAYERS
    matmuls = stock.matmuls + rule.extra_operations * DENSE_LAYERS
    if rule.name == "product" and not rule.factored:
        matmuls += CONV_LAYERS + 2 * DENSE_LAYERS
    elif rule.name in ("product", "mixed"):
        matmuls += 2 * (CONV_LAYERS + DENSE_LAYERS) - 1
    assert counts.matmuls == matmuls


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("name", ["mirror", "activation", "information"])
def test_r_on_the_layer_s_input_needs_little_memory(name, dtype):
    """By XLA's own estimate, over backpropagation's; what R keeps is freed layer by layer."""
    import jax

    def peak(alignment):
        x = inputs = keras.Input((32, 32, 16))
        for _ in range(6):
            x = layers.Conv2D(16, 3, padding="same", alignment=alignment, dtype=dtype)(x)
            x = keras.layers.ReLU(dtype=dtype)(x)
        x = keras.layers.GlobalAveragePooling2D(dtype=dtype)(x)
        model = keras.Model(inputs, keras.layers.Dense(10)(x))
        trainable = [variable.value for variable in model.trainable_variables]
        images, labels = np.zeros((32, 32, 32, 16), "float32"), np.zeros((32,), "int32")
        compiled = jax.jit(_step(model)).lower(trainable, images, labels).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    rule = alignments.get({"name": name, "input_distribution": None})
    assert peak(rule) <= 1.4 * peak(None)


def test_product_s_composite_form_needs_twice_the_memory_of_backpropagation_at_most():
    """By XLA's own estimate, of an MLP with few examples, whose kernels are what takes memory."""
    import jax

    def peak(alignment):
        inputs = keras.Input((120,))
        x = layers.Dense(100, "relu", alignment=alignment)(inputs)
        model = keras.Model(inputs, layers.Dense(10, alignment=alignment)(x))
        trainable = [variable.value for variable in model.trainable_variables]
        images, labels = np.zeros((2, 120), "float32"), np.zeros((2,), "int32")
        compiled = jax.jit(_step(model)).lower(trainable, images, labels).compile()
        made = compiled.memory_analysis()
        # Of the trained kernels; G, a constant here, comes on top with its [outputs, outputs].
        return made.argument_size_in_bytes + made.temp_size_in_bytes + made.output_size_in_bytes

    backprop = peak(None)
    assert peak({"name": "product", "factored": False}) <= 2.05 * backprop
    assert peak("product") > 10 * backprop
