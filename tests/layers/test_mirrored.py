"""Every rule on two logical devices, in a process of its own."""

import json
import subprocess
import sys

import numpy as np


def test_two_devices_train_as_one():
    command = [sys.executable, "-m", "tests.layers.mirrored"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["replicas"] == 2
    assert found["moved"] > 1e-2
    assert found["largest"] < 1e-6
    np.testing.assert_allclose(*found["losses"], rtol=1e-5)
    assert found["finite"]
    np.testing.assert_allclose(found["symmetric"], 1.0, rtol=1e-3)
    first, again, following = found["noise"]
    assert first == again
    assert first[0] != first[1]
    assert set(first).isdisjoint(following)
