"""How long each epoch of a run took."""

from __future__ import annotations

import pathlib
import time
from typing import Any

import keras

from neural_alignment.runs.table import TIMES, Table


class Times(keras.callbacks.Callback):
    """Writes a row an epoch to times.csv: seconds of its steps, and of what came after them.

    After the steps come validation and the measures of the layers. Of an epoch that a run took up
    in its middle it is what this start did of it.

    Args:
        path: of the table.
        trainer: whose steps are timed.
    """

    def __init__(self, path: pathlib.Path, trainer: Any) -> None:
        super().__init__()
        self._table = Table(path, TIMES)
        self._trainer = trainer
        self._began = self._trained = time.monotonic()
        self._first_step = 0

    def truncate(self, step: int, every: int = 1) -> None:
        """Drops the rows that a resumed run writes again.

        Args:
            step: rows of later steps go.
            every: so do rows whose step is not a multiple of it.
        """
        self._table.truncate(step, every)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the clock."""
        self._began = self._trained = time.monotonic()
        self._first_step = self._trainer.global_step

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the clock."""
        self._trained = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the epoch's row."""
        step = self._trainer.global_step
        whole, rest = divmod(step, self._trainer.steps_per_epoch)
        row = {
            "epoch": whole if not rest else step / self._trainer.steps_per_epoch,
            "global_step": step,
            "steps": step - self._first_step,
            "train_seconds": round(self._trained - self._began, 3),
            "other_seconds": round(time.monotonic() - self._trained, 3),
        }
        self._table.append([row])
