"""benchmarks/cpu.py: PyTorch's nets are the package's, and both are timed."""

import math
import re

import pytest

from benchmarks import cpu, networks

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("name", cpu.NETWORKS)
def test_the_nets_have_equal_sizes(name):
    from benchmarks import pytorch_nets

    ours = networks.NETWORKS[name].build(None).trainable_weights
    assert pytorch_nets.parameters(name) == sum(math.prod(w.shape) for w in ours)


def test_a_table():
    rows = cpu.compare("mlp", batch=2, calls=1, rounds=2).splitlines()
    cells = [re.split(r" *\| *", row)[1:-1] for row in rows]
    assert [row[1] for row in cells] == [cpu.PYTORCH, cpu.STOCK, *cpu.RULES]
    assert cells[0][3] == "1.00 [1.00, 1.00]"
    assert all(float(row[2]) > 0.0 for row in cells)
