"""Runs every golden case of a folder; a case that cannot be run fails.

A group of cases is run by the module `run_GROUP.py`: its `run(case, inputs, golden)` returns the
outputs by name, None for a gradient that has no path.
"""

import importlib.util

import keras
import numpy as np
import pytest

from tests.parity.golden import FOLDER, Golden, assert_close

# The others are of the trainer, which is TensorFlow's.
ON_EVERY_BACKEND = ("ops", "alignments", "layers", "schedules", "optimizers")

# With a constant gradient SWATS compares numbers that are equal but for rounding, to 1e-9: the last
# bit of a power says at which step it switches.
ROUNDING = {("jax", "swats_plain_5_constant")}


def pytest_generate_tests(metafunc):
    if "case" not in metafunc.fixturenames:
        return
    golden = Golden(metafunc.config.getoption("--parity-dir") or FOLDER)
    metafunc.parametrize(
        ("golden", "case"),
        [
            pytest.param(
                golden,
                case,
                marks=[pytest.mark.backend] if case["group"] in ON_EVERY_BACKEND else [],
            )
            for case in golden.cases
        ],
        ids=[f"{case['group']}-{case['name']}" for case in golden.cases],
    )


def test_case(golden, case):
    if (keras.backend.backend(), case["name"]) in ROUNDING:
        pytest.skip("decided by rounding")
    group = case["group"]
    module = f"tests.parity.run_{group}"
    assert importlib.util.find_spec(module), f"no runner for the group {group!r}"
    inputs, expected = golden.load(case)
    got = importlib.import_module(module).run(case, inputs, golden)
    missing = sorted(set(expected) - set(got))
    assert not missing, f"outputs not computed: {missing}"
    for name, value in expected.items():
        what = f"{case['name']}: {name}"
        if got[name] is None:
            assert not np.any(value), f"{what}: no gradient, expected one"
            continue
        assert_close(got[name], value, golden.tolerance(case, name), what)
    without_path = [name for name in case["none"] if got.get(name) is not None]
    assert not [name for name in without_path if np.any(got[name])], (
        f"{case['name']}: a gradient where the original has none: {without_path}"
    )


def test_every_group_is_there():
    groups = {case["group"] for case in Golden(FOLDER).cases}
    assert groups == {
        "ops",
        "alignments",
        "layers",
        "schedules",
        "optimizers",
        "training",
        "models",
    }
