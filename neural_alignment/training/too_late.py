"""What of a run's schedules comes after its end, or moves with it: nothing else would show it."""

from __future__ import annotations

from collections.abc import Iterator

from neural_alignment.config import Settings, by_epoch
from neural_alignment.config.made import learning_rate
from neural_alignment.optimizers import rate_scheduler


def too_late(settings: Settings) -> list[str]:
    """The flags whose epochs lie at the end of training or after it.

    Drops that no flag or preset says count where all of them do: then a rate that is to change
    never drops.

    Args:
        settings: of the job, checked.

    Returns:
        A sentence for each of those flags.
    """
    end = settings.plan.train_epochs
    found: dict[str, None] = {}
    apart = settings.optimizers.alignment_optimizer is not None
    for of_alignment in (False, True) if apart else (False,):
        found |= dict.fromkeys(_of_rate(settings, of_alignment))
    delay = settings.timing.delay_epochs or 0.0
    if delay >= end:
        found[f"--delay_epochs: the loss is never trained on, as it begins after {delay:g}"] = None
    if not settings.timing.constant_rate and min(rate_scheduler.DROPS) >= end:
        drops = ", ".join(f"{drop:g}" for drop in rate_scheduler.DROPS)
        found[f"--constant_rate: the loss rates' drops at {drops} never come"] = None
    schedules = {"weight_decay": settings.optimizers.weight_decay_schedule}
    schedules |= {name: one.schedule for name, one in settings.rule.schedules.items()}
    for name, text in schedules.items():
        late = [] if text is None else _late(by_epoch.steps(text)[0], end)
        if late:
            found[f"--{name}_schedule: what is to hold from {', '.join(late)} on never does"] = None
    return [f"{each}: training ends after {end:g} epochs" for each in found]


def stretched(settings: Settings, before: float) -> list[str]:
    """What a longer run changes of the schedules that it was under so far.

    Args:
        settings: of the job, checked.
        before: epochs that it was to train.

    Returns:
        A sentence for each flag that says a schedule by the length of training.
    """
    end = settings.plan.train_epochs
    if end <= before:
        return []
    rates = {"cosine_lr": settings.rate, "alignment_cosine_lr": settings.alignment_rate}
    flags = [name for name, rate in rates.items() if rate.cosine_lr]
    for name, one in settings.rule.schedules.items():
        flags += [f"{name}_start"] * (one.start > 0.0) + [f"{name}_stop"] * (one.stop < 1.0)
    return [
        f"--{flag}: it goes by train_epochs, {end:g} now and {before:g} until here: the run is "
        f"not the one that {end:g} epochs make from the start"
        for flag in flags
    ]


def _of_rate(settings: Settings, of_alignment: bool) -> Iterator[str]:
    """What of one learning rate comes too late."""
    end = settings.plan.train_epochs
    rate = learning_rate(settings, 1, of_alignment)
    prefix = "alignment_" if of_alignment else ""
    if isinstance(rate, rate_scheduler.Piecewise):
        if late := _late(rate.epochs, end):
            yield (
                f"--{prefix}learning_rate_schedule: what is to hold from {', '.join(late)} on "
                "never does"
            )
    if not isinstance(rate, rate_scheduler.LearningRate):
        return
    moved = rate.drop_offset_epochs + rate.delay_epochs
    epochs = [moved + rate.stretch * drop for drop in rate.drops]
    own = settings.alignment_rate.drops if of_alignment else settings.rate.drops
    flag = "drops" if own is None else f"{prefix}drops"
    late = _late(epochs, end)
    if late and (flag in settings.given or len(late) == len(epochs)):
        yield f"--{flag}: the drops at {', '.join(late)} never come"
    warmup = rate.delay_epochs + rate.stretch * rate.warmup_epochs
    if warmup > end and rate.warmup_epochs:
        yield f"--{prefix}warmup_epochs: the rate never is what it rises to, after {warmup:g}"


def _late(epochs: tuple[float, ...] | list[float], end: float) -> list[str]:
    return [f"{epoch:g}" for epoch in epochs if epoch >= end]
