"""TensorBoard events of a run: every epoch's logs and schedules, each step once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf


class TensorBoardScalars(keras.callbacks.Callback):
    """Writes an epoch's logs, and functions of the global step, as TensorBoard events.

    Args:
        folder: for the event file.
        schedules: name to function of the global step: learning rates, coefficients, loss rates.
        global_step: gives the number of steps taken.
    """

    def __init__(
        self,
        folder: str,
        schedules: Mapping[str, Callable[[int], Any]],
        global_step: Callable[[], int],
    ) -> None:
        super().__init__()
        self._folder = folder
        self._schedules = dict(schedules)
        self._global_step = global_step
        self._writer: Any = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Opens the event file."""
        self._writer = tf.summary.create_file_writer(self._folder)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the logs, and the schedules at the epoch's last step."""
        step = self._global_step()
        with self._writer.as_default(step=step):
            for name, value in (logs or {}).items():
                tf.summary.scalar(name, value)
            for name, schedule in self._schedules.items():
                tf.summary.scalar(f"schedules/{name}", schedule(max(step - 1, 0)))
        self._writer.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes the event file."""
        self._writer.close()
