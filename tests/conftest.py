"""Options and set-up that every test shares."""

import gc
import os
import signal
import sys

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
    import tensorflow as tf

    # Two logical devices, for the tests with replicas; TensorFlow cannot split one after its first
    # use, which may be while tests are collected.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    # A GPU's float32 products keep 10 bits of mantissa by default, and tests compare 20.
    tf.config.experimental.enable_tensor_float_32_execution(False)
elif os.environ["KERAS_BACKEND"] == "torch":
    import torch

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
else:  # before JAX is imported, here and in the processes that tests start
    os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")


# As in the foreground: a shell's background jobs and nohup's ignore these, and so would the
# processes that tests start and send them to.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _give_back_memory(request):
    """A worker goes through many slow tests, and Keras keeps the graphs of all of them."""
    yield
    if request.node.get_closest_marker("slow") and "keras" in sys.modules:
        sys.modules["keras"].backend.clear_session()
        gc.collect()


@pytest.fixture(autouse=True, scope="module")
def _forget_what_jax_compiled():
    """JAX keeps every program of a process: gigabytes over the whole suite."""
    yield
    if os.environ.get("KERAS_BACKEND") == "jax":
        sys.modules["jax"].clear_caches()


def pytest_ignore_collect(collection_path):
    """On another back end than TensorFlow: what is not of every back end is not even imported."""
    if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
        return None
    is_test = collection_path.suffix == ".py" and collection_path.name.startswith("test_")
    return True if is_test and "mark.backend" not in collection_path.read_text() else None


def pytest_addoption(parser):
    parser.addoption(
        "--parity-dir",
        default=None,
        help="folder of golden vectors to run instead of tests/parity/data",
    )
    parser.addoption(
        "--data-dir",
        "--data_dir",
        default=None,
        help="folder with published data sets; without it the slow tests that need one are skipped",
    )
