"""Every rule through every layer: outputs, R and gradients are TensorFlow's, noise to the bit."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from neural_alignment import backend, noise
from tests.backends import compute

pytestmark = pytest.mark.backend

ELSEWHERE = keras.backend.backend() != "tensorflow"
CASES = compute.every_case() if os.environ.get("EVERY_CASE") else compute.sample()


@pytest.fixture(scope="module")
def of_tensorflow(tmp_path_factory):
    """The same numbers, from a process on TensorFlow."""
    pytest.importorskip("tensorflow", reason="the other side of the comparison")
    path = tmp_path_factory.mktemp("tensorflow") / "numbers.npz"
    subprocess.run(
        [sys.executable, "-m", "tests.backends.compute", path, *CASES],
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        check=True,
        capture_output=True,
    )
    with np.load(path) as numbers:
        return dict(numbers)


@pytest.mark.skipif(not ELSEWHERE, reason="compares another back end with TensorFlow")
@pytest.mark.parametrize("case", CASES)
def test_numbers_are_those_of_tensorflow(case, of_tensorflow):
    found = compute.compute(case)
    wrong = []
    for name, value in found.items():
        expected = of_tensorflow[f"{case}|{name}"]
        scale = np.abs(expected).max() + 1e-6
        error = np.abs(value - expected).max() / scale
        # J and R are sums whose terms cancel in part: their rounding is relative to them.
        if not error < (5e-5 if name in ("J", "R") else 1e-5):
            wrong.append((name, error))
    assert not wrong


# The upper 23 bits of TensorFlow's Philox words: their sum over 1003 of them, and the first three.
WORDS = {
    (0, 0): (4173271406, [7589249, 5270831, 2552628]),
    (1, 2): (4201160174, [2160133, 3394634, 7733186]),
    (2**31 - 1, 12345): (4060431792, [2782054, 921850, 3831063]),
    (-5, 7): (4120921518, [2163453, 3658040, 3631252]),
    (3, -(2**31)): (4290573890, [1366961, 3347901, 7390835]),
}


@pytest.mark.parametrize("seed", WORDS)
def test_random_bits_are_those_of_tensorflow(seed):
    total, first = WORDS[seed]
    tensor = keras.ops.convert_to_tensor(np.array(seed, "int32"))
    drawn = keras.ops.convert_to_numpy(backend.random_mantissas(1003, tensor)).astype("int64")
    assert drawn.sum() == total
    assert drawn[:3].tolist() == first
    uniform = keras.ops.convert_to_numpy(noise.uniform((17, 59), tensor))
    np.testing.assert_array_equal(uniform.ravel(), (drawn / 2.0**23).astype("float32"))
