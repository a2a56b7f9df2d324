"""Every attribute of Keras's that is not public, in one place, each with its reason."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
from keras.src.backend import get_keras_mask, set_keras_mask
from keras.src.backend.common.stateless_scope import get_stateless_scope, in_stateless_scope
from keras.src.saving.serialization_lib import SafeModeScope

Tensor = Any


def flatten_layers(model: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Every layer inside a layer, nested ones too, in order.

    `model.layers` stops at the first level; Keras's own walk turns nested layers round.
    """
    found: dict[int, keras.layers.Layer] = {}

    def visit(layer: keras.layers.Layer) -> None:
        for inner in layer._layers:
            if id(inner) not in found:
                found[id(inner)] = inner
                visit(inner)

    visit(model)
    return list(found.values())


def replace_layers(
    layer: keras.layers.Layer,
    kind: type[keras.layers.Layer],
    make: Callable[[keras.layers.Layer], keras.layers.Layer],
) -> None:
    """Puts other layers in the place of those that a layer has made for itself.

    Keras has no way to say which layers MultiHeadAttention is to be made of.

    Args:
        layer: that has attributes of the kind.
        kind: exactly this type is replaced.
        make: from the old layer, the new one.
    """
    # On PyTorch layers are modules, which a module holds apart from its other attributes.
    attributes = vars(layer) | vars(layer).get("_modules", {})
    for name, old in attributes.items():
        if type(old) is kind:
            new = make(old)
            layer._tracker.replace_tracked_value("layers", old, new)
            setattr(layer, name, new)


def child_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers right inside a layer or model: of one that is no model `layers` says nothing."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


def replace_losses(model: keras.Model, replaced: Mapping[int, Tensor]) -> None:
    """Puts other losses in the place of some that layers have added in this step.

    Args:
        model: whose `losses` they are among.
        replaced: by the `id` of the loss.
    """
    held = [layer._losses for layer in flatten_layers(model)]
    # On JAX, where the losses come out of a stateless call, the model holds them.
    for losses in (*held, model._losses_override):
        losses[:] = [replaced.get(id(loss), loss) for loss in losses]


def mask_of(inputs: Tensor) -> Tensor | None:
    """The mask that an Embedding or Masking layer attached; `call` gets it only as an argument."""
    return get_keras_mask(inputs)


def add_or_replace_loss(layer: keras.layers.Layer, loss: Tensor, replaced: Tensor | None) -> None:
    """Adds a loss as `add_loss` does, in place of one it added before in the same step.

    Args:
        layer: whose loss it is.
        loss: a scalar.
        replaced: the loss to take away, or None.
    """
    if replaced is not None:
        held = _held(layer)
        held[:] = [one for one in held if one is not replaced]
    layer.add_loss(loss)


def holds_loss(layer: keras.layers.Layer, loss: Tensor) -> bool:
    """Whether a loss that a layer added is still there: Keras clears them when a step begins."""
    return any(one is loss for one in _held(layer))


def _held(layer: keras.layers.Layer) -> list[Tensor]:
    # Inside a stateless call, as on JAX, losses are kept by the scope.
    return get_stateless_scope().losses if in_stateless_scope() else layer._losses


def is_sparse(inputs: Tensor) -> bool:
    """Whether a tensor is of the back end's sparse type, or stands for one."""
    if isinstance(inputs, keras.KerasTensor):
        return inputs.sparse
    return type(inputs).__name__ in ("SparseTensor", "BCOO") or _is_sparse_torch(inputs)


def _is_sparse_torch(inputs: Tensor) -> bool:
    return keras.backend.backend() == "torch" and bool(getattr(inputs, "is_sparse", False))


def with_mask(inputs: Tensor, mask: Tensor | None) -> Tensor:
    """The inputs with a mask attached that a conversion has dropped."""
    if mask is not None and get_keras_mask(inputs) is None:
        set_keras_mask(inputs, mask)
    return inputs


def sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers that a layer holds itself; `model.layers` leaves out those beside the graph."""
    return list(layer._layers)


def made_trainable(layer: keras.layers.Layer) -> list[keras.Variable]:
    """A layer's own weights made to be trained; `trainable_weights` is empty where frozen."""
    return list(layer._trainable_variables)


def origin(tensor: keras.KerasTensor) -> keras.Operation:
    """The operation whose output a symbolic tensor is: of a model's input, its input layer."""
    return tensor._keras_history[0]


def run_graph(
    model: keras.Model, inputs: Any, call: Callable[..., Any], between: Callable[[Any], Any]
) -> Any:
    """Runs a functional model's graph; `clone_model`, which does it too, compiles and renames.

    Args:
        model: a functional model.
        inputs: of the structure of `model.input`.
        call: from an operation and its arguments to outputs.
        between: from the model's operation to the one that `call` gets.

    Returns:
        What takes the place of `model.output`.
    """
    return model._run_through_graph(inputs, between, call)


def functional_of(model: keras.Model) -> keras.Model:
    """The graph of a Sequential or functional model: Sequential keeps one inside."""
    return model._functional if isinstance(model, keras.Sequential) else model


def graph_nodes(model: keras.Model) -> list[tuple[keras.Operation, list[Tensor], Any]]:
    """(operation, its input tensors, its outputs) of a graph, in the order in which it runs.

    Args:
        model: Sequential or functional.

    Returns:
        One for each call of an operation; not those of inputs.
    """
    nodes_by_depth = functional_of(model)._nodes_by_depth
    return [
        (node.operation, list(node.input_tensors), node.outputs)
        for depth in sorted(nodes_by_depth, reverse=True)
        for node in nodes_by_depth[depth]
        if node.input_tensors
    ]


@contextlib.contextmanager
def nodes_kept(operations: list[keras.Operation]) -> Iterator[None]:
    """Takes away the calls that operations get inside: `layer.output` wants one call only."""
    kept = [(one, len(one._inbound_nodes), len(one._outbound_nodes)) for one in operations]
    try:
        yield
    finally:
        for operation, inbound, outbound in kept:
            del operation._inbound_nodes[inbound:]
            del operation._outbound_nodes[outbound:]


def copy_operation(operation: keras.Operation) -> keras.Operation:
    """A copy of an operation without weights, called nowhere; many have no usable config."""
    copy = object.__new__(type(operation))
    copy.__dict__.update(operation.__dict__)
    copy._inbound_nodes, copy._outbound_nodes = [], []
    return copy


def copy_remat_mode(source: keras.layers.Layer, target: keras.layers.Layer) -> None:
    """What a `keras.RematScope` said when a layer was made; no config has it."""
    target._remat_mode = getattr(source, "_remat_mode", None)


def unsafe_deserialization() -> contextlib.AbstractContextManager:
    """Allows lambdas in configs, which come from a model in memory, and puts the guard back."""
    return SafeModeScope(safe_mode=False)


@contextlib.contextmanager
def losses_kept(layers: list[keras.layers.Layer]) -> Iterator[None]:
    """Puts back the losses of the last call, which the next one clears even if stateless."""
    kept = [(layer, list(layer._losses), set(layer._loss_ids)) for layer in layers]
    try:
        yield
    finally:
        for layer, losses, ids in kept:
            layer._losses[:] = losses
            layer._loss_ids.clear()
            layer._loss_ids.update(ids)


def add_metric(model: keras.Model, metric: keras.metrics.Metric) -> Callable[[], None]:
    """Adds a metric to a compiled model, whose logs show it and whose step carries its state.

    Args:
        model: compiled, and built: Keras takes no new metric as an attribute then.
        metric: to add; one of its type that is there is taken off.

    Returns:
        Takes it off again.
    """
    for left in [one for one in model._metrics if type(one) is type(metric)]:
        model._metrics.remove(left)  # by a training that failed
    model._metrics.append(metric)
    return lambda: model._metrics.remove(metric)


# Gives `fit` the logs of an epoch, before validation and before any callback.
EPOCH_LOGS = "_get_metrics_result_or_logs"


def average_of(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> keras.Variable:
    """An optimizer's moving average of a variable, with `use_ema`."""
    averages = optimizer._model_variables_moving_average
    return averages[optimizer._get_variable_index(variable)]


def optimizer_of(
    optimizer: keras.optimizers.Optimizer, variable: keras.Variable
) -> keras.optimizers.Optimizer:
    """The optimizer of a variable: of Keras's `MultiOptimizer` one of several, else itself."""
    several = isinstance(optimizer, getattr(keras.optimizers, "MultiOptimizer", ()))
    return optimizer._optimizer_map(variable) if several else optimizer


def count_update(optimizer: keras.optimizers.Optimizer) -> None:
    """Counts an update that an optimizer around this one has made with its `update_step`."""
    optimizer._iterations.assign_add(1)


def decays(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> bool:
    """Whether an optimizer's weight decay changes a variable: not one that is excluded."""
    return optimizer._use_weight_decay(variable)
