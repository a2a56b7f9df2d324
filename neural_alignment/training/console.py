"""What a person sees of a run: a line an epoch, a bar within it, a table at the end."""

from __future__ import annotations

import math
import time
from typing import Any

import keras
import rich.console
import rich.progress
import rich.table

from neural_alignment.messages import duration


class Progress(keras.callbacks.Callback):
    """Shows a bar within an epoch (on a terminal) and prints a line after it.

    Args:
        console: where to.
        trainer: whose steps and epochs are shown.
    """

    def __init__(self, console: rich.console.Console, trainer: Any) -> None:
        super().__init__()
        self._console = console
        self._trainer = trainer
        self._bar: rich.progress.Progress | None = None
        self._began = time.monotonic()
        self._first_step = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Remembers when and where training began, for the time left."""
        self._began, self._first_step = time.monotonic(), self._trainer.global_step

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the epoch's bar."""
        columns = (
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn("{task.fields[shown]}"),
        )
        self._bar = rich.progress.Progress(
            *columns,
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        trainer = self._trainer
        before = epoch * trainer.steps_per_epoch
        self._task = self._bar.add_task(
            f"epoch {self._number(epoch)}",
            total=min(trainer.steps_per_epoch, trainer.total_steps - before),
            completed=trainer.global_step - before,
            shown="",
        )
        self._bar.start()

    def _number(self, epoch: int) -> str:
        """An epoch as people count them: from 1, and the last of 2.5 is 2.5."""
        return f"{min(epoch + 1, self._trainer.epochs):g}"

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Moves the bar."""
        done = batch % self._trainer.steps_per_epoch + 1
        shown = f"loss {logs['loss']:.4f}  {self._rate():,.0f} images/s  {self._left()} left"
        self._bar.update(self._task, completed=done, shown=shown)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Prints the epoch's line."""
        self.close()
        trainer = self._trainer
        epochs, steps = f"{trainer.epochs:g}", f"{trainer.total_steps:,}"
        self._console.print(
            f"epoch {self._number(epoch):>{len(epochs)}}/{epochs}  "
            f"loss {logs['loss']:.4f}  alignment loss {logs['alignment_loss']:.4g}  "
            f"val loss {logs['val_loss']:.4f}  top-1 {logs['val_top1']:.2%}  "
            f"step {trainer.global_step:>{len(steps)},}/{steps}  "
            f"{self._rate():,.0f} images/s  {self._left()} left{_widest(logs)}",
            highlight=False,
            soft_wrap=True,
        )

    def _rate(self) -> float:
        """Images a second since this start, validation included."""
        steps = self._trainer.global_step - self._first_step
        elapsed = time.monotonic() - self._began
        return steps * self._trainer.plan.train_batch_size / max(elapsed, 1e-9)

    def _left(self) -> str:
        """How long the steps to come will take, at the pace since this start."""
        trainer = self._trainer
        steps = max(1, trainer.global_step - self._first_step)
        elapsed = time.monotonic() - self._began
        return duration(elapsed / steps * (trainer.total_steps - trainer.global_step))

    def close(self) -> None:
        """Takes the bar away, whatever happened."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


# What is measured on request: the column's title, and how its numbers are written.
_COLUMNS = {
    "error_angle": ("angle of the errors (degrees)", ".1f"),
    "error_norm": ("their ratio", ".3g"),
    "backprop_norm": ("backprop's error", ".2g"),
    "weight_correlation": ("correlation W, B", ".2f"),
}


def final_table(
    row: dict[str, float], layers: dict[str, dict[str, float]], rule: str = "backprop"
) -> rich.table.Table:
    """Accuracy, losses, and each layer's weight angle and norm ratio.

    Args:
        row: of the last epoch, or of a validation alone.
        layers: layer path to weight_angle (degrees) and norm_ratio, and what else was measured.
        rule: of the model, for one whose layers have none of their own.

    Returns:
        The table.
    """
    title = (
        f"top-1 {row['val_top1']:.2%}, top-5 {row['val_top5']:.2%}, "
        f"validation loss {row['val_loss']:.4f}"
    )
    if "loss" in row:
        title += f"\ntraining loss {row['loss']:.4f}, alignment loss {row['alignment_loss']:.4g}"
    table = rich.table.Table(
        title=title,
        title_justify="left",
        title_style="",
    )
    table.add_column("layer", overflow="fold")
    table.add_column("angle W, B (degrees)", justify="right")
    table.add_column("|B| / |W|", justify="right")
    shown = [
        (name, *how) for name, how in _COLUMNS.items() if any(name in m for m in layers.values())
    ]
    for _, title, _ in shown:
        table.add_column(title, justify="right")
    for path, measured in layers.items():
        columns = (("weight_angle", ".1f"), ("norm_ratio", ".3f"), *((n, f) for n, _, f in shown))
        table.add_row(path, *(_written(measured[name], form) for name, form in columns))
    if not layers and rule == "backprop":
        table.add_row("(backpropagation: every layer)", "0.0", "1.000")
    elif not layers:
        table.add_row(f"({rule}: no layer has a backward kernel of its own)", "-", "-")
    return table


def _written(value: float, form: str) -> str:
    """A number, or a dash where there is none."""
    return "-" if math.isnan(value) else f"{value:{form}}"


def _widest(logs: dict[str, Any]) -> str:
    """The layer with the largest angle of W and B, where layers have one."""
    angles = {
        key.partition("/")[2]: value
        for key, value in logs.items()
        if key.startswith("weight_angle/") and math.isfinite(value)
    }
    if not angles:
        return ""
    layer = max(angles, key=angles.__getitem__)
    return f"  largest angle {angles[layer]:.1f}° ({layer})"
