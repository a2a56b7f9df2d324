"""Where a model's logits are made, and where its blocks begin."""

from __future__ import annotations

import collections
import warnings
from collections.abc import Iterator

import keras
import numpy as np

from neural_alignment import keras_private
from neural_alignment.layers import parts, table
from neural_alignment.layers.kernels import kernels_in

# What makes probabilities of logits, and what else may end a model behind them: activations by
# name, layers and operations by their class in small letters.
_SQUASHING = frozenset(
    ("softmax", "logsoftmax", "sparsemax", "sigmoid", "logsigmoid", "hardsigmoid", "sparsesigmoid")
)
_ENDS = _SQUASHING | {"tanh", "hardtanh", "softplus", "softsign"}
# Examples to try a function of the user's on, and how large their numbers are.
_TRIED, _SCALE = 16, 10.0


def activation_of(layer: keras.Operation) -> str | None:
    """The name of a layer's activation; None where it has none."""
    function = getattr(layer, "activation", None)
    return None if function is None else getattr(function, "__name__", type(function).__name__)


def head_and_end(model: keras.Model) -> tuple[keras.layers.Layer, keras.Operation | None]:
    """The layer that makes a model's logits, and the activation behind it that ends the model.

    Args:
        model: Sequential or functional, with one output.

    Returns:
        The layer, and the operation, or None where the model ends in logits.

    Raises:
        ValueError: none can be told: no layer with a kernel, several at the end, or a squashing
            activation that is not the last thing.
    """
    behind = []
    for operation, inputs in _from_the_end(model):
        behind.append((operation, inputs))
        if _has_kernel(operation):
            break
    else:
        raise ValueError(
            "Expected a model with an output layer that has a kernel. "
            f"Received: {parts.described(model)}"
        )
    *behind, (head, inputs) = behind
    end = behind[0][0] if behind and _is_end(behind[0][0]) else None
    rest = behind[1:] if end is not None else behind
    squashing = [one for one, tensors in rest if _squashes(one, tensors)]
    if rest and _plain(activation_of(head)) in _SQUASHING:
        squashing.append(head)
    if squashing:
        raise ValueError(
            "Expected a model that ends in logits, or in softmax or sigmoid of them: the error is "
            f"taken at the logits. Received: {parts.described(squashing[0])}, in the midst of its "
            "end, or a function of your own there. Let the model end in logits, with "
            "from_logits=True in the loss."
        )
    _check_head(head, inputs)
    return head, end


def _check_head(head: keras.layers.Layer, inputs: list[keras.KerasTensor]) -> None:
    """Refuses a layer that applies its activation where nobody can take it off."""
    held = [
        part
        for part in keras_private.flatten_layers(head)
        if _plain(activation_of(part)) in _SQUASHING or _plain(type(part).__name__) in _SQUASHING
    ]
    activated = activation_of(head) not in (None, "linear")
    known = hasattr(head, "kernel") or table.class_with_rule(type(head)) is not None
    apart = known and not isinstance(getattr(head, "activation", None), keras.layers.Layer)
    if held or (not apart if activated else _squashes(head, inputs, own=True)):
        raise ValueError(
            "Expected an output layer whose activation can be told apart from its kernel. "
            f"Received: {parts.described(head)}. Let it end in logits, and put the activation into "
            "a layer behind it, or a Dense layer of logits behind the whole."
        )


def _is_end(operation: keras.Operation) -> bool:
    return _plain(type(operation).__name__) in _ENDS | {"activation"}


def _squashes(
    operation: keras.Operation, inputs: list[keras.KerasTensor], own: bool = False
) -> bool:
    """Whether outputs are squashed: by name where Keras's, by trial where the user's.

    Args:
        operation: of a model's end.
        inputs: that it is called on.
        own: whether a name says nothing, as of a layer with a kernel.
    """
    names = (_plain(activation_of(operation)), _plain(type(operation).__name__))
    if not own and any(name in _SQUASHING for name in names):
        return True
    keras_own = parts.is_keras_own(type(operation))
    if (keras_own and not isinstance(operation, keras.layers.Lambda)) or len(inputs) != 1:
        return False
    try:
        values = _tried(operation, inputs[0])
    except Exception:  # noqa: BLE001  (whatever it makes of numbers that are not its data)
        return False
    within = np.all((values >= 0.0) & (values <= 1.0))
    # A kernel of zeros gives zeros, or equal shares.
    return bool(within and (np.ptp(values) > 0.0 or np.allclose(values.sum(-1), 1.0)))


def _tried(operation: keras.Operation, tensor: keras.KerasTensor) -> np.ndarray:
    """What an operation makes of large numbers of both signs."""
    shape = [_TRIED if size is None else size for size in tensor.shape]
    drawn = np.random.default_rng(0).normal(scale=_SCALE, size=shape)
    held = [operation, *keras_private.flatten_layers(operation)]
    with (
        keras_private.losses_kept(held),
        keras.StatelessScope(),
        warnings.catch_warnings(action="ignore"),
    ):
        outputs = operation(keras.ops.cast(drawn, tensor.dtype))
    return np.asarray(keras.ops.convert_to_numpy(outputs), "float32")


def _plain(name: str | None) -> str:
    """A name without what tells an activation's from a class's."""
    return (name or "").replace("_", "").lower()


def _has_kernel(operation: keras.Operation) -> bool:
    is_layer = isinstance(operation, keras.layers.Layer)
    return is_layer and bool(kernels_in(operation, lambda layer: False))


def _from_the_end(
    model: keras.Model,
) -> Iterator[tuple[keras.Operation, list[keras.KerasTensor]]]:
    """Operations and their inputs, from the output to the model's, as long as there is one way."""
    graph = keras_private.functional_of(model)
    made_by = {
        id(output): (operation, inputs)
        for operation, inputs, outputs in keras_private.graph_nodes(model)
        for output in keras.tree.flatten(outputs)
    }
    tensors = keras.tree.flatten(graph.output)
    while len(tensors) == 1 and id(tensors[0]) in made_by:
        operation, tensors = made_by[id(tensors[0])]
        if parts.is_graph(operation):
            yield from _from_the_end(operation)
        else:
            yield operation, tensors
    if len(tensors) > 1:
        raise ValueError(
            "Expected one output, made by one layer with a kernel. Received: "
            f"{parts.described(model)}, where {len(tensors)} tensors come together. Put one layer "
            "with a kernel, such as Dense, behind them."
        )


def block_starts(model: keras.Model) -> dict[int, keras.Operation]:
    """Where all paths through a model meet, and a kernel follows before they meet again.

    Args:
        model: Sequential or functional.

    Returns:
        By the `id` of the tensor, the first operation with a kernel that follows.
    """
    graph = keras_private.functional_of(model)
    nodes = keras_private.graph_nodes(model)
    left = collections.Counter(id(t) for _, inputs, _ in nodes for t in inputs)
    live = {id(tensor) for tensor in keras.tree.flatten(graph.input)}
    start = next(iter(live)) if len(live) == 1 else None
    found: dict[int, keras.Operation] = {}
    for operation, inputs, outputs in nodes:
        inside = parts.is_graph(operation) and any(
            map(_has_kernel, keras_private.flatten_layers(operation))
        )
        if start is not None and start not in found and (inside or _has_kernel(operation)):
            found[start] = operation
        for tensor in inputs:
            left[id(tensor)] -= 1
            if left[id(tensor)] == 0:
                live.discard(id(tensor))
        live |= {id(t) for t in keras.tree.flatten(outputs) if left[id(t)] > 0}
        if len(live) == 1:
            start = next(iter(live))
    return found
