"""Learning rates, coefficients and loss rates as functions of the global step.

A schedule is an immutable object: `schedule(step)` is a float32 scalar tensor that depends on the
step alone, eagerly, in a graph or under XLA. Epochs are `step / steps_per_epoch`; a change at
epoch e takes effect at the first step that is not before it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from keras import ops

from neural_alignment.optimizers import validation
from neural_alignment.optimizers.by_epoch import CosineDecay, Piecewise
from neural_alignment.optimizers.schedule import (
    Schedule,
    Tensor,
    first_step,
    increasing,
    last_step,
    register,
)

__all__ = [
    "AlignmentRate",
    "Coefficient",
    "Constant",
    "CosineDecay",
    "LearningRate",
    "LossRate",
    "ManualDrop",
    "Piecewise",
    "Schedule",
    "alignment_learning_rate",
    "loss_learning_rate",
    "manual_learning_rate",
    "rescaled",
    "steps_per_epoch",
]

DROPS = (30.0, 60.0, 80.0)
WARMUP_EPOCHS = 5.0
BASE_BATCH_SIZE = 256


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Steps in an epoch, rounded down: `examples // batch_size`.

    Args:
        examples: in the training set.
        batch_size: global.

    Returns:
        The number of steps.

    Raises:
        ValueError: there is not one whole batch.
    """
    validation.integer("batch_size", batch_size, at_least=1)
    validation.integer("examples", examples, at_least=batch_size)
    return examples // batch_size


def rescaled(value: float, batch_size: int, base_batch_size: int = BASE_BATCH_SIZE) -> float:
    """The linear scaling rule: `value * batch_size / base_batch_size`.

    Args:
        value: learning rate for the base batch size.
        batch_size: global.
        base_batch_size: what `value` is meant for.

    Returns:
        The learning rate for this batch size.

    Raises:
        ValueError: a batch size below 1, or a value that is negative or not finite.
    """
    validation.integer("batch_size", batch_size, at_least=1)
    validation.integer("base_batch_size", base_batch_size, at_least=1)
    return validation.number("value", value, at_least=0.0) * (batch_size / base_batch_size)


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """The same value at every step.

    Args:
        value: finite.

    Raises:
        ValueError: not a finite number.
    """

    value: float

    def __post_init__(self) -> None:
        self._set("value", validation.number("value", self.value))

    def _value(self, step: Tensor) -> Tensor:
        return ops.zeros_like(step, dtype="float32") + self.value


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class LearningRate(Schedule):
    """Linear warm-up, then drops by a factor ([K] B.1.2).

    With `e = (step - delay) / steps_per_epoch`, never below 0, and `w = warmup_epochs * stretch`:

        value * e / w                        e < w and before the first drop
        value * drop_factor^k                after the k-th drop, at drops[k] * stretch + offset

    A warm-up longer than the first drop is cut off by it, as in [K]'s code.

    Args:
        value: base learning rate, already scaled to the batch size.
        steps_per_epoch: whole steps in an epoch.
        warmup_epochs: length of the warm-up, which starts at 0; 0 for none.
        drops: epochs of the drops, increasing; () for none.
        drop_factor: what a drop multiplies the rate with.
        delay_epochs: epochs before all of it begins.
        value_during_delay: the rate until then; None for the schedule's first value.
        drop_offset_epochs: epochs that the drops alone move back by.
        stretch: multiplies the warm-up and the drops, n + 1 for alternating steps.

    Raises:
        ValueError: a value out of range, or drops that do not increase.
    """

    value: float
    steps_per_epoch: int
    warmup_epochs: float = WARMUP_EPOCHS
    drops: tuple[float, ...] = DROPS
    drop_factor: float = 0.1
    delay_epochs: float = 0.0
    value_during_delay: float | None = None
    drop_offset_epochs: float = 0.0
    stretch: int = 1

    def __post_init__(self) -> None:
        for name in ("value", "warmup_epochs", "drop_factor", "delay_epochs", "drop_offset_epochs"):
            self._set(name, validation.number(name, getattr(self, name), at_least=0.0))
        if self.value_during_delay is not None:
            during = validation.number("value_during_delay", self.value_during_delay, at_least=0.0)
            self._set("value_during_delay", during)
        self._set("drops", increasing("drops", self.drops))
        validation.integer("steps_per_epoch", self.steps_per_epoch, at_least=1)
        validation.integer("stretch", self.stretch, at_least=1)

    def _value(self, step: Tensor) -> Tensor:
        delay = self.delay_epochs * self.steps_per_epoch
        warmup = self.warmup_epochs * self.stretch * self.steps_per_epoch
        if warmup > 0.0:
            elapsed = ops.maximum(ops.cast(step, "float32") - delay, 0.0)
            ramp = elapsed * (self.value / warmup)
            rate = ops.where(step >= first_step(delay + warmup), self.value, ramp)
        else:
            rate = ops.zeros_like(step, dtype="float32") + self.value
        moved = [epoch * self.stretch + self.drop_offset_epochs for epoch in self.drops]
        rate = _drop(rate, step, self.value, moved, self.drop_factor, self.steps_per_epoch, delay)
        if self.value_during_delay is not None:
            rate = ops.where(step < first_step(delay), self.value_during_delay, rate)
        return rate


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class ManualDrop(Schedule):
    """One drop at a step given by hand: `before` up to and at `boundary_step`, then `after`.

    Args:
        before: rate until then.
        after: rate from the next step on.
        boundary_step: the last step at the old rate.

    Raises:
        ValueError: a rate or step that is negative or not finite.
    """

    before: float
    after: float
    boundary_step: int

    def __post_init__(self) -> None:
        for name in ("before", "after"):
            self._set(name, validation.number(name, getattr(self, name), at_least=0.0))
        validation.integer("boundary_step", self.boundary_step, at_least=0)

    def _value(self, step: Tensor) -> Tensor:
        return ops.where(step <= self.boundary_step, self.before, self.after)


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class Coefficient(Schedule):
    """A coefficient between two fractions of training, 0 outside ([K] rate schedules).

    With p the epochs since `start`, or on a cycle of c epochs `p = c/2 - |p mod c - c/2|`:

        value                            schedule_type None
        value + schedule_rate * p        "linear"
        value * exp(schedule_rate * p)   "exponential"

    Args:
        value: at the start; may be negative.
        steps_per_epoch: whole steps in an epoch.
        train_epochs: length of training, of which `start` and `stop` are fractions.
        start: fraction where it starts, included.
        stop: fraction where it ends, included.
        cycle: epochs of a triangular cycle, whose peak is half of it; None for none.
        schedule_rate: growth or decay per epoch.
        schedule_type: None, "linear" or "exponential".

    Raises:
        ValueError: a value out of range, `start > stop`, `cycle <= 0`, or a cycle or a rate
            without a schedule type.
    """

    value: float = 1.0
    steps_per_epoch: int
    train_epochs: float
    start: float = 0.0
    stop: float = 1.0
    cycle: float | None = None
    schedule_rate: float = 0.0
    schedule_type: str | None = None

    def __post_init__(self) -> None:
        self._set("value", validation.number("value", self.value))
        self._set("schedule_rate", validation.number("schedule_rate", self.schedule_rate))
        self._set("train_epochs", validation.number("train_epochs", self.train_epochs, above=0.0))
        validation.integer("steps_per_epoch", self.steps_per_epoch, at_least=1)
        for name in ("start", "stop"):
            fraction = validation.number(name, getattr(self, name), at_least=0.0, at_most=1.0)
            self._set(name, fraction)
        if self.start > self.stop:
            raise ValueError(
                "Expected start <= stop, fractions of training. "
                f"Received: start={self.start}, stop={self.stop}"
            )
        if self.cycle is not None:
            self._set("cycle", validation.number("cycle", self.cycle, above=0.0))
        if self.schedule_type is not None:
            validation.choice("schedule_type", self.schedule_type, ("linear", "exponential"))
        elif self.cycle is not None or self.schedule_rate != 0.0:
            raise ValueError(
                'Expected schedule_type "linear" or "exponential" with a cycle or a schedule_rate. '
                f"Received: schedule_type=None, cycle={self.cycle}, "
                f"schedule_rate={self.schedule_rate}"
            )

    def _value(self, step: Tensor) -> Tensor:
        start, stop = (
            fraction * self.train_epochs * self.steps_per_epoch
            for fraction in (self.start, self.stop)
        )
        # Clipped at the stop, so that an exponential cannot overflow where it does not count.
        since = ops.clip(ops.cast(step, "float32") - start, 0.0, stop - start)
        position = since / self.steps_per_epoch
        if self.cycle is not None:
            half = self.cycle / 2.0
            position = half - ops.abs(ops.mod(position, self.cycle) - half)
        if self.schedule_type == "linear":
            value = self.value + self.schedule_rate * position
        elif self.schedule_type == "exponential":
            value = self.value * ops.exp(self.schedule_rate * position)
        else:
            value = ops.zeros_like(position) + self.value
        inside = ops.logical_and(step >= first_step(start), step <= last_step(stop))
        return ops.where(inside, value, 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _LossRate(Schedule):
    """What the rates of the two losses share."""

    value: float = 1.0
    steps_per_epoch: int = 1
    delay_epochs: float = 0.0
    alternate_step_freq: int | None = None
    drops: tuple[float, ...] = ()
    drop_factor: float = 0.1

    def __post_init__(self) -> None:
        for name in ("value", "delay_epochs", "drop_factor"):
            self._set(name, validation.number(name, getattr(self, name), at_least=0.0))
        self._set("drops", increasing("drops", self.drops))
        validation.integer("steps_per_epoch", self.steps_per_epoch, at_least=1)
        if self.alternate_step_freq is not None:
            validation.integer("alternate_step_freq", self.alternate_step_freq, at_least=1)

    def _stepped(self, step: Tensor) -> Tensor:
        rate = ops.zeros_like(step, dtype="float32") + self.value
        return _drop(rate, step, self.value, self.drops, self.drop_factor, self.steps_per_epoch)

    def _in_delay(self, step: Tensor) -> Tensor:
        return step < first_step(self.delay_epochs * self.steps_per_epoch)

    def _is_alignment_step(self, step: Tensor) -> Tensor:
        return ops.equal(ops.mod(step, (self.alternate_step_freq or 0) + 1), 0)


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class LossRate(_LossRate):
    """The weight of J in the total: 0 during the delay and on alignment steps.

    `step mod (alternate_step_freq + 1) = 0` is an alignment step, the others are loss steps.

    Args:
        value: on loss steps.
        steps_per_epoch: whole steps in an epoch.
        delay_epochs: epochs at the start in which only R is optimised.
        alternate_step_freq: loss steps to one alignment step; None optimises both at every step.
        drops: epochs at which the value drops, increasing; () for a constant one.
        drop_factor: what a drop multiplies the value with.

    Raises:
        ValueError: a value out of range, or drops that do not increase.
    """

    def _value(self, step: Tensor) -> Tensor:
        off = self._in_delay(step)
        if self.alternate_step_freq is not None:
            off = ops.logical_or(off, self._is_alignment_step(step))
        return ops.where(off, 0.0, self._stepped(step))


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignmentRate(_LossRate):
    """The weight of R in the total: 0 on loss steps that come after the delay.

    Args:
        value: on alignment steps and during the delay.
        steps_per_epoch: whole steps in an epoch.
        delay_epochs: epochs at the start in which only R is optimised.
        alternate_step_freq: loss steps to one alignment step; None optimises both at every step.
        drops: epochs at which the value drops, increasing; () for a constant one.
        drop_factor: what a drop multiplies the value with.

    Raises:
        ValueError: a value out of range, or drops that do not increase.
    """

    def _value(self, step: Tensor) -> Tensor:
        rate = self._stepped(step)
        if self.alternate_step_freq is None:
            return rate
        return ops.where(
            ops.logical_or(self._is_alignment_step(step), self._in_delay(step)), rate, 0.0
        )


def loss_learning_rate(
    value: float,
    steps_per_epoch: int,
    *,
    warmup_epochs: float = WARMUP_EPOCHS,
    drops: tuple[float, ...] = DROPS,
    drop_factor: float = 0.1,
    delay_epochs: float = 0.0,
    alternate_step_freq: int | None = None,
    trains_alignment: bool = False,
) -> LearningRate:
    """The learning rate of J's optimizer: it starts after the delay.

    Args:
        value: base learning rate, already scaled to the batch size.
        steps_per_epoch: whole steps in an epoch.
        warmup_epochs: length of the warm-up.
        drops: epochs of the drops.
        drop_factor: what a drop multiplies the rate with.
        delay_epochs: epochs in which only R is optimised.
        alternate_step_freq: loss steps to one alignment step, which stretches the schedule.
        trains_alignment: this optimizer is the only one, so that it needs its base rate during
            the delay ([K]'s code gave it 0 there, and nothing trained).

    Returns:
        The schedule.
    """
    return LearningRate(
        value=value,
        steps_per_epoch=steps_per_epoch,
        warmup_epochs=warmup_epochs,
        drops=drops,
        drop_factor=drop_factor,
        delay_epochs=delay_epochs,
        value_during_delay=value if trains_alignment else None,
        stretch=_stretch(alternate_step_freq),
    )


def alignment_learning_rate(
    value: float,
    steps_per_epoch: int,
    *,
    warmup_epochs: float = WARMUP_EPOCHS,
    drops: tuple[float, ...] = DROPS,
    drop_factor: float = 0.1,
    delay_epochs: float = 0.0,
    alternate_step_freq: int | None = None,
) -> LearningRate:
    """The learning rate of R's optimizer: with a delay no warm-up, and drops moved back by it.

    A delay of 0 keeps the warm-up ([K] B.1.2; [K]'s code lost it there).

    Args:
        value: base learning rate, already scaled to the batch size.
        steps_per_epoch: whole steps in an epoch.
        warmup_epochs: length of the warm-up where there is no delay.
        drops: epochs of the drops.
        drop_factor: what a drop multiplies the rate with.
        delay_epochs: epochs in which only R is optimised.
        alternate_step_freq: loss steps to one alignment step, which stretches the schedule.

    Returns:
        The schedule.
    """
    return LearningRate(
        value=value,
        steps_per_epoch=steps_per_epoch,
        warmup_epochs=0.0 if delay_epochs else warmup_epochs,
        drops=drops,
        drop_factor=drop_factor,
        drop_offset_epochs=delay_epochs,
        stretch=_stretch(alternate_step_freq),
    )


def manual_learning_rate(
    value: float,
    drop: int,
    *,
    boundary_step: int | None = None,
    warmup_epochs: float = 0.0,
    steps_per_epoch: int = 1,
    drop_factor: float = 0.1,
) -> Schedule:
    """A learning rate whose drops are made by hand, one a run.

    Args:
        value: base learning rate, already scaled to the batch size.
        drop: 0 for the run before any drop, k for the run in which the k-th is made, from
            `value * drop_factor^(k-1)` to `value * drop_factor^k`.
        boundary_step: the last step before the drop; needed where `drop > 0`.
        warmup_epochs: length of the warm-up of a run with `drop` 0.
        steps_per_epoch: whole steps in an epoch, for the warm-up.
        drop_factor: what a drop multiplies the rate with.

    Returns:
        The schedule.

    Raises:
        ValueError: a drop without a boundary step, or the other way round.
    """
    validation.integer("drop", drop, at_least=0)
    if (drop > 0) != (boundary_step is not None):
        raise ValueError(
            "Expected a boundary_step with drop > 0, and none with drop 0. "
            f"Received: drop={drop}, boundary_step={boundary_step}"
        )
    if boundary_step is not None:
        return ManualDrop(
            before=value * drop_factor ** (drop - 1),
            after=value * drop_factor**drop,
            boundary_step=boundary_step,
        )
    return LearningRate(
        value=value, steps_per_epoch=steps_per_epoch, warmup_epochs=warmup_epochs, drops=()
    )


def _stretch(alternate_step_freq: int | None) -> int:
    if alternate_step_freq is None:
        return 1
    return validation.integer("alternate_step_freq", alternate_step_freq, at_least=1) + 1


def _drop(
    rate: Tensor,
    step: Tensor,
    value: float,
    drops: Any,
    factor: float,
    steps: int,
    delay: float = 0.0,
) -> Tensor:
    for count, epoch in enumerate(drops, start=1):
        reached = step >= first_step(delay + epoch * steps)
        rate = ops.where(reached, value * factor**count, rate)
    return rate
