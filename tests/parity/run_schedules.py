"""Golden cases of learning rates, coefficients and loss rates."""

import keras
import numpy as np

from neural_alignment.optimizers import rate_scheduler


def run(case, inputs, golden):
    schedules = _BUILD[case["function"]](**case["kwargs"])
    if not isinstance(schedules, dict):
        schedules = {"value": schedules}
    return {name: _values(schedule, inputs["step"]) for name, schedule in schedules.items()}


def _values(schedule, steps):
    if isinstance(schedule, list):
        return np.stack([_values(one, steps) for one in schedule], axis=-1)
    return np.array([keras.ops.convert_to_numpy(schedule(int(step))) for step in steps])


def _learning_rate(
    learning_rate=0.1,
    num_batches_per_epoch=1,
    train_batch_size=128,
    base_batch_size=256,
    rescale_lr=False,
    constant_lr=True,
    warmup_epochs=None,
    alternate_step_freq=None,
    delay_epochs=None,
    delay_epochs_offset=None,
):
    if rescale_lr:
        learning_rate = rate_scheduler.rescaled(learning_rate, train_batch_size, base_batch_size)
    if constant_lr:
        return rate_scheduler.Constant(value=learning_rate)
    if warmup_epochs is None:
        warmup_epochs = rate_scheduler.WARMUP_EPOCHS
    common = {
        "value": learning_rate,
        "steps_per_epoch": num_batches_per_epoch,
        "alternate_step_freq": alternate_step_freq,
    }
    if delay_epochs_offset is None:
        return rate_scheduler.loss_learning_rate(
            warmup_epochs=warmup_epochs, delay_epochs=delay_epochs or 0.0, **common
        )
    # The original drops the warm-up with an offset of 0, too.
    return rate_scheduler.alignment_learning_rate(
        warmup_epochs=0.0, delay_epochs=delay_epochs_offset, **common
    )


def _warmup(warmup_epochs, target_lr, num_batches_per_epoch):
    return rate_scheduler.LearningRate(
        value=target_lr,
        steps_per_epoch=num_batches_per_epoch,
        warmup_epochs=warmup_epochs,
        drops=(),
    )


def _drop(boundary_step, next_lr, prev_lr=None):
    before = 10.0 * next_lr if prev_lr is None else prev_lr
    return rate_scheduler.ManualDrop(before=before, after=next_lr, boundary_step=boundary_step)


def _manual(scaled_lr, drop, boundary_step=None, num_batches_per_epoch=1, warmup_epochs=None):
    return rate_scheduler.manual_learning_rate(
        scaled_lr,
        drop,
        boundary_step=boundary_step if drop else None,
        warmup_epochs=warmup_epochs or 0.0,
        steps_per_epoch=num_batches_per_epoch,
    )


def _combined(lr_params):
    columns = []
    for params in lr_params:
        function = params["func"]
        rest = {name: value for name, value in params.items() if name != "func"}
        columns.append(_BUILD[function](**rest))
    return columns


def _rates(
    loss_rate=1.0,
    alignment_rate=1.0,
    delay_epochs=None,
    alternate_step_freq=None,
    constant_rate=True,
    num_batches_per_epoch=1,
):
    common = {
        "steps_per_epoch": num_batches_per_epoch,
        "delay_epochs": delay_epochs or 0.0,
        "alternate_step_freq": alternate_step_freq,
        "drops": () if constant_rate else rate_scheduler.DROPS,
    }
    return {
        "loss_rate": rate_scheduler.LossRate(value=loss_rate, **common),
        "alignment_rate": rate_scheduler.AlignmentRate(value=alignment_rate, **common),
    }


def _coefficient(
    value=1.0,
    start=0.0,
    stop=1.0,
    cycle=0,
    schedule_rate=0.0,
    schedule_type=None,
    num_batches_per_epoch=1,
    train_epochs=1,
):
    # Without a type the original ignores cycle and rate; a cycle of 0 is none.
    has_cycle = schedule_type is not None and cycle is not None and cycle > 0
    return rate_scheduler.Coefficient(
        value=value,
        steps_per_epoch=num_batches_per_epoch,
        train_epochs=train_epochs,
        start=start,
        stop=stop,
        cycle=cycle if has_cycle else None,
        schedule_rate=0.0 if schedule_type is None else schedule_rate,
        schedule_type=schedule_type,
    )


_BUILD = {
    "build_lr_schedule": _learning_rate,
    "warmup_learning_rate": _warmup,
    "drop_learning_rate": _drop,
    "manual_lr": _manual,
    "combined_lr": _combined,
    "build_schedule": _rates,
    "build_alignment_coefficient_schedule": _coefficient,
}
