"""Copies a model and sends its errors another way: straight from the output, or nowhere."""

from __future__ import annotations

import collections
import contextlib
import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from neural_alignment import alignments, keras_private
from neural_alignment.layers import checking, ends, parts, table
from neural_alignment.layers.copying import Copier, from_config
from neural_alignment.layers.direct import DirectFeedback, StopError
from neural_alignment.layers.kernels import kernels_in

Skipped = Callable[[keras.layers.Layer], bool]


class Rewirer(Copier):
    """Copies one model, nested ones inlined, with errors that go straight from its logits.

    Args:
        model: a built Sequential or functional model with one output.
        rule: `alignments.Direct` or `alignments.Frozen`.
        version: makes the layer that takes a layer's place; None copies it as it is.
        skipped: whether a layer gets no point of its own, and keeps a rule that it has.

    Raises:
        ValueError: a model whose output layer cannot be told, or that ends behind a squashing
            activation which is not the last thing in it; a class of model that would be lost.
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
        self._ended: list[keras.Operation] = []
        self._training: bool | None = None  # as a nested model is called, whatever its layers are
        _check_class(model)
        self.head, self._end = ends.head_and_end(model)
        self._starts = ends.block_starts(model) if _is_by_blocks(rule) else {}
        self._renamed = _names_of_one_graph(model)
        self._names = {operation.name for operation, _ in _inlined(model)}
        self._names |= {layer.name for layer in keras_private.flatten_layers(model)}
        self._names |= set(self._renamed.values())
        self._outputs = collections.defaultdict(list)
        for operation, _, outputs in keras_private.graph_nodes(model):
            self._outputs[id(operation)].append(outputs)

    @property
    def copies(self) -> list[tuple[keras.layers.Layer, keras.layers.Layer]]:
        """(layer, its copy) without the models, which are not copied one to one."""
        return [(a, b) for a, b in self.pairs if not parts.is_graph(a)]

    def keeps_rule(self, layer: keras.layers.Layer) -> bool:
        """Whether a layer has a rule, and is to keep it."""
        return table.rule_of(layer) is not None and self._skipped(layer)

    def _version_of(self, layer: keras.layers.Layer) -> keras.layers.Layer | None:
        made = None if self.keeps_rule(layer) else self._without_rule(layer)
        if layer is self.head and ends.activation_of(layer) not in (None, "linear"):
            made = made or from_config(layer)
            made.activation = keras.activations.linear
        return made

    def _copy(self, operation: keras.Operation) -> keras.Operation:
        copy = super()._copy(operation)
        copy.name = self._renamed.get(id(operation), copy.name)
        return copy

    def _copy_graph(self, model: keras.Model) -> keras.Model:
        if model is not self._model:  # in a wrapper, which is called as one
            return super()._copy_graph(model)
        graph = keras_private.functional_of(model)
        inputs = keras.tree.map_structure(
            lambda tensor: self.copy(keras_private.origin(tensor)).output, graph.input
        )
        begun = keras.tree.map_structure(self._started, graph.input, inputs)
        outputs = keras_private.run_graph(graph, begun, self._step, lambda operation: operation)
        (logits,) = keras.tree.flatten(outputs)
        made = self._fed_back(logits)
        for end in self._ends():
            made = end(made)
        cls = keras.Model if isinstance(model, keras.Sequential) else type(model)
        copy = cls(inputs, keras.tree.pack_sequence_as(outputs, [made]), name=model.name)
        copy.dtype_policy = model.dtype_policy
        return copy

    def _step(self, operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        self._check_called_once(operation)
        if operation is self._end:
            return args[0]
        if parts.is_graph(operation):
            outputs = self._inlined(operation, *args, **kwargs)
        else:
            copy = self.copy(operation)
            if self._is_point(operation):
                axis = 1 if getattr(operation, "data_format", None) == "channels_first" else -1
                args, kwargs = self._stopped(copy.name, axis, args, kwargs)
            if self._training is not None and _takes_training(operation):
                kwargs["training"] = self._training
            outputs = self._call(copy, *args, **kwargs)
        known = self._outputs.get(id(operation))
        if not known:
            return outputs
        started = map(self._started, known.pop(0), keras.tree.flatten(outputs))
        return keras.tree.pack_sequence_as(outputs, list(started))

    def _check_called_once(self, operation: keras.Operation) -> None:
        """Refuses an activation of the end that is applied elsewhere, too, where it has to stay."""
        split = ends.activation_of(self.head) not in (None, "linear")
        if operation is self._end or (split and operation is self.head):
            if operation in self._ended:
                raise ValueError(
                    "Expected a last activation that is called at the end alone, where the error "
                    f"is taken in front of it. Received: {parts.described(operation)}, called "
                    "elsewhere, too. Give the end a layer of its own."
                )
            self._ended.append(operation)

    def _inlined(self, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        given = {name: value for name, value in kwargs.items() if value is not None}
        if _masked(args, given.get("mask")):
            given.pop("mask", None)
        before, self._training = self._training, given.pop("training", self._training)
        if len(args) != 1 or given:
            raise ValueError(
                "Expected nested models that are called on their inputs alone. Received: "
                f"{parts.described(model)}, called with {sorted(given) or f'{len(args)} arguments'}"
            )
        graph = keras_private.functional_of(model)
        outputs = keras_private.run_graph(graph, args[0], self._step, lambda operation: operation)
        self._training = before
        return outputs

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
        start = self._starts.get(id(original))
        if start is None:
            return tensor
        return self._point(self._renamed.get(id(start), start.name), tensor, -1)

    def _point(self, name: str, tensor: keras.KerasTensor, axis: int) -> keras.KerasTensor:
        if name in [point for point, _, _ in self._points]:  # of a layer that is called again
            name = _free(name, self._names)
        self._points.append((name, tensor, axis))
        return StopError(name=_free(f"{name}_stop", self._names))(tensor)

    def _fed_back(self, logits: keras.KerasTensor) -> keras.KerasTensor:
        if isinstance(self._rule, alignments.Frozen):
            return logits
        if not self._points:
            raise ValueError(
                "Expected a layer with a kernel to send the error to, and floating numbers that go "
                f"into it. Received: {parts.described(self._model)}, where there is none, or all "
                "are skipped"
            )
        names, tensors, axes = zip(*self._points, strict=True)
        self.feedback = DirectFeedback(
            self._rule,
            names,
            axes,
            name=_free("direct_feedback", self._names),
            dtype="float64" if logits.dtype == "float64" else "float32",
        )
        return self.feedback([logits, *tensors])

    def freeze(self, copy: keras.Model) -> None:
        """Lets the output layer of the copy alone train, where the rule says so."""
        if not isinstance(self._rule, alignments.Frozen):
            return
        frozen: dict[str, Sequence[int]] = {}
        for layer in keras_private.sublayers(copy):
            if layer is not self.copy(self.head) and not isinstance(layer, StopError):
                trained = [i for i, v in enumerate(layer.variables) if v.trainable]
                if layer.trainable:
                    frozen[layer.name] = trained
                _freeze(layer)
        for layer in keras_private.sublayers(copy):
            if isinstance(layer, StopError):
                layer.frozen = frozen

    def _ends(self) -> list[keras.Operation]:
        made = []
        if ends.activation_of(self.head) not in (None, "linear"):
            head = self.copy(self.head)
            name = _free(f"{head.name}_activation", self._names)
            dtype = self.head.dtype_policy
            made.append(keras.layers.Activation(self.head.activation, name=name, dtype=dtype))
        return made if self._end is None else [*made, self.copy(self._end)]


@contextlib.contextmanager
def plain(model: keras.Model) -> Iterator[keras.Model]:
    """The model without what a rewiring has put into it; its layers are the model's own.

    Args:
        model: Sequential or functional.

    Yields:
        The model itself, where nothing was put into it.
    """
    if not is_rewired(model):
        yield model
        return
    inside = [part for part in keras_private.flatten_layers(model) if parts.is_graph(part)]
    nodes = [node for graph in (model, *inside) for node in keras_private.graph_nodes(graph)]
    called = {
        id(one): one for one in (*keras_private.flatten_layers(model), *(n[0] for n in nodes))
    }
    with keras_private.nodes_kept(list(called.values())):
        yield _plain(model, {})


def is_rewired(layer: keras.layers.Layer) -> bool:
    """Whether a layer holds what a rewiring puts into a model."""
    return any(map(is_part, keras_private.flatten_layers(layer)))


def is_part(layer: keras.layers.Layer) -> bool:
    """Whether a layer is one that a rewiring puts into a model."""
    return isinstance(layer, (DirectFeedback, StopError))


def _plain(layer: Any, made: dict[int, Any]) -> Any:
    """A layer as it is; of a model, or a wrapper of one, that was rewired, one of its layers."""
    if id(layer) in made:
        return made[id(layer)]
    if not isinstance(layer, keras.layers.Layer) or not is_rewired(layer):
        return layer
    if parts.is_opened(layer):
        stock = type(layer)(**{**layer.get_config(), "layer": _plain(layer.layer, made)})
    elif isinstance(layer, keras.Sequential) and parts.is_graph(layer):
        held = [_plain(part, made) for part in keras_private.sublayers(layer)]
        stock = type(layer)(held, name=layer.name)
    elif parts.is_graph(layer):
        outputs = keras_private.run_graph(
            layer, layer.input, _without_stops, lambda operation: _plain(operation, made)
        )
        stock = type(layer)(layer.input, outputs, name=layer.name)
    else:
        return layer
    if parts.is_graph(layer):
        stock.dtype_policy = layer.dtype_policy
        checking.check_arguments(layer, stock)
    made[id(layer)] = stock
    return stock


def _without_stops(operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
    if isinstance(operation, StopError):
        return args[0]
    if isinstance(operation, DirectFeedback):
        return args[0][0]
    return operation(*args, **kwargs)


def kept_from_training(model: keras.Model) -> set[int]:
    """What trains without the rule "frozen", and under it does not.

    Args:
        model: that may be under the rule, or hold models that are.

    Returns:
        The `id` of layers and weights.
    """
    found = set()
    for graph in (model, *keras_private.flatten_layers(model)):
        if not parts.is_graph(graph):
            continue
        held = {layer.name: layer for layer in keras_private.sublayers(graph)}
        stops = [layer for layer in held.values() if isinstance(layer, StopError)]
        for name, numbers in [item for stop in stops for item in stop.frozen.items()]:
            if name in held:
                layer = held[name]
                found |= {id(part) for part in (layer, *keras_private.flatten_layers(layer))}
                found |= {id(v) for i, v in enumerate(layer.variables) if i in numbers}
    return found


def _is_by_blocks(rule: alignments.Alignment) -> bool:
    return isinstance(rule, alignments.Direct) and rule.points == "blocks"


def _freeze(layer: keras.layers.Layer) -> None:
    """Weights as they were drawn; BatchNorm, which is not in inference, follows its batches."""
    if isinstance(layer, keras.layers.BatchNormalization):
        for variable in layer.trainable_variables:
            variable.trainable = False
    else:
        layer.trainable = False


def _masked(args: Any, mask: Any) -> bool:
    """Whether tensors have their masks with them, which then need not be given."""
    tensors, masks = keras.tree.flatten(args), keras.tree.flatten(mask)
    return len(tensors) == len(masks) and all(
        one is None or keras_private.mask_of(tensor) is not None
        for tensor, one in zip(tensors, masks, strict=True)
    )


def _takes_training(operation: keras.Operation) -> bool:
    return "training" in inspect.signature(operation.call).parameters


def _check_class(model: keras.Model) -> None:
    if isinstance(model, keras.Sequential) and type(model) is not keras.Sequential:
        raise ValueError(
            "Expected a functional model, or Keras's own Sequential, for a rule of a whole model, "
            f"whose layers do not stand in one row. Received: {parts.described(model)}, whose "
            "class would be lost. Derive it from keras.Model, or give keras.Model(model.inputs, "
            "model.outputs)."
        )


def _inlined(model: keras.Model, within: str = "") -> Iterator[tuple[keras.Operation, str]]:
    """Every operation of a graph and of those in it, and the models it is in, by name."""
    for operation, _, _ in keras_private.graph_nodes(model):
        if parts.is_graph(operation):
            yield from _inlined(operation, f"{within}{operation.name}_")
        else:
            yield operation, within


def _names_of_one_graph(model: keras.Model) -> dict[int, str]:
    """New names, by `id`, of what has one that is there twice: after the model's that it is in."""
    unique = {id(operation): (operation, within) for operation, within in _inlined(model)}
    counts = collections.Counter(operation.name for operation, _ in unique.values())
    taken, renamed = set(counts), {}
    for key, (operation, within) in unique.items():
        if counts[operation.name] > 1 and within:
            renamed[key] = _free(f"{within}{operation.name}", taken)
    return renamed


def _free(name: str, taken: set[str]) -> str:
    """A name that is new: as it is, or with the lowest number from 2 on."""
    numbers = itertools.chain([""], map("_{}".format, itertools.count(2)))
    made = next(f"{name}{number}" for number in numbers if f"{name}{number}" not in taken)
    taken.add(made)
    return made
