"""What Keras's own configuration file may set, and a run depends on: set by the run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from neural_alignment.training.strategy import DeviceError

_FLOATX = "float32"
_EPSILON = 1e-7
_DATA_FORMAT = "channels_last"


@contextlib.contextmanager
def of_a_run(tf32: bool = True) -> Iterator[None]:
    """Keras's defaults while a job runs, whatever `keras.json` or the process said; then as before.

    Precision (floatx and dtype policy), epsilon and image data format: none is a flag, and each
    would change the numbers of a run. TensorFlow's TensorFloat-32 is one.

    Args:
        tf32: whether a GPU may multiply float32 in TensorFloat-32.

    Raises:
        DeviceError: Keras runs on another back end than TensorFlow.
    """
    if keras.config.backend() != "tensorflow":
        raise DeviceError(
            "Expected Keras on TensorFlow, whose strategies and checkpoints a job uses. Received: "
            f"the back end {keras.config.backend()}. Set KERAS_BACKEND=tensorflow in a new process."
        )
    before = (
        keras.config.floatx(),
        keras.config.epsilon(),
        keras.config.image_data_format(),
        keras.config.dtype_policy(),
    )
    had_tf32 = tf.config.experimental.tensor_float_32_execution_enabled()
    try:
        tf.config.experimental.enable_tensor_float_32_execution(tf32)
        keras.config.set_floatx(_FLOATX)
        keras.config.set_epsilon(_EPSILON)
        keras.config.set_image_data_format(_DATA_FORMAT)
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(had_tf32)
        floatx, epsilon, data_format, policy = before
        keras.config.set_floatx(floatx)
        keras.config.set_epsilon(epsilon)
        keras.config.set_image_data_format(data_format)
        keras.config.set_dtype_policy(policy)
