"""Rates by epoch in a run: what they come to, and that a run which goes on takes them up."""

import pytest
import tensorflow as tf

from neural_alignment import config, optimizers
from neural_alignment.config import made
from neural_alignment.runs import checkpoints
from neural_alignment.training import job
from neural_alignment.training.too_late import stretched, too_late
from tests.training.test_flags import FALLING, MIRROR, TWO, parse

STEPS = 10


def settings(*arguments):
    return config.read(parse(*arguments))


# Command line, whether of the alignment loss, and the rate at some epochs.
RATES = [
    ([FALLING, "--warmup_epochs=0", "--drops=20,30", "--drop_factor=0.5"], False,
     {0: 0.02, 19.9: 0.02, 20: 0.01, 30: 0.005}),
    (["--learning_rate_schedule=0:0.1,1.5:0.3"], False, {0: 0.1, 1.4: 0.1, 1.5: 0.3, 80: 0.3}),
    (["--learning_rate_schedule=0:0.1,1:0.3", "--rescale_lr", "--train_batch_size=64"], False,
     {0: 0.025, 1: 0.075}),
    ([FALLING, "--cosine_lr", "--warmup_epochs=10", "--train_epochs=30"], False,
     {0: 0.0, 5: 0.01, 10: 0.02, 20: 0.01, 30: 0.0, 31: 0.0}),
    ([*TWO, FALLING, "--cosine_lr", "--warmup_epochs=0", "--train_epochs=12", "--delay_epochs=2"],
     False, {0: 0.02, 2: 0.02, 7: 0.01, 12: 0.0}),
    ([*TWO, "--alignment_constant_lr=false", "--alignment_cosine_lr", "--train_epochs=12",
      "--delay_epochs=2"], True, {0: 0.001, 2: 0.001, 7: 0.0005, 12: 0.0}),
    ([*TWO, "--alignment_constant_lr=false", "--alignment_warmup_epochs=0", "--drops=3",
      "--drop_factor=0.5"], True, {0: 0.001, 3: 0.0005}),
    ([*TWO, "--alignment_constant_lr=false", "--alignment_warmup_epochs=0", "--drops=3",
      "--alignment_drop_factor=0.2"], True, {0: 0.001, 3: 0.0002}),
    ([*TWO, "--alignment_learning_rate_schedule=0:0.1,4:0.2"], True, {0: 0.1, 4: 0.2}),
    (["--manual_lr", "--drop=2", "--boundary_step=100", "--drop_factor=0.5"], False,
     {10: 0.01, 10.1: 0.005}),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "of_alignment", "wanted"), RATES)
def test_learning_rates(arguments, of_alignment, wanted):
    rate = made.learning_rate(settings(*arguments), STEPS, of_alignment)
    got = {epoch: float(rate(round(epoch * STEPS))) for epoch in wanted}
    assert got == pytest.approx(wanted, rel=1e-6, abs=1e-8)


# Command line, and the flags of which a part comes after the last epoch.
ENDS = [
    ([], []),
    (["--train_epochs=20"], []),  # a constant rate has no drops
    ([FALLING, "--train_epochs=90"], []),
    ([FALLING, "--train_epochs=70"], []),  # the default's third drop
    ([FALLING, "--train_epochs=30"], ["--drops: the drops at 30, 60, 80 never come"]),
    ([FALLING, "--train_epochs=30", "--max_epochs=20", "--drops=10,29.5"], []),
    ([FALLING, "--train_epochs=30", "--drops=10,30"], ["--drops: the drops at 30 never come"]),
    ([FALLING, "--train_epochs=4.5", "--drops=2"], ["--warmup_epochs: the rate never is"]),
    ([FALLING, "--cosine_lr", "--train_epochs=20"], []),
    ([FALLING, "--drops=", "--train_epochs=20"], []),
    (["--learning_rate_schedule=0:0.1,5:0.2,6:0.3", "--train_epochs=5"],
     ["--learning_rate_schedule: what is to hold from 5, 6 on"]),
    (["--weight_decay_schedule=0:0.1,5:0.2", "--train_epochs=5"],
     ["--weight_decay_schedule: what is to hold from 5 on"]),
    ([MIRROR, "--decay_coef_schedule=0:0.5,9.5:0.2", "--train_epochs=9"],
     ["--decay_coef_schedule: what is to hold from 9.5"]),
    ([*TWO, "--alignment_constant_lr=false", "--drops=4", "--train_epochs=6"], []),
    ([*TWO, "--alignment_constant_lr=false", "--drops=4", "--train_epochs=6", "--delay_epochs=2"],
     ["--drops: the drops at 6 never come"]),
    ([*TWO, "--alignment_constant_lr=false", "--alignment_drops=9", "--train_epochs=6"],
     ["--alignment_drops: the drops at 9"]),
    ([*TWO, FALLING, "--drops=4", "--alternate_step_freq=1", "--train_epochs=8",
      "--warmup_epochs=0"], ["--drops: the drops at 8 never"]),
    ([*TWO, "--delay_epochs=5", "--train_epochs=5"], ["--delay_epochs: the loss is never trained"]),
    (["--constant_rate=false", "--train_epochs=30"], ["--constant_rate: the loss rates' drops"]),
    (["--constant_rate=false", "--train_epochs=31"], []),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "said"), ENDS)
def test_what_comes_after_the_last_epoch_is_said(arguments, said):
    found = too_late(config.validate(parse(*arguments)))
    assert [expected in each for expected, each in zip(said, found, strict=True)] == [True] * len(
        said
    )


# Command line, epochs meant before, and the flags whose schedules are stretched.
COSINE = [FALLING, "--cosine_lr", "--warmup_epochs=0"]
LONGER = [
    ([*COSINE, "--train_epochs=30"], 20.0, ["--cosine_lr: it goes by train_epochs, 30 now and 20"]),
    ([*COSINE, "--train_epochs=30"], 30.0, []),
    ([FALLING, "--train_epochs=30"], 20.0, []),
    ([*TWO, "--alignment_constant_lr=false", "--alignment_cosine_lr", "--alignment_warmup_epochs=0",
      "--train_epochs=9"], 2.5, ["--alignment_cosine_lr: it goes by train_epochs, 9 now and 2.5"]),
    ([MIRROR, "--decay_coef_start=0.5", "--amp_coef_stop=0.5", "--train_epochs=30"], 20.0,
     ["--amp_coef_stop", "--decay_coef_start"]),
    ([MIRROR, "--decay_coef_schedule=0:0.5,2:0.1", "--train_epochs=30"], 20.0, []),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "before", "said"), LONGER)
def test_schedules_that_a_longer_run_stretches_are_said(arguments, before, said):
    found = stretched(config.validate(parse(*arguments)), before)
    assert [each in one for each, one in zip(said, found, strict=True)] == [True] * len(said)


def test_coefficients_and_weight_decay_by_epoch():
    of_job = settings(
        MIRROR, "--decay_coef_schedule=0:0.5,2:-0.25", "--weight_decay_schedule=0:0.03,1:9e-5"
    )
    rule = made.make_rule(of_job, STEPS)
    assert [float(rule.decay_coef(t)) for t in (0, 19, 20)] == [0.5, 0.5, -0.25]
    decay = made.weight_decay(of_job, STEPS)
    assert [float(decay(t)) for t in (0, 9, 10)] == pytest.approx([0.03, 0.03, 9e-5])
    assert made.weight_decay(settings(MIRROR), STEPS) is None
    assert made.weight_decay(settings("--weight_decay=0.1"), STEPS) == (
        optimizers.rate_scheduler.Constant(value=0.1)
    )


@pytest.mark.parametrize("of_alignment", [False, True])
def test_momentum_is_of_the_optimizers_that_have_one(of_alignment):
    given = ["--momentum=0.5", "--nesterov=false", "--alignment_optimizer=adam", MIRROR]
    other = made.make_optimizer(settings(*given), STEPS, of_alignment)
    if of_alignment:
        assert other.name == "adam"
    else:
        assert (other.momentum, other.nesterov) == (0.5, False)


RUN = (
    "--dataset=digits", "--pixel_mean=0.3", "--pixel_stddev=0.4", "--layers_list=8", MIRROR,
    "--train_batch_size=128", "--train_epochs=3", "--learning_rate_schedule=0:0.02,1:0.01,1.5:0.05",
    "--weight_decay_schedule=0:0.03,1:1e-4", "--decay_coef_schedule=0:0.1,2:0.2",
    "--alignment_optimizer=momentum", "--momentum=0.5", "--nesterov=false",
    "--alignment_constant_lr=false", "--alignment_cosine_lr", "--alignment_warmup_epochs=0.5",
    "--checkpoint_max=1", "--epochs_per_checkpoint=0.5", "--keep_epochs=0,1",
    "--strategy=one_device",
)  # fmt: skip


def test_a_run_goes_on_bit_by_bit_and_keeps_what_it_is_told_to(tmp_path, capfd):
    for folder, parts in (("straight", [3]), ("parts", [1.5, 2.2, 3])):
        for epochs in parts:
            job.train(settings(*RUN, f"--max_epochs={epochs}", f"--workdir={tmp_path / folder}"))
    kept = [checkpoints.Checkpoints(f"{tmp_path / f}/checkpoints") for f in ("straight", "parts")]
    for each in kept:
        assert each.steps() == [0, 10, 30]
    for step in kept[0].steps():
        assert checkpoints.differences(*(each.prefix(step) for each in kept)) == []
    for table in ("metrics.csv", "layers.csv"):
        assert (tmp_path / "parts" / table).read_text() == (
            tmp_path / "straight" / table
        ).read_text()
    assert "device(s) and goes on" not in capfd.readouterr().out
    record = tmp_path / "parts" / "flags.cfg"
    of_four = record.read_text().replace("# devices: 1\n", "# devices: 4\n")
    record.write_text(of_four)  # as of a machine with four GPUs
    again = f"--workdir={tmp_path / 'parts'}"
    job.train(settings(*RUN[:-1], "--strategy=one_device", "--keep_epochs=0,2,3", again))
    said = capfd.readouterr().out
    assert said.count("keep_epochs") == 1
    assert "warning: --keep_epochs: step 20 is past and was not kept" in said
    assert "warning: the run was on 4 device(s) and goes on on 1: " in said
    assert "# devices: 1\n" in record.read_text() != of_four
    start = tf.train.load_checkpoint(kept[0].prefix(0))
    assert start.get_tensor("global_step") == 0
