"""What a training step runs: no more convolutions and matmuls than stock layers, or the floor's."""

import pytest
import tensorflow as tf

from benchmarks import networks, operations, steps
from neural_alignment import alignments
from tests import counted
from tests.counted import CONV_LAYERS, DENSE_LAYERS

PROJECTING = tuple(
    name
    for name in alignments.layer_names()
    if "input_distribution" in alignments.rule(name).option_names()
)
# Every rule: on the layer's input and on noise where it can, and what is made in another way.
CASES = [
    *({"name": name} for name in alignments.layer_names() if name not in PROJECTING),
    *({"name": name, "input_distribution": x} for name in PROJECTING for x in (None, "normal")),
    {"name": "sign_symmetry", "magnitude": "batch_random"},
    {"name": "sign_symmetry", "magnitude": "fixed_random"},
    {"name": "product", "feedback": "orthogonal"},
    {"name": "product", "factored": False},
]


def _count(model, jit, split=False):
    step = steps.training_step(model, jit=jit, split=split)
    count = operations.count_xla if jit else operations.count_graph
    return count(step, tf.zeros((2, 8, 8, 3)), tf.zeros((2,), tf.int32))


@pytest.fixture(scope="module")
def stock():
    twin = networks.stock_twin(counted.network(None))
    return {jit: _count(twin, jit) for jit in (False, True)}


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
def test_stock_is_counted_right(stock, jit):
    # Output and dW of every layer, dx of every layer but the first.
    assert stock[jit] == operations.Counts(3 * CONV_LAYERS - 1, 3 * DENSE_LAYERS)


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("config", CASES, ids=lambda config: "-".join(map(str, config.values())))
def test_a_rule_runs_its_floor(stock, config, jit):
    """Stock's operations, and those that the rule's class says R adds to each layer."""
    rule = alignments.get(config)
    counts = _count(counted.network(config), jit)
    assert counts.convolutions == stock[jit].convolutions + rule.extra_operations * CONV_LAYERS
    matmuls = stock[jit].matmuls + rule.extra_operations * DENSE_LAYERS
    if rule.name == "product" and not rule.factored:
        # dW G of the convolutions; of Dense, with two examples, dy G and x^T (dy G).
        matmuls += CONV_LAYERS + 2 * DENSE_LAYERS
    elif rule.name in ("product", "mixed"):
        # R Q of every layer but the first, whose dx is not needed, and dR = dW Q^T.
        matmuls += 2 * (CONV_LAYERS + DENSE_LAYERS) - 1
    assert counts.matmuls == matmuls


@pytest.mark.parametrize("name", ["symmetric", "mirror"])
def test_an_optimizer_for_each_loss_takes_one_forward_pass(name):
    model = counted.network(name)
    assert _count(model, jit=False, split=True) == _count(model, jit=False)


def test_the_floor_is_the_count_in_multiplications():
    network = networks.NETWORKS["resnet20"]
    floors = {
        (name, noise): networks.floor(
            network.build({"name": name, "input_distribution": "normal" if noise else None}),
            batch=64,
        )
        for name in ("mirror", "activation")
        for noise in (False, True)
    }
    assert floors == {
        ("mirror", False): pytest.approx(1.33, abs=0.015),
        ("mirror", True): pytest.approx(1.66, abs=0.015),
        ("activation", False): pytest.approx(1.66, abs=0.015),
        ("activation", True): pytest.approx(1.99, abs=0.015),
    }
