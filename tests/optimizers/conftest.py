import os

import pytest

if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
    import tensorflow as tf

    # Before any test uses a device, as TensorFlow cannot split one afterwards.
    _CPU = tf.config.list_physical_devices("CPU")[0]
    if tf.config.get_logical_device_configuration(_CPU) is None:
        _DEVICES = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(_CPU, _DEVICES)


@pytest.fixture
def mirrored():
    names = [device.name for device in tf.config.list_logical_devices("CPU")]
    assert len(names) >= 2, "the process must start with two logical CPU devices"
    # Not by collective operations: those of several strategies in one process get mixed up.
    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(names[:2], cross_device_ops=reduction)
