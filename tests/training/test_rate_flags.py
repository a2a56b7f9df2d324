"""Flags of rates by epoch, drops, momentum, weight decay, pixels and kept epochs."""

import pytest
from absl import flags as absl_flags

from neural_alignment import config
from neural_alignment.config import UsageError
from tests.training import test_flags
from tests.training.test_flags import FALLING, MIRROR, NO_LOSS, TWO, parse

WRONG = [
    # rates by epoch
    *(
        (flag, [*needs, f"--{flag}={text}"])
        for flag, needs in (
            ("learning_rate_schedule", []),
            ("alignment_learning_rate_schedule", TWO),
            ("weight_decay_schedule", []),
            ("decay_coef_schedule", [MIRROR]),
        )
        for text in ("", "0.1", "1:0.1", "0:0.1,0:0.2", "0:1,3:2,2:1", "0:x", "0:1,", "0:inf")
    ),
    ("learning_rate_schedule", ["--learning_rate_schedule=0:-0.1"]),
    ("alignment_learning_rate_schedule", [*TWO, "--alignment_learning_rate_schedule=0:-0.1"]),
    ("weight_decay_schedule", ["--weight_decay_schedule=0:0.1,1:-1"]),
    ("alignment_learning_rate_schedule", ["--alignment_learning_rate_schedule=0:0.1"]),
    ("decay_coef_schedule", ["--alignment=feedback", "--decay_coef_schedule=0:0.1"]),
    *(
        (flag.partition("=")[0], ["--learning_rate_schedule=0:0.1", f"--{flag}"])
        for flag in (
            "learning_rate=0.1",
            "constant_lr=false",
            "warmup_epochs=2",
            "drops=4",
            "drop_factor=0.5",
            "manual_lr",
            "drop=1",
            "boundary_step=3",
            "cosine_lr",
        )
    ),
    *(
        (flag.partition("=")[0], [MIRROR, "--decay_coef_schedule=0:0.1", f"--{flag}"])
        for flag in (
            "decay_coef=0.5",
            "decay_coef_start=0.5",
            "decay_coef_stop=0.5",
            "decay_coef_cycle=2",
            "decay_coef_schedule_rate=1",
            "decay_coef_schedule_type=linear",
        )
    ),
    ("weight_decay", ["--weight_decay=0.1", "--weight_decay_schedule=0:0.1"]),
    ("l2", ["--weight_decay=0.1", "--l2=1e-4"]),
    ("l2", ["--weight_decay_schedule=0:0.1", "--l2=1e-4"]),
    ("weight_decay", ["--weight_decay=-1"]),
    # drops, cosine, momentum
    (
        "drops",
        [
            *TWO,
            "--learning_rate_schedule=0:1",
            "--alignment_constant_lr=false",
            "--alignment_drops=",
            "--drops=3",
        ],
    ),
    ("drop_factor", ["--drop_factor=0.5"]),
    ("drop_factor", [FALLING, "--drop_factor=0"]),
    ("alignment_drop_factor", [*TWO, "--alignment_drop_factor=0.5"]),
    ("alignment_drop_factor", [MIRROR, "--alignment_drop_factor=0.5"]),
    ("drop_factor", ["--manual_lr", "--drop_factor=0.5"]),
    ("cosine_lr", ["--cosine_lr"]),
    ("cosine_lr", ["--manual_lr", "--cosine_lr"]),
    ("alignment_cosine_lr", [*TWO, "--alignment_cosine_lr"]),
    ("drops", [FALLING, "--cosine_lr", "--drops=4"]),
    ("drop_factor", [FALLING, "--cosine_lr", "--drop_factor=0.5"]),
    ("train_epochs", [FALLING, "--cosine_lr", "--train_epochs=5"]),
    ("train_epochs", [*TWO, FALLING, "--cosine_lr", "--train_epochs=6", "--delay_epochs=2"]),
    ("momentum", ["--optimizer=gd", "--momentum=0.5"]),
    ("nesterov", ["--optimizer=adam", "--nesterov=false"]),
    ("momentum", ["--momentum=1.5"]),
    # pixels and checkpoints
    ("pixel_mean", ["--pixel_mean=0.1"]),
    ("pixel_stddev", ["--pixel_stddev=0.1"]),
    ("pixel_stddev", ["--pixel_mean=0.1", "--pixel_stddev=0"]),
    ("pixel_mean", ["--dataset=cifar10", "--pixel_mean=0.1", "--pixel_stddev=0.3"]),
    ("keep_epochs", ["--keep_epochs=-1"]),
    ("keep_epochs", ["--train_epochs=5", "--keep_epochs=0,6"]),
]


@pytest.mark.parametrize(
    ("flag", "arguments"), WRONG, ids=[" ".join(arguments) for _, arguments in WRONG]
)
def test_refused_by_name(flag, arguments):
    with pytest.raises((UsageError, absl_flags.Error)) as raised:
        parse(*arguments)
    message = str(raised.value)
    assert flag in message.partition("Received")[0]
    assert "xpected " in message and "Received: " in message


ACCEPTED = [
    ["--learning_rate_schedule=0:0.1, 2.5:0.05", "--rescale_lr"],
    ["--learning_rate_schedule=0:0.1", "--learning_rate_schedule=none", "--learning_rate=0.1"],
    [*TWO, "--learning_rate_schedule=0:1", "--alignment_constant_lr=false", "--drops=3"],
    [*TWO, "--alignment_learning_rate_schedule=0:1", FALLING, "--drops=3", "--drop_factor=0.5"],
    [*TWO, "--alignment_constant_lr=false", "--drop_factor=0.5"],
    [FALLING, "--drop_factor=0.5", "--drops=20,30"],
    [FALLING, "--cosine_lr", "--warmup_epochs=0"],
    [*TWO, FALLING, "--cosine_lr", "--delay_epochs=2", "--alternate_step_freq=1"],
    [*TWO, FALLING, "--drops=2", "--alignment_constant_lr=false", "--alignment_drops="],
    ["--manual_lr", "--drop=1", "--boundary_step=100", "--drop_factor=0.5"],
    [MIRROR, "--decay_coef_schedule=0:0.5,10:-1e-3"],
    ["--weight_decay_schedule=0:0.03,1:9e-5", "--l2=0"],
    ["--momentum=0.5", "--nesterov=false"],
    ["--alignment=mirror", "--optimizer=adam", "--alignment_optimizer=momentum", "--nesterov"],
    ["--pixel_mean=0.1", "--pixel_stddev=0.3"],
    ["--keep_epochs=0,2,90"],
]


@pytest.mark.parametrize("arguments", [*test_flags.ACCEPTED, *ACCEPTED], ids=" ".join)
def test_the_lines_of_a_run_say_the_same_settings(arguments):
    settings = config.read(parse(*arguments))
    again = config.read(parse(*config.flag_lines(settings).values()))
    for group in ("rate", "alignment_rate", "optimizers", "timing", "data", "model", "plan"):
        assert getattr(again, group) == getattr(settings, group)
    assert again.rule.schedules == settings.rule.schedules
    assert again.rule.has_loss == settings.rule.has_loss


@pytest.mark.parametrize(
    ("schedule", "has_loss"), [("0:0", False), ("0:0,3:0", False), ("0:0,3:0.1", True)]
)
def test_a_coefficient_by_epoch_decides_whether_there_is_a_loss(schedule, has_loss):
    settings = config.read(parse(*NO_LOSS[:1], f"--decay_coef_schedule={schedule}"))
    assert settings.rule.has_loss == has_loss


@pytest.mark.parametrize(
    ("given", "drops"),
    [([], (2.0,)), (["--alignment_drops="], ()), (["--alignment_drops=3,4"], (3.0, 4.0))],
)
def test_drops_that_are_given_as_none_are_none(given, drops):
    from neural_alignment.config.made import learning_rate
    from neural_alignment.training.too_late import too_late

    falling = [FALLING, "--drops=2", "--alignment_constant_lr=false", "--train_epochs=5"]
    settings = config.read(parse(*TWO, *falling, "--warmup_epochs=0", *given))
    assert learning_rate(settings, 10, of_alignment=True).drops == drops
    assert learning_rate(settings, 10).drops == (2.0,)
    assert not [each for each in too_late(settings) if "drops" in each]
