"""Keras callbacks for plain `fit`: the global step for schedules, and the angles of every layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from neural_alignment.deprecation import moved
from neural_alignment.layers.aligned import aligned_layers
from neural_alignment.training import metrics

__getattr__ = moved(__name__, {"TensorBoardScalars": "neural_alignment.training.events"})


class GlobalStep(keras.callbacks.Callback):
    """Gives the layers the optimizer's step count, for coefficients that are schedules in `fit`."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Hands the step count to every layer with an alignment."""
        iterations = self.model.optimizer.iterations
        for layer in aligned_layers(self.model):
            layer.set_step_source(lambda: tf.convert_to_tensor(iterations))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Takes it away: another training may have another optimizer, or no callback."""
        for layer in aligned_layers(self.model):
            layer.set_step_source(None)


class AlignmentMetrics(keras.callbacks.Callback):
    """Logs the angles and norm ratios of every layer with an alignment, once an epoch.

    Adds `weight_angle/LAYER` (degrees) and `norm_ratio/LAYER` to the epoch's logs, and with a batch
    `projection_angle/LAYER` and `local_gradient_angle/LAYER`. Training steps are as without it.

    Args:
        inputs: a batch to measure the paths on, as the model takes it, or None.
        labels: its labels.
        loss: `loss(labels, outputs)`; None is cross-entropy of logits with integer labels.

    Raises:
        ValueError: inputs without labels.
    """

    def __init__(
        self,
        inputs: Any = None,
        labels: Any = None,
        loss: Callable[[Any, Any], tf.Tensor] | None = None,
    ) -> None:
        super().__init__()
        if (inputs is None) != (labels is None):
            raise ValueError(
                "Expected inputs and labels together, to measure the paths on, or neither. "
                f"Received: inputs={inputs is not None}, labels={labels is not None}"
            )
        self._batch = None if inputs is None else (inputs, labels)
        self._loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measures, and adds what was measured to the logs."""
        measured = [metrics.kernel_metrics(self.model)]
        if self._batch is not None:
            measured.append(metrics.path_metrics(self.model, *self._batch, self._loss))
        for by_layer in measured:
            for path, values in by_layer.items():
                for name, value in values.items():
                    if logs is not None:
                        logs[f"{name}/{path}"] = value
