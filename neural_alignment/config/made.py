"""Rule, optimizers and schedules from a job's settings: for a run, and for `fit` from a preset.

Imports Keras, which the rest of the package's settings do without.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import keras

from neural_alignment import alignments, optimizers
from neural_alignment.config import by_epoch
from neural_alignment.config.checks import validate
from neural_alignment.config.flags import Settings, parsed
from neural_alignment.config.presets import expand
from neural_alignment.optimizers import rate_scheduler, validation


def make_rule(settings: Settings, steps_per_epoch: int) -> alignments.Alignment | None:
    """The learning rule, with its coefficients' schedules.

    Args:
        settings: of the job, checked.
        steps_per_epoch: whole steps in an epoch.

    Returns:
        The rule; None is backpropagation.
    """
    if settings.rule.name == "backprop":
        return None
    known = alignments.rule(settings.rule.name).option_names()
    made = settings.rule.make(**settings.rule.biases())
    scheduled = {
        name: rate_scheduler.Coefficient(
            value=getattr(made, name),
            steps_per_epoch=steps_per_epoch,
            train_epochs=settings.plan.train_epochs,
            start=schedule.start,
            stop=schedule.stop,
            cycle=schedule.cycle,
            schedule_rate=schedule.schedule_rate,
            schedule_type=schedule.schedule_type,
        )
        for name, schedule in settings.rule.schedules.items()
        if name in known and schedule != type(schedule)() and schedule.schedule is None
    }
    scheduled |= {
        name: _piecewise(schedule.schedule, steps_per_epoch)
        for name, schedule in settings.rule.schedules.items()
        if name in known and schedule.schedule is not None
    }
    with warnings.catch_warnings():
        # They are the run's to tell, once; models make a rule again for some of their layers.
        warnings.simplefilter("ignore", alignments.AlignmentWarning)
        return made.replace(**scheduled)


def _piecewise(
    text: str, steps_per_epoch: int, scale: Callable[[float], float] = float
) -> rate_scheduler.Piecewise:
    epochs, values = by_epoch.steps(text)
    return rate_scheduler.Piecewise(
        steps_per_epoch=steps_per_epoch, epochs=epochs, values=tuple(map(scale, values))
    )


def weight_decay(settings: Settings, steps_per_epoch: int) -> Any:
    """Lambda of the weight decay lambda/2 |w|^2 on every weight but the rule's.

    Args:
        settings: of the job, checked.
        steps_per_epoch: whole steps in an epoch.

    Returns:
        A schedule; None where there is no such decay (`l2` is the model's own).
    """
    o = settings.optimizers
    if not o.decays_weights:
        return None
    if o.weight_decay_schedule is None:
        return rate_scheduler.Constant(value=o.weight_decay)
    return _piecewise(o.weight_decay_schedule, steps_per_epoch)


def learning_rate(settings: Settings, steps_per_epoch: int, of_alignment: bool = False) -> Any:
    """The learning rate of one optimizer: a number or a schedule.

    Args:
        settings: of the job, checked.
        steps_per_epoch: whole steps in an epoch.
        of_alignment: of the alignment loss's optimizer instead of the loss's.

    Returns:
        A float or a schedule.
    """
    rate = settings.alignment_rate if of_alignment else settings.rate

    def scale(value: float) -> float:
        if not rate.rescale_lr:
            return value
        batch, base = settings.plan.train_batch_size, settings.optimizers.base_batch_size
        return rate_scheduler.rescaled(value, batch, base)

    if rate.learning_rate_schedule is not None:
        return _piecewise(rate.learning_rate_schedule, steps_per_epoch, scale)
    value, factor = scale(rate.learning_rate), rate.drop_factor or settings.rate.drop_factor
    if rate.manual_lr:
        return rate_scheduler.manual_learning_rate(
            value,
            rate.drop,
            boundary_step=rate.boundary_step,
            warmup_epochs=rate.warmup_epochs,
            steps_per_epoch=steps_per_epoch,
            drop_factor=factor,
        )
    if rate.constant_lr:
        return value
    # The only optimizer of both losses needs its rate during the delay.
    alone = settings.optimizers.alignment_optimizer is None and settings.rule.has_loss
    delay = settings.timing.delay_epochs or 0.0
    if rate.cosine_lr:
        return rate_scheduler.CosineDecay(
            value=value,
            steps_per_epoch=steps_per_epoch,
            train_epochs=settings.plan.train_epochs,
            warmup_epochs=0.0 if of_alignment and delay else rate.warmup_epochs,
            delay_epochs=delay,
            value_during_delay=value if of_alignment or alone else None,
        )
    # Drops that were given as none are none; without any the alignment loss has the loss's.
    drops = settings.rate.drops if of_alignment and rate.drops is None else rate.drops
    shared = {
        "warmup_epochs": rate.warmup_epochs,
        "drops": tuple(drops or ()),
        "drop_factor": factor,
        "delay_epochs": delay,
        "alternate_step_freq": settings.timing.alternate_step_freq,
    }
    if of_alignment:
        return rate_scheduler.alignment_learning_rate(value, steps_per_epoch, **shared)
    return rate_scheduler.loss_learning_rate(
        value, steps_per_epoch, trains_alignment=alone, **shared
    )


def make_optimizer(
    settings: Settings, steps_per_epoch: int, of_alignment: bool = False
) -> keras.optimizers.Optimizer:
    """The optimizer of one loss, noisy or not.

    Args:
        settings: of the job, checked.
        steps_per_epoch: whole steps in an epoch.
        of_alignment: of the alignment loss instead of the loss.

    Returns:
        A Keras optimizer.
    """
    o = settings.optimizers
    name = o.alignment_optimizer if of_alignment else o.optimizer
    given = {"momentum": o.momentum, "nesterov": o.nesterov} if name == "momentum" else {}
    made = optimizers.get(
        name,
        learning_rate=learning_rate(settings, steps_per_epoch, of_alignment),
        **{option: value for option, value in given.items() if value is not None},
    )
    noisy, distribution, variance = (
        (
            o.use_noisy_alignment_opt,
            o.noisy_alignment_opt_distribution,
            o.noisy_alignment_opt_variance,
        )
        if of_alignment
        else (o.use_noisy_global_opt, o.noisy_global_opt_distribution, o.noisy_global_opt_variance)
    )
    if not noisy:
        return made
    return optimizers.Noisy(
        made,
        distribution=distribution or o.noisy_opt_distribution,
        variance=o.noisy_opt_variance if variance is None else variance,
        apply_filter="backward" if settings.rule.name == "kolen_pollack" else "",
        seed=settings.plan.seed + int(of_alignment),
    )


def loss_rates(settings: Settings, steps_per_epoch: int) -> tuple[Any, Any]:
    """The weights of J and R in the total.

    Args:
        settings: of the job, checked.
        steps_per_epoch: whole steps in an epoch.

    Returns:
        Two schedules.
    """
    timing = settings.timing
    shared = {
        "steps_per_epoch": steps_per_epoch,
        "delay_epochs": timing.delay_epochs or 0.0,
        "alternate_step_freq": timing.alternate_step_freq,
        "drops": () if timing.constant_rate else rate_scheduler.DROPS,
    }
    return (
        rate_scheduler.LossRate(value=timing.loss_rate, **shared),
        rate_scheduler.AlignmentRate(value=timing.alignment_rate, **shared),
    )


@dataclasses.dataclass(frozen=True)
class Preset:
    """What of a preset a Keras model is built and compiled with.

    Args:
        alignment: the rule; None is backpropagation.
        optimizer: for `compile`; with a loss R of its own optimizer a `RoutedOptimizer`.
        l2: lambda of the weight decay lambda/2 |W|^2 on forward kernels, which is
            `keras.regularizers.L2(l2 / 2)`; None where the preset leaves it to the model.
        weight_decay: the same on biases and all other weights but the rule's, too: a regularizer
            of each, or in a loss of one's own where it is a schedule; None for none.
        batch_size: that it was made for.
        epochs: that it trains.
    """

    alignment: alignments.Alignment | None
    optimizer: keras.optimizers.Optimizer
    l2: float | None
    batch_size: int
    epochs: float
    weight_decay: float | rate_scheduler.Schedule | None = None


def from_preset(name: str, steps_per_epoch: int, batch_size: int | None = None) -> Preset:
    """Rule and optimizer of a published setting, for a Keras model of one's own.

    Schedules count updates; where a coefficient of the rule is one, `fit` needs the callback
    `GlobalStep`.

    Args:
        name: of the preset, such as "wm_tpe".
        steps_per_epoch: whole batches in an epoch.
        batch_size: where it is another than the preset's; rates that the preset scales with the
            batch follow it.

    Returns:
        A `Preset`.

    Raises:
        ValueError: there is no such preset, or one that `fit` cannot do: a bias_rate, or delay or
            alternation with one optimizer.
    """
    validation.integer("steps_per_epoch", steps_per_epoch, at_least=1)
    line = ["fit", f"--preset={name}"]
    if batch_size is not None:
        line.append(f"--train_batch_size={batch_size}")
    settings = validate(parsed(expand(line)))
    if settings.optimizers.bias_rate != 1.0:
        raise ValueError(
            "Expected a preset without a bias_rate, which is no option of a Keras optimizer. "
            f"Received: {name!r}, with bias_rate={settings.optimizers.bias_rate:g}"
        )
    first = make_optimizer(settings, steps_per_epoch)
    loss_rate, alignment_rate = loss_rates(settings, steps_per_epoch)
    plain = rate_scheduler.LossRate(steps_per_epoch=steps_per_epoch)
    if settings.optimizers.alignment_optimizer is not None:
        first = optimizers.RoutedOptimizer(
            first,
            make_optimizer(settings, steps_per_epoch, of_alignment=True),
            loss_rate=loss_rate,
            alignment_rate=alignment_rate,
        )
    elif loss_rate != plain:
        raise ValueError(
            "Expected a preset with an alignment_optimizer, or one that trains both losses at all "
            f"steps: `fit` has one loss. Received: {name!r}"
        )
    return Preset(
        alignment=make_rule(settings, steps_per_epoch),
        optimizer=first,
        l2=settings.model.l2,
        batch_size=settings.plan.train_batch_size,
        epochs=settings.plan.train_epochs,
        weight_decay=_preset_decay(settings, steps_per_epoch),
    )


def _preset_decay(settings: Settings, steps_per_epoch: int) -> Any:
    made = weight_decay(settings, steps_per_epoch)
    return made.value if isinstance(made, rate_scheduler.Constant) else made
