"""Subclasses of layers with a rule whose own `call` would leave the rule out."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any

# Thread-local: MirroredStrategy runs each replica's step in a thread of its own.
_notes = threading.local()


def note(layer: Any, training: bool | None) -> None:
    """Says that a layer has come to apply its rule.

    Args:
        layer: with a rule.
        training: as it was told.
    """
    for of, told in getattr(_notes, "open", []):
        if of is layer:
            told.append(training)


def checked(call: Callable[..., Any]) -> Callable[..., Any]:
    """A subclass's `call` that refuses to compute past the layer's rule.

    Args:
        call: of a class derived from a layer with a rule.

    Returns:
        The same, of the same signature. It raises a ValueError where the layer has a rule and
        `super().call` is not called, or is not told of a training in which the rule does more than
        to send the error back.
    """
    takes_training = "training" in inspect.signature(call).parameters

    @functools.wraps(call)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        rule = self.alignment
        if rule is None:
            return call(self, *args, **kwargs)
        told: list[bool | None] = []
        _notes.open = [*getattr(_notes, "open", []), (self, told)]
        try:
            outputs = call(self, *args, **kwargs)
        finally:
            _notes.open = _notes.open[:-1]
        if not told:
            raise ValueError(
                "Expected a `call` that computes by super().call(inputs, training), where the rule "
                f"is. Received: {_described(self)}, which does not: its error would go back by "
                "backpropagation. Call it, or make the layer with alignment=None."
            )
        lost = kwargs.get("training") and not any(told) if takes_training else None in told
        if lost and (rule.has_loss or rule.updates_itself):
            raise ValueError(
                "Expected call(self, inputs, training=None) that hands `training` on, "
                "super().call(inputs, training), since the rule learns in training alone. "
                f"Received: {_described(self)}, which does not, so that B would stay as drawn."
            )
        return outputs

    return wrapped


def _described(layer: Any) -> str:
    return f"{type(layer).__name__}.call of layer {layer.path!r} (rule {layer.alignment.name!r})"
