"""Copies a model and sends its errors another way: straight from the output, or nowhere."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras

from neural_alignment import alignments, keras_private
from neural_alignment.layers import parts
from neural_alignment.layers.copying import Copier, from_config
from neural_alignment.layers.direct import DirectFeedback, StopError
from neural_alignment.layers.kernels import kernels_in

Skipped = Callable[[keras.layers.Layer], bool]
# What may end a model behind its logits: layers by what they apply, operations by their class.
_ENDS = ("Softmax", "LogSoftmax", "Sigmoid", "LogSigmoid", "HardSigmoid", "Tanh", "Softplus")
_SQUASHING = ("softmax", "log_softmax", "sigmoid", "log_sigmoid", "hard_sigmoid")


class Rewirer(Copier):
    """Copies one model, nested ones inlined, with errors that go straight from its logits.

    Args:
        model: a built Sequential or functional model with one output.
        rule: `alignments.Direct` or `alignments.Frozen`.
        version: makes the layer that takes a layer's place; None copies it as it is.
        skipped: whether a layer gets no point of its own.

    Raises:
        ValueError: a model whose output layer cannot be told, or that ends behind a squashing
            activation which is not the last thing in it.
    """

    def __init__(
        self,
        model: keras.Model,
        rule: alignments.Alignment,
        version: Callable[[keras.layers.Layer], keras.layers.Layer | None],
        skipped: Skipped,
    ) -> None:
        super().__init__(model, self._version_of, lambda layer: False)
        self._rule = rule
        self._without_rule = version
        self._skipped = skipped
        self.feedback: DirectFeedback | None = None
        self._points: list[tuple[str, keras.KerasTensor, int]] = []
        self._names: collections.Counter[str] = collections.Counter()
        self.head, self._end = _head_and_end(model)
        self._starts = _block_starts(model) if _is_by_blocks(rule) else {}
        self._outputs = collections.defaultdict(list)
        for operation, _, outputs in keras_private.graph_nodes(model):
            self._outputs[id(operation)].append(outputs)

    @property
    def copies(self) -> list[tuple[keras.layers.Layer, keras.layers.Layer]]:
        """(layer, its copy) without the models, which are not copied one to one."""
        return [(a, b) for a, b in self.pairs if not parts.is_graph(a)]

    def _version_of(self, layer: keras.layers.Layer) -> keras.layers.Layer | None:
        made = self._without_rule(layer)
        if layer is self.head and _activation(layer) not in (None, "linear"):
            made = made or from_config(layer)
            made.activation = keras.activations.linear
        return made

    def _copy_graph(self, model: keras.Model) -> keras.Model:
        graph = keras_private.functional_of(model)
        inputs = keras.tree.map_structure(
            lambda tensor: self.copy(keras_private.origin(tensor)).output, graph.input
        )
        begun = keras.tree.map_structure(self._started, graph.input, inputs)
        logits = keras_private.run_graph(graph, begun, self._step, lambda operation: operation)
        outputs = self._fed_back(logits)
        for end in self._ends():
            outputs = end(outputs)
        copy = keras.Model(inputs, outputs, name=model.name)
        copy.dtype_policy = model.dtype_policy
        return copy

    def _step(self, operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        if operation is self._end:
            return args[0]
        if parts.is_graph(operation):
            outputs = self._inlined(operation, *args, **kwargs)
        else:
            copy = self.copy(operation)
            if self._is_point(operation):
                axis = 1 if getattr(operation, "data_format", None) == "channels_first" else -1
                args, kwargs = self._stopped(operation.name, axis, args, kwargs)
            outputs = self._call(copy, *args, **kwargs)
        known = self._outputs.get(id(operation))
        if not known:
            return outputs
        started = map(self._started, known.pop(0), keras.tree.flatten(outputs))
        return keras.tree.pack_sequence_as(outputs, list(started))

    def _inlined(self, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        given = {name: value for name, value in kwargs.items() if value is not None}
        if len(args) != 1 or given:
            raise ValueError(
                "Expected nested models that are called on their inputs alone. Received: "
                f"{parts.described(model)}, called with {sorted(given) or f'{len(args)} arguments'}"
            )
        graph = keras_private.functional_of(model)
        return keras_private.run_graph(graph, args[0], self._step, lambda operation: operation)

    def _is_point(self, operation: keras.Operation) -> bool:
        if not isinstance(operation, keras.layers.Layer) or _is_by_blocks(self._rule):
            return False
        if isinstance(self._rule, alignments.Frozen):
            return operation is self.head
        return bool(kernels_in(operation, self._skipped))

    def _stopped(self, name: str, axis: int, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The arguments of a call, each tensor of numbers with a point at it."""
        made: dict[int, keras.KerasTensor] = {}

        def stop(value: Any) -> Any:
            if not isinstance(value, keras.KerasTensor):
                return value
            if not keras.backend.is_float_dtype(value.dtype):
                return value
            if id(value) not in made:
                made[id(value)] = self._point(name, value, axis)
            return made[id(value)]

        masks = {key: value for key, value in kwargs.items() if "mask" in key}
        rest = {key: value for key, value in kwargs.items() if key not in masks}
        args, rest = keras.tree.map_structure(stop, (args, rest))
        return args, rest | masks

    def _started(self, original: keras.KerasTensor, tensor: keras.KerasTensor) -> Any:
        """A tensor of the copy, with a point at it where a block starts."""
        name = self._starts.get(id(original))
        return tensor if name is None else self._point(name, tensor, -1)

    def _point(self, name: str, tensor: keras.KerasTensor, axis: int) -> keras.KerasTensor:
        self._names[name] += 1
        if self._names[name] > 1:
            name = f"{name}_{self._names[name]}"
        self._points.append((name, tensor, axis))
        return StopError(name=f"{name}_stop")(tensor)

    def _fed_back(self, logits: Any) -> keras.KerasTensor:
        if isinstance(self._rule, alignments.Frozen):
            return logits
        names, tensors, axes = zip(*self._points, strict=True)
        self.feedback = DirectFeedback(
            self._rule,
            names,
            axes,
            name="direct_feedback",
            dtype="float64" if logits.dtype == "float64" else None,
        )
        return self.feedback([logits, *tensors])

    def freeze(self) -> None:
        """Lets the output layer alone train, where the rule says so."""
        if isinstance(self._rule, alignments.Frozen):
            for layer, copy in self.copies:
                if layer is not self.head:
                    _freeze(copy)

    def _ends(self) -> list[keras.Operation]:
        ends = []
        activation = _activation(self.head)
        if activation not in (None, "linear"):
            function = self.head.activation
            ends.append(keras.layers.Activation(function, name=f"{self.head.name}_activation"))
        return ends if self._end is None else [*ends, self.copy(self._end)]


@contextlib.contextmanager
def plain(model: keras.Model) -> Iterator[keras.Model]:
    """The model without what a rewiring has put into it; its layers are the model's own.

    Args:
        model: Sequential or functional.

    Yields:
        The model itself, where nothing was put into it.
    """
    if not any(
        isinstance(part, (DirectFeedback, StopError))
        for part in keras_private.flatten_layers(model)
    ):
        yield model
        return
    graph = keras_private.functional_of(model)

    def step(operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        if isinstance(operation, StopError):
            return args[0]
        if isinstance(operation, DirectFeedback):
            return args[0][0]
        return operation(*args, **kwargs)

    with keras_private.nodes_kept([node[0] for node in keras_private.graph_nodes(model)]):
        outputs = keras_private.run_graph(graph, graph.input, step, lambda operation: operation)
        yield keras.Model(graph.input, outputs, name=model.name)


def _is_by_blocks(rule: alignments.Alignment) -> bool:
    return isinstance(rule, alignments.Direct) and rule.points == "blocks"


def _freeze(layer: keras.layers.Layer) -> None:
    """Weights as they were drawn; BatchNorm, which is not in inference, follows its batches."""
    if isinstance(layer, keras.layers.BatchNormalization):
        for variable in layer.trainable_variables:
            variable.trainable = False
    else:
        layer.trainable = False


def _activation(layer: keras.layers.Layer) -> str | None:
    function = getattr(layer, "activation", None)
    return None if function is None else getattr(function, "__name__", type(function).__name__)


def _none(layer: keras.layers.Layer) -> bool:
    del layer
    return False


def _has_kernel(operation: keras.Operation) -> bool:
    is_layer = isinstance(operation, keras.layers.Layer)
    return is_layer and bool(kernels_in(operation, _none))


def _head_and_end(model: keras.Model) -> tuple[keras.layers.Layer, keras.Operation | None]:
    """The layer that makes the logits, and the activation behind it that ends the model."""
    behind = []
    for operation in _from_the_end(model):
        if _has_kernel(operation):
            break
        behind.append(operation)
    else:
        raise ValueError(
            "Expected a model with an output layer that has a kernel. "
            f"Received: {parts.described(model)}"
        )
    end = behind[0] if behind and _is_end(behind[0]) else None
    rest = behind[1:] if end is not None else behind
    squashing = [one for one in rest if _squashes(one)]
    if rest and _activation(operation) in _SQUASHING:
        squashing.append(operation)
    if squashing:
        raise ValueError(
            "Expected a model that ends in logits, or in softmax or sigmoid of them: the error is "
            f"taken at the logits. Received: {parts.described(squashing[0])}, in the midst of its "
            "end. Let the model end in logits, with from_logits=True in the loss."
        )
    held = [
        part for part in keras_private.flatten_layers(operation) if _activation(part) in _SQUASHING
    ]
    activated = _activation(operation) not in (None, "linear")
    if held or (activated and not hasattr(operation, "kernel")):
        raise ValueError(
            "Expected an output layer whose activation can be told apart from its kernel. "
            f"Received: {parts.described(operation)}"
        )
    return operation, end


def _is_end(operation: keras.Operation) -> bool:
    return type(operation).__name__ in (*_ENDS, "Activation")


def _squashes(operation: keras.Operation) -> bool:
    names = (_activation(operation), type(operation).__name__.lower())
    return any(name in _SQUASHING or name == "logsoftmax" for name in names)


def _from_the_end(model: keras.Model) -> Any:
    """The operations from the output towards the input, as long as there is one way."""
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
            yield operation
    if len(tensors) > 1:
        raise ValueError(
            "Expected one output, made by one layer with a kernel. "
            f"Received: {parts.described(model)}, where {len(tensors)} tensors come together"
        )


def _block_starts(model: keras.Model) -> dict[int, str]:
    """Where all paths through a model meet, and a kernel follows before they meet again."""
    graph = keras_private.functional_of(model)
    nodes = keras_private.graph_nodes(model)
    left = collections.Counter(id(t) for _, inputs, _ in nodes for t in inputs)
    live = {id(tensor) for tensor in keras.tree.flatten(graph.input)}
    start = next(iter(live)) if len(live) == 1 else None
    found: dict[int, str] = {}
    for operation, inputs, outputs in nodes:
        inside = parts.is_graph(operation) and any(
            map(_has_kernel, keras_private.flatten_layers(operation))
        )
        if start is not None and start not in found and (inside or _has_kernel(operation)):
            found[start] = operation.name
        for tensor in inputs:
            left[id(tensor)] -= 1
            if left[id(tensor)] == 0:
                live.discard(id(tensor))
        live |= {id(t) for t in keras.tree.flatten(outputs) if left[id(t)] > 0}
        if len(live) == 1:
            start = next(iter(live))
    return found
