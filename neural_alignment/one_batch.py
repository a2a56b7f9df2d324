"""A batch that a user hands over to have something measured on it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from neural_alignment import keras_private

Tensor = Any


def tensors(inputs: Any, labels: Any, sample_weight: Any = None, loss: Any = None) -> list[Any]:
    """The parts of a batch with a tensor in the place of each array.

    Args:
        inputs: an array, or a list or dict of arrays where the model has several inputs.
        labels: the same.
        sample_weight: the same, or None.
        loss: of one's own, which takes what labels it likes; None is a model's.

    Returns:
        The three, None where it was None.

    Raises:
        ValueError: something else than arrays, parts of different numbers of examples, or of none.
    """
    parts = {"inputs": inputs, "labels": labels, "sample_weight": sample_weight}
    made: list[Any] = []
    sizes: dict[str, set[int]] = {}
    for name, part in parts.items():
        if name == "labels" and loss is not None:
            made.append(keras.tree.map_structure(ops.convert_to_tensor, part))
            continue
        made.append(None if part is None else _tensors(name, part))
        sizes[name] = {leaf.shape[0] for leaf in keras.tree.flatten(made[-1]) if leaf is not None}
    if len(set().union(*sizes.values())) > 1 or {0} in sizes.values():
        told = [f"{name} of {', '.join(map(str, sorted(n)))}" for name, n in sizes.items() if n]
        raise ValueError(
            "Expected a batch of one example at least, with as many in each part. "
            f"Received: {'; '.join(told)}"
        )
    return made


def check_taken(model: keras.Model, inputs: Any) -> None:
    """Refuses inputs that a model cannot take, before it has trained an epoch.

    Args:
        model: of known inputs, as a functional one; another is known when it is called.
        inputs: of a batch, as `tensors` has taken them.

    Raises:
        ValueError: other shapes, or another structure, than the model's inputs.
    """
    if not isinstance(model, keras.models.Model) or not getattr(model, "inputs", None):
        return
    given = keras.tree.map_structure(
        lambda leaf: keras.KerasTensor(leaf.shape, keras.backend.standardize_dtype(leaf.dtype)),
        inputs,
    )
    try:
        model.compute_output_spec(given)
    except Exception as error:  # Keras has no type of its own for what it cannot take
        wanted, came = (
            ", ".join(str((None, *leaf.shape[1:])) for leaf in keras.tree.flatten(part))
            for part in (model.inputs, given)
        )
        raise ValueError(
            f"Expected inputs of a batch as the model takes them, {wanted}. Received: {came}"
        ) from error


def check_measured(
    model: keras.Model,
    inputs: Any,
    labels: Any,
    loss: Callable[[Any, Any], Tensor] | None,
    sample_weight: Any,
) -> None:
    """Refuses a batch of which a model, now built, has no loss, before an epoch is over.

    Args:
        model: built.
        inputs: as of `tensors`.
        labels: the same.
        loss: as of `loss_of`.
        sample_weight: the same.

    Raises:
        ValueError: inputs or labels that the model or the loss does not take.
    """
    inputs, labels, sample_weight = tensors(inputs, labels, sample_weight, loss)
    layers = [model, *keras_private.flatten_layers(model)]
    try:
        with keras_private.losses_kept(layers):
            outputs = model(inputs, training=False)
            loss_of(model, loss, sample_weight)(inputs, labels, outputs)
    except Exception as error:  # as in `check_taken`
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            "Expected inputs and labels of a batch as the model and its loss take them. Received: "
            f"{_shapes(inputs)} and {_shapes(labels)}, where it fails: {reason}"
        ) from error


def _shapes(part: Any) -> str:
    leaves = keras.tree.flatten(part)
    return ", ".join(str(tuple(getattr(leaf, "shape", ()))) for leaf in leaves)


def _tensors(name: str, part: Any) -> Any:
    def tensor(leaf: Any) -> Tensor:
        try:
            made = ops.convert_to_tensor(leaf)
        except Exception as error:  # each back end has types of its own
            raise ValueError(_expected(name, f"a {type(leaf).__name__}")) from error
        if len(made.shape) == 0:
            raise ValueError(_expected(name, f"{type(part).__name__} of single numbers"))
        return made

    return keras.tree.map_structure(tensor, part)


def _expected(name: str, received: str) -> str:
    return (
        f"Expected arrays or tensors as {name} of a batch, or a list or dict of them where the "
        f"model has several. Received: {received}. Take one batch of a data set "
        "(next(iter(dataset))), and make an array of numbers in a list (numpy.array)."
    )


def loss_of(
    model: keras.Model, loss: Callable[[Any, Any], Tensor] | None, sample_weight: Any
) -> Callable[..., Tensor]:
    """The loss of a batch.

    Args:
        model: whose compiled loss is taken where none is given.
        loss: `loss(labels, outputs)`, or None.
        sample_weight: of the batch, for the compiled loss.

    Returns:
        A function of inputs, labels and outputs that gives a scalar.

    Raises:
        ValueError: no loss and a model that is not compiled, or sample weights with a loss.
    """
    if loss is not None:
        if sample_weight is not None:
            raise ValueError(
                "Expected no sample_weight with a loss of one's own, loss(labels, outputs), which "
                "weighs the examples itself. Received: both"
            )
        return lambda _, labels, outputs: loss(labels, outputs)
    if not getattr(model, "compiled", False):
        raise ValueError(
            "Expected a compiled model, whose loss says what error goes back, or a loss. "
            f"Received: loss=None and the model {model.name!r}, which is not compiled"
        )
    takes_training = "training" in inspect.signature(model.compute_loss).parameters
    options = {"training": False} if takes_training else {}

    def compiled(inputs: Any, labels: Any, outputs: Any) -> Tensor:
        with keras.StatelessScope():  # each output's loss counts in the training's metrics
            return model.compute_loss(inputs, labels, outputs, sample_weight, **options)

    return compiled
