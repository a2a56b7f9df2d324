"""The same start gives the same losses, and files pass from one back end to another."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from tests.backends import train
from tests.layers.conformance import EVERY, PLAIN_RULES

pytestmark = [
    pytest.mark.backend,
    pytest.mark.skipif(
        keras.backend.backend() == "tensorflow", reason="compares another back end with TensorFlow"
    ),
    # Keras hands its variables to h5py, which warns of NumPy 2.
    pytest.mark.filterwarnings(
        "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
    ),
]

SAMPLE = (*PLAIN_RULES, "phaseless:batch")
VARIANTS = tuple(EVERY) if os.environ.get("EVERY_CASE") else SAMPLE


@pytest.fixture(scope="module")
def of_tensorflow(tmp_path_factory):
    """Losses, outputs and files of a process on TensorFlow."""
    pytest.importorskip("tensorflow", reason="the other side of the comparison")
    folder = tmp_path_factory.mktemp("tensorflow")
    subprocess.run(
        [sys.executable, "-m", "tests.backends.train", folder, *VARIANTS],
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        check=True,
        capture_output=True,
    )
    return folder, json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_are_those_of_tensorflow(variant, of_tensorflow):
    _, expected = of_tensorflow
    _, losses = train.train(variant)
    np.testing.assert_allclose(losses, expected[variant]["losses"], rtol=1e-3, atol=1e-3)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_files_of_tensorflow_load(variant, of_tensorflow):
    folder, expected = of_tensorflow
    model = keras.saving.load_model(folder / f"{variant.replace(':', '-')}.keras")
    outputs = keras.ops.convert_to_numpy(model(train.digits()[0][:8]))
    np.testing.assert_allclose(outputs, expected[variant]["outputs"], rtol=1e-4, atol=1e-4)
    model.train_on_batch(*(part[:32] for part in train.digits()))


def test_files_load_on_tensorflow(tmp_path):
    model, _ = train.train("mirror:noise")
    model.save(tmp_path / "m.keras")
    outputs = keras.ops.convert_to_numpy(model(train.digits()[0][:8]))
    code = (
        "import sys, json, keras, neural_alignment.layers\n"
        "from tests.backends import train\n"
        "model = keras.saving.load_model(sys.argv[1])\n"
        "sys.stdout.write(json.dumps(model(train.digits()[0][:8]).numpy().tolist()))\n"
    )
    pytest.importorskip("tensorflow", reason="the other side of the comparison")
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "m.keras"],
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        check=True,
        capture_output=True,
        text=True,
    )
    np.testing.assert_allclose(json.loads(result.stdout), outputs, rtol=1e-4, atol=1e-4)
