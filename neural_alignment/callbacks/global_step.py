"""The global step, for coefficients that are schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from neural_alignment import backend
from neural_alignment.callbacks import rates
from neural_alignment.layers.aligned import aligned_layers
from neural_alignment.optimizers.clock import batches_per_update, updates


class GlobalStep(keras.callbacks.Callback):
    """Gives the layers the global step, for coefficients that are schedules in `fit`.

    The step is the number of updates of the weights, 0 at the first, whatever optimizer the model
    is compiled with: batches that are accumulated count once an update
    (`gradient_accumulation_steps=2`: 0, 0, 1, 1, 2, 2), batches that a `LossScaleOptimizer` leaves
    out do not count, and a loaded model goes on where it was saved.

    Raises:
        ValueError: when training starts, a model that is not compiled with a Keras optimizer, or
            with several that do not update together; at an epoch's end, an optimizer that updates
            and does not count.
    """

    def __init__(self) -> None:
        super().__init__()
        self._undo: Callable[[], None] | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Hands the step to every layer with an alignment."""
        rates.check(self.model)
        self._take_away()
        self._first, self._batches = self._updates(), 0
        self._undo = backend.provide_step(self.model, aligned_layers(self.model), updates)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Counts the batches of an epoch."""
        self._batches = batch + 1

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Refuses an optimizer that updates the weights and does not count."""
        rates.check_called(self.model)
        optimizer = self.model.optimizer
        # A LossScaleOptimizer leaves batches out until it has found its scale.
        skips = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        due = self._batches >= batches_per_update(optimizer)
        trains = bool(self.model.trainable_variables)
        if due and trains and not skips and self._updates() == self._first:
            raise ValueError(
                "Expected an optimizer whose `iterations` count its updates, for the schedules of "
                f"the layers. Received: {type(optimizer).__name__}, at {self._first} still after "
                f"{self._batches} batches. Compile the model with the optimizer that updates it, "
                "or train in `with neural_alignment.layers.training_step(global_step):`."
            )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Takes it away: another training may have another optimizer, or no callback."""
        self._take_away()

    def _updates(self) -> int:
        return int(ops.convert_to_numpy(updates(getattr(self.model, "optimizer", None))))

    def _take_away(self) -> None:
        if self._undo is not None:
            self._undo()
            self._undo = None
