"""A step on PyTorch runs the convolutions and products that TensorFlow's runs (test_cost.py)."""

import collections

import keras
import numpy as np
import pytest

from neural_alignment import alignments, layers
from neural_alignment.maps import Conv, ConvTranspose, DepthwiseConv, Matmul
from tests import counted
from tests.counted import CONV_LAYERS, DENSE_LAYERS

if keras.backend.backend() != "torch":
    pytest.skip("counts what PyTorch runs", allow_module_level=True)
torch = pytest.importorskip("torch")
pytestmark = pytest.mark.backend

CASES = [
    {"name": name, **noise}
    for name in alignments.layer_names()
    if name not in ("product", "mixed")  # whose kernels are products, too
    for noise in ({}, {"input_distribution": None})
    if not noise or "input_distribution" in alignments.rule(name).option_names()
]
MAPS = {
    "matmul": (Matmul(), (3, 5), (5, 4)),
    "conv1d_causal": (Conv(padding="causal", dilation_rate=2), (2, 9, 3), (3, 3, 4)),
    "conv2d_same_strides": (Conv((2, 1), "same"), (2, 7, 6, 4), (3, 2, 2, 6)),
    "conv2d_first": (Conv(data_format="channels_first"), (2, 3, 6, 7), (3, 2, 3, 4)),
    "conv3d": (Conv(), (2, 4, 4, 4, 2), (2, 3, 2, 2, 3)),
    "depthwise": (DepthwiseConv(padding="same"), (2, 6, 6, 3), (3, 3, 3, 2)),
    "transposed1d": (ConvTranspose(2), (2, 5, 3), (3, 4, 3)),
    "transposed2d_same": (ConvTranspose((2, 3), "same"), (2, 4, 5, 3), (3, 4, 2, 3)),
    "transposed2d_output": (ConvTranspose(2, output_padding=1), (2, 4, 5, 3), (3, 3, 2, 3)),
    "transposed3d": (ConvTranspose(1), (1, 3, 3, 3, 2), (2, 2, 2, 3, 2)),
}


class Counter(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts what runs: products by what they give, as one call gives a convolution's both."""

    def __init__(self):
        super().__init__()
        self.counts = collections.Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name == "convolution_backward":
            self.counts["convolutions"] += sum(args[-1][:2])
        elif name == "convolution":
            self.counts["convolutions"] += args[0].device.type != "meta"
        elif name in ("mm", "addmm", "bmm"):
            self.counts["matmuls"] += 1
        return function(*args, **(kwargs or {}))


def _counts(alignment):
    model = counted.network(alignment)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with Counter() as counter, layers.training_step(0) as active:
        value = loss(
            np.zeros((2,), "int32"), model(np.zeros((2, 8, 8, 3), "float32"), training=True)
        )
        sum((one for _, one in active.losses), value).backward()
    return counter.counts["convolutions"], counter.counts["matmuls"]


@pytest.mark.parametrize("config", [None, *CASES], ids=str)
def test_a_rule_runs_its_floor(config):
    # Output and dW of every layer, dx of every layer but the first.
    extra = 0 if config is None else alignments.get(config).extra_operations
    convolutions, matmuls = _counts(config)
    assert convolutions == 3 * CONV_LAYERS - 1 + extra * CONV_LAYERS
    assert matmuls == (3 + extra) * DENSE_LAYERS


@pytest.mark.parametrize("name", MAPS)
def test_the_transposes_and_their_gradients_are_those_of_the_map(name):
    """Against PyTorch's own gradients of the map, whose value it makes."""
    linear, *shapes = MAPS[name]
    rng = np.random.default_rng(0)
    x, kernel = (
        torch.tensor(rng.normal(size=shape), dtype=torch.float64, requires_grad=True)
        for shape in shapes
    )
    value = linear.apply(x, kernel)
    upstream = torch.tensor(rng.normal(size=value.shape), requires_grad=True)
    expected = torch.autograd.grad(value, (x, kernel), upstream, create_graph=True)
    for made, of in zip(
        (linear.input_gradient(x, kernel, upstream), linear.kernel_gradient(x, kernel, upstream)),
        expected,
        strict=True,
    ):
        torch.testing.assert_close(made, of)
        inner = torch.tensor(rng.normal(size=of.shape))
        of_made, of_expected = (
            torch.autograd.grad(
                one, (x, kernel, upstream), inner, allow_unused=True, retain_graph=True
            )
            for one in (made, of)
        )
        for one, other in zip(of_made, of_expected, strict=True):
            # None, or zeros where PyTorch's formula has a term that vanishes.
            one, other = (torch.zeros(()) if t is None else t for t in (one, other))
            torch.testing.assert_close(one.broadcast_to(other.shape), other)
