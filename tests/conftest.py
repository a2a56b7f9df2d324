"""Options and set-up that every test shares."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


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
