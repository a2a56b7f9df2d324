"""A run that stops and goes on ends with the bits of one that did not, whatever the rule."""

import keras
import pytest

from neural_alignment import alignments
from neural_alignment.runs import checkpoints
from neural_alignment.runs.checkpoints import Checkpoints
from neural_alignment.training import job
from tests.presets.support import parse

# What disturbs the input; the others are slow tests.
FAST = ("phaseless",)
OPTIONS = {
    "sign_symmetry": ("--magnitude=batch_random",),
    "mixed": (
        "--fractions=moving_average:0.3,sign_symmetry(magnitude=batch_random):0.3,mirror:0.2,"
        "product:0.2",
    ),
}
RULES = [
    pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
    for name in alignments.names()
]
EPOCHS = ("0.3", "0.6")


def run(workdir, rule, epochs):
    keras.backend.clear_session()
    small = ("--model=fc", "--layers_list=8", "--train_batch_size=128", "--defaults=none")
    options = OPTIONS.get(rule, ())
    job.train(
        parse(f"--alignment={rule}", *options, *small, f"--max_epochs={epochs}",
              f"--workdir={workdir}")
    )  # fmt: skip
    kept = Checkpoints(f"{workdir}/checkpoints")
    return kept.prefix(kept.newest_whole())


@pytest.mark.parametrize("rule", RULES)
def test_the_same_bits(rule, tmp_path):
    first, resumed = (run(tmp_path / "resumed", rule, epochs) for epochs in EPOCHS)
    straight = run(tmp_path / "straight", rule, EPOCHS[-1])
    assert checkpoints.differences(resumed, straight) == []
    assert checkpoints.differences(first, straight)
