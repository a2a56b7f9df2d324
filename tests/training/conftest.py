"""A run that nothing disturbed, which others are compared with."""

import pathlib

import pytest

from tests.training import children

# Everything random is on: shuffling, noise inputs, noisy updates, dropout.
FLAGS = (
    "--dataset=digits",
    "--model=dropout",
    "--alignment=mirror",
    "--input_distribution=normal",
    "--train_batch_size=64",
    "--train_epochs=3",
    "--epochs_per_checkpoint=0.25",
    "--alignment_optimizer=adam",
    "--use_noisy_global_opt",
    "--noisy_global_opt_variance=1e-4",
    "--use_noisy_alignment_opt",
    "--noisy_alignment_opt_variance=1e-2",
)
STEPS = 63
TWO_DEVICES = ("--strategy=mirrored", "--logical_cpus=2")


def _straight(folder: pathlib.Path, *more: str) -> pathlib.Path:
    workdir = folder / "straight"
    ended = children.run(folder, "train.py", [*FLAGS, *more, f"--workdir={workdir}"])
    assert ended.code == 0, ended.errors
    return workdir


@pytest.fixture(scope="session")
def straight(tmp_path_factory) -> pathlib.Path:
    """The run directory of an undisturbed run of FLAGS."""
    return _straight(tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="session")
def straight_on_two(tmp_path_factory) -> pathlib.Path:
    """The same on two devices."""
    return _straight(tmp_path_factory.mktemp("two"), *TWO_DEVICES)
