"""What a run warns of when it starts: optimizers under which the rule cannot align."""

import pathlib

import pytest

import neural_alignment
from neural_alignment import config
from neural_alignment.training.build import doubts
from tests.presets.support import check_doubts

ROOT = pathlib.Path(neural_alignment.__file__).parent


def of(*arguments):
    return doubts(config.validate(config.filled(config.expand(["train.py", *arguments]))))


SYMMETRIC = ["--alignment=symmetric", "--decay_coef=20", "--self_coef=40", "--constant_lr"]
TIED = ["--alignment=kolen_pollack", "--learning_rate=0.1", "--constant_lr"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*SYMMETRIC, "--optimizer=gd", "--learning_rate=0.06"], "a rate < 0.05"),
        ([*SYMMETRIC, "--optimizer=gd", "--learning_rate=0.04"], None),
        ([*SYMMETRIC, "--optimizer=momentum", "--learning_rate=0.04"], "a rate < 0.0339"),
        ([*SYMMETRIC, "--optimizer=momentum", "--learning_rate=0.03"], None),
        ([*SYMMETRIC, "--optimizer=adam", "--learning_rate=0.1"], None),
        (
            [*SYMMETRIC[:-1], "--optimizer=gd", "--learning_rate_schedule=0:0.01,5:0.06"],
            "learning_rate=0.06",
        ),
        (
            [
                *SYMMETRIC, "--optimizer=gd", "--learning_rate=0.01",
                "--alignment_optimizer=gd", "--alignment_learning_rate=0.06",
            ],
            "learning_rate=0.06",
        ),
        ([*TIED, "--alignment_optimizer=adam", "--alignment_learning_rate=0.01"], "driven to 0"),
        ([*TIED, "--alignment_optimizer=gd", "--alignment_learning_rate=0.01"], None),
        (TIED, None),
    ],
)  # fmt: skip
def test_optimizers_that_cannot_align(arguments, said):
    found = of(*arguments)
    if said is None:
        assert found == []
    else:
        (doubt,) = found
        assert said in doubt


@pytest.mark.parametrize("preset", sorted(path.stem for path in ROOT.glob("presets/*.cfg")))
def test_presets_are_without_doubts(preset):
    check_doubts(preset, of(f"--preset={preset}"))
