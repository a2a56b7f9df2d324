"""The angles and norm ratios of every layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from neural_alignment import connection_metrics, error_metrics, keras_private, metrics, one_batch
from neural_alignment.callbacks import hooks, rates

Tensor = Any

_OWNER = "AlignmentMetrics"


class AlignmentMetrics(keras.callbacks.Callback):
    """Logs the angles and norm ratios of every layer with an alignment, once an epoch.

    Adds to the epoch's logs, before any callback sees them:

        weight_angle/LAYER           degrees between W and B
        norm_ratio/LAYER             |B| / |W|
        weight_correlation/LAYER     of W and B, over the pairs connected both ways
        one_way/LAYER, both_ways/LAYER   shares of the pairs that are connected so
        projection_angle/LAYER       degrees between x W and x B, with a batch
        local_gradient_angle/LAYER   degrees between dy B^T and dy W^T, with a batch
        error_angle/LAYER            degrees between the error that the rule delivers through all
                                     layers above and backpropagation's, with a batch
        error_norm/LAYER             the ratio of their sizes, with a batch
        backprop_norm/LAYER          the size of backpropagation's, with a batch

    LAYER is the layer's name, after those of the models it is in; where Keras gave the name, its
    number in the model, `dense#1` (`neural_alignment.metrics.named_sites`). With direct feedback
    LAYER is the layer behind a point, and of the errors alone there is something to log. Training
    steps are as without it.

    Args:
        inputs: a batch to measure the paths on, as the model takes it, or None.
        labels: its labels, as the loss takes them.
        loss: `loss(labels, outputs)`; None is the loss that the model is compiled with; for a model
            that is not compiled cross-entropy of logits with integer labels.
        sample_weight: of the batch, for the compiled loss.

    Raises:
        ValueError: inputs without labels, sample weights without a batch or with a loss, or a batch
            of no examples, or of anything but arrays; in training, before its first batch or
            behind it, inputs or labels that the model or the loss does not take.
    """

    def __init__(
        self,
        inputs: Any = None,
        labels: Any = None,
        loss: Callable[[Any, Any], Tensor] | None = None,
        sample_weight: Any = None,
    ) -> None:
        super().__init__()
        if (inputs is None) != (labels is None):
            raise ValueError(
                "Expected inputs and labels together, to measure the paths on, or neither. "
                f"Received: inputs={inputs is not None}, labels={labels is not None}"
            )
        if sample_weight is not None and (inputs is None or loss is not None):
            raise ValueError(
                "Expected a sample_weight with a batch and the compiled loss. "
                f"Received: inputs={inputs is not None}, loss={loss!r}"
            )
        if inputs is not None:
            one_batch.tensors(inputs, labels, sample_weight, loss)
        self._batch = None if inputs is None else (inputs, labels)
        self._loss, self._sample_weight = loss, sample_weight
        self._undo: Callable[[], None] | None = None
        # Whether the epoch's logs are still to be extended, and whether a validation is under way.
        self._due = self._testing = False
        self._unchecked = False  # whether model and loss have yet to be tried on the batch
        self._latest: dict[str, float] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Sees to it that the logs hold what is measured before any callback reads them."""
        rates.check(self.model)
        if self._batch is not None:
            one_batch.check_taken(self.model, self._batch[0])
        self._unchecked = self._batch is not None
        self._restore()
        self._undo = hooks.wrap(self.model, keras_private.EPOCH_LOGS, _OWNER, self._extending)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Tries the batch once the model is built, and not when an epoch is over."""
        if self._unchecked:
            self._unchecked = False
            one_batch.check_measured(
                self.model, *self._batch, self._loss_now(), self._sample_weight
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Wants this epoch measured."""
        self._due = True

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Leaves validation's logs alone."""
        self._testing = True

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Training goes on."""
        self._testing = False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds what was measured; measures now, where a loop other than `fit` asks for it."""
        if self._undo is not None:  # in `fit`
            rates.check_called(self.model)
        if logs is None:
            return
        if self._due or self._undo is None:
            self._latest, self._due = self._measure(), False
        logs |= self._latest

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leaves the model as it was."""
        self._restore()

    def _restore(self) -> None:
        if self._undo is not None:
            self._undo()
            self._undo = None

    def _extending(self, epoch_logs: Callable[..., Any]) -> Callable[..., Any]:
        def extended(*args: Any, **kwargs: Any) -> Any:
            logs = epoch_logs(*args, **kwargs)
            if not self._due or self._testing:
                return logs
            self._latest, self._due = self._measure(), False
            return {**logs, **self._latest}

        return extended

    def _measure(self) -> dict[str, float]:
        of = metrics.named_sites(self.model)
        measured = [
            metrics.kernel_metrics(self.model, of),
            connection_metrics.connection_metrics(self.model, of),
        ]
        if self._batch is not None:
            loss = self._loss_now()
            measure = metrics.path_metrics, error_metrics.error_metrics
            measured += [
                one(self.model, *self._batch, loss, of, self._sample_weight) for one in measure
            ]
        return {
            f"{name}/{layer}": value
            for by_layer in measured
            for layer, values in by_layer.items()
            for name, value in values.items()
        }

    def _loss_now(self) -> Callable[[Any, Any], Tensor] | None:
        if self._loss is None and not getattr(self.model, "compiled", False):
            return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        return self._loss
