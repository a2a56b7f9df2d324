"""The tests that hold on every back end, on JAX: a sample here, all of them in `make test-jax`."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="starts another back end")
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_a_sample_on_jax():
    command = [sys.executable, "-m", "pytest", "-q", "-m", "backend and not slow", "-x"]
    command += ["-p", "no:cacheprovider", "tests/backends/test_equal.py"]
    command += ["-k", "dense or einsum"]
    result = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-4000:]
    assert " passed" in result.stdout
