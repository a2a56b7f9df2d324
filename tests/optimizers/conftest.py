import os

import pytest

if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
    import tensorflow as tf


@pytest.fixture
def mirrored():
    names = [device.name for device in tf.config.list_logical_devices("CPU")]
    assert len(names) >= 2, "the process must start with two logical CPU devices"
    # Not by collective operations: those of several strategies in one process get mixed up.
    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(names[:2], cross_device_ops=reduction)
