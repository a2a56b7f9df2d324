"""R apart from J."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from neural_alignment import keras_private
from neural_alignment.callbacks import hooks, rates
from neural_alignment.layers.site import Site
from neural_alignment.metrics import named_sites

Tensor = Any

_OWNER = "AlignmentLosses"


class AlignmentLosses(keras.callbacks.Callback):
    """Logs R apart from J.

    In `fit` the layers add R to the model's losses, and `loss` is the sum of both. With this
    callback `loss` is J alone, that is the compiled loss and the regularizers, and `alignment_loss`
    is R; both are means over the epoch's examples. Gradients and updates are as without it.
    Validation has no R.

    Args:
        by_layer: log each layer's R, too, as `alignment_loss/LAYER`, with the names of
            `neural_alignment.metrics.named_sites`.

    Raises:
        ValueError: when training starts, another one of these among the callbacks; at an epoch's
            end, a model whose training step does not call `compute_loss`.
    """

    def __init__(self, by_layer: bool = False) -> None:
        super().__init__()
        self._by_layer = by_layer
        self._record: _Record | None = None
        self._undo: list[Callable[[], None]] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Makes the training step record R, and the model's logs show it."""
        rates.check(self.model)
        self._restore()
        self._check_alone()
        model = self.model
        found = named_sites(model).items()
        self._of = of = {name: site for name, site in found if site.alignment.has_loss}
        with hooks.variable_scope(model):
            self._record = record = _Record(list(of), self._by_layer)
        self._undo = [
            hooks.wrap(
                model, "compute_loss", _OWNER, lambda call: _recorded(call, model, record, of)
            ),
            keras_private.add_metric(model, record),
        ]
        vars(model)["compute_loss"].training = self.params
        model.make_train_function(force=True)

    def _check_alone(self) -> None:
        # Keras gives all callbacks of a training the same dict; what failed before left another.
        other = vars(self.model).get("compute_loss")
        mine = getattr(other, "owner", None) == _OWNER and self.params is not None
        if mine and other.training is self.params:
            raise ValueError(
                "Expected one AlignmentLosses in the callbacks, which takes R out of the loss. "
                "Received: several. Leave one, with by_layer=True where any had it."
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Refuses to log a zero where R was not recorded."""
        rates.check_called(self.model)
        called = [name for name, site in self._of.items() if site.alignment_loss is not None]
        if called and not self._record.fed:
            raise ValueError(
                "Expected a model whose training step calls compute_loss, where R is recorded. "
                f"Received: {self.model.name!r}, which does not, with R of {', '.join(called)}. "
                "Call self.compute_loss in its train_step, or train without AlignmentLosses."
            )

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Validation has no R to show."""
        if self._record is not None:
            self._record.shown = False

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Training goes on."""
        if self._record is not None:
            self._record.shown = True

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leaves the model as it was."""
        self._restore()

    def _restore(self) -> None:
        if self._undo:
            self.model.train_function = None  # it has the record in it
        for undo in self._undo:
            undo()
        self._undo, self._record = [], None


class _Record(keras.metrics.Metric):
    """Means of R over the examples of an epoch, by layer.

    Args:
        names: of the layers.
        by_layer: whether each layer's is shown.
    """

    def __init__(self, names: Sequence[str], by_layer: bool) -> None:
        super().__init__(name="alignment_loss")
        self._names = tuple(names)
        self._by_layer = by_layer
        self.shown = True
        self.fed = False
        self._sums = self.add_variable((max(len(self._names), 1),), "zeros", name="sums")
        self._examples = self.add_variable((), "zeros", name="examples")

    def update_state(self, losses: Mapping[str, Tensor], examples: Tensor) -> None:
        """Adds a batch's.

        Args:
            losses: name of the layer to its R.
            examples: in the batch.
        """
        self.fed = True
        zero, examples = ops.zeros((), "float32"), ops.cast(examples, "float32")
        by_name = [losses.get(name, zero) for name in self._names]
        self._sums.assign_add(examples * ops.stack(by_name or [zero]))
        self._examples.assign_add(examples)

    def result(self) -> dict[str, Tensor]:
        """`alignment_loss`, and each layer's where asked for; nothing in validation."""
        if not self.shown:
            return {}
        means = ops.divide(self._sums, ops.maximum(self._examples, 1.0))
        shown = {self.name: ops.sum(means)}
        if self._by_layer:
            shown |= {f"{self.name}/{name}": means[i] for i, name in enumerate(self._names)}
        return shown


def _recorded(
    compute_loss: Callable[..., Tensor], model: keras.Model, record: _Record, of: Mapping[str, Site]
) -> Callable[..., Tensor]:
    def compute(*args: Any, **kwargs: Any) -> Tensor:
        among = {id(loss) for loss in model.losses}
        losses = {name: site.alignment_loss for name, site in of.items()}
        losses = {name: value for name, value in losses.items() if id(value) in among}
        if not losses:  # no training call
            return compute_loss(*args, **kwargs)
        # A training step of one's own may leave any of them out but the outputs.
        given = (*args, *map(kwargs.get, ("x", "y", "y_pred")))
        first = next(x for x in keras.tree.flatten(given) if x is not None)
        values = {name: ops.stop_gradient(loss) for name, loss in losses.items()}
        record.update_state(values, ops.shape(first)[0])
        # What is left of R among the losses is its gradient.
        keras_private.replace_losses(
            model, {id(loss): loss - values[name] for name, loss in losses.items()}
        )
        return compute_loss(*args, **kwargs)

    return compute
