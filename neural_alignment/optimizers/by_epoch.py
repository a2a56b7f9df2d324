"""Schedules that papers state by epoch: a value for each stretch of training, and a cosine."""

from __future__ import annotations

import dataclasses
import math

from keras import ops

from neural_alignment.optimizers import validation
from neural_alignment.optimizers.schedule import Schedule, Tensor, first_step, increasing, register


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class Piecewise(Schedule):
    """Constant between epochs: `values[k]`, k the last with `epochs[k] * steps_per_epoch <= step`.

    For any rate: a learning rate, a coefficient, a weight decay ([P] decays W and R by 0.03 in the
    first epoch and by 9e-5 after it: `epochs=(0, 1), values=(0.03, 9e-5)`).

    Args:
        steps_per_epoch: whole steps in an epoch.
        epochs: where each value begins, from 0, increasing.
        values: one for each epoch.

    Raises:
        ValueError: epochs that do not begin with 0 or do not increase, not as many values, or a
            value that is not finite.
    """

    steps_per_epoch: int
    epochs: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        validation.integer("steps_per_epoch", self.steps_per_epoch, at_least=1)
        first, *rest = tuple(self.epochs) or (None,)
        if first != 0 or isinstance(first, bool):
            raise ValueError(
                f"Expected epochs to begin with 0. Received: epochs={tuple(self.epochs)}"
            )
        self._set("epochs", (0.0, *increasing("epochs", rest)))
        self._set("values", tuple(validation.number("values", value) for value in self.values))
        if len(self.values) != len(self.epochs):
            raise ValueError(
                "Expected a value for each of the epochs. "
                f"Received: epochs={self.epochs}, values={self.values}"
            )

    def _value(self, step: Tensor) -> Tensor:
        rate = ops.zeros_like(step, dtype="float32") + self.values[0]
        for epoch, value in zip(self.epochs[1:], self.values[1:], strict=True):
            rate = ops.where(step >= first_step(epoch * self.steps_per_epoch), value, rate)
        return rate


@register
@dataclasses.dataclass(frozen=True, kw_only=True)
class CosineDecay(Schedule):
    """Linear warm-up, then half a cosine down to `final` (Loshchilov & Hutter 2017, no restarts).

    With `e = (step - delay) / steps_per_epoch`, never below 0, w the warm-up and
    `T = train_epochs - delay`, both in epochs:

        value * e / w                                                     e < w
        final + (value - final) * (1 + cos(pi (e - w) / (T - w))) / 2     w <= e <= T
        final                                                             after T

    Args:
        value: the rate at the top, already scaled to the batch size.
        steps_per_epoch: whole steps in an epoch.
        train_epochs: where the rate arrives at `final`.
        warmup_epochs: length of the warm-up, which starts at 0; 0 for none.
        final: the rate at the end.
        delay_epochs: epochs before all of it begins.
        value_during_delay: the rate until then; None for the schedule's first value.

    Raises:
        ValueError: a value out of range, or no time left after delay and warm-up.
    """

    value: float
    steps_per_epoch: int
    train_epochs: float
    warmup_epochs: float = 0.0
    final: float = 0.0
    delay_epochs: float = 0.0
    value_during_delay: float | None = None

    def __post_init__(self) -> None:
        for name in ("value", "warmup_epochs", "final", "delay_epochs"):
            self._set(name, validation.number(name, getattr(self, name), at_least=0.0))
        if self.value_during_delay is not None:
            during = validation.number("value_during_delay", self.value_during_delay, at_least=0.0)
            self._set("value_during_delay", during)
        self._set("train_epochs", validation.number("train_epochs", self.train_epochs, above=0.0))
        validation.integer("steps_per_epoch", self.steps_per_epoch, at_least=1)
        if self.delay_epochs + self.warmup_epochs >= self.train_epochs:
            raise ValueError(
                "Expected train_epochs above delay_epochs + warmup_epochs, time for the rate to "
                f"fall. Received: train_epochs={self.train_epochs}, "
                f"delay_epochs={self.delay_epochs}, warmup_epochs={self.warmup_epochs}"
            )

    def _value(self, step: Tensor) -> Tensor:
        steps = self.steps_per_epoch
        delay, warmup = self.delay_epochs * steps, self.warmup_epochs * steps
        elapsed = ops.maximum(ops.cast(step, "float32") - delay, 0.0)
        length = self.train_epochs * steps - delay - warmup
        way = ops.clip((elapsed - warmup) / length, 0.0, 1.0)
        rate = self.final + (self.value - self.final) * 0.5 * (1.0 + ops.cos(math.pi * way))
        if warmup > 0.0:
            ramp = elapsed * (self.value / warmup)
            rate = ops.where(step >= first_step(delay + warmup), rate, ramp)
        if self.value_during_delay is not None:
            rate = ops.where(step < first_step(delay), self.value_during_delay, rate)
        return rate
