"""Options and set-up that every test shares."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def pytest_addoption(parser):
    parser.addoption(
        "--parity-dir",
        default=None,
        help="folder of golden vectors to run instead of tests/parity/data",
    )
