"""A list of (loss, optimizer) pairs: gradients at the same weights, then every update.

Across replicas a Keras optimizer sums gradients in `apply`. Losses here are means over the
replica's own batch, and their gradients are divided by the number of replicas, so that the sum is
the gradient of the mean; a loss function must not divide again.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from neural_alignment.optimizers import validation

Tensor = Any
# Of a (micro-)batch: the losses as float32 scalars, and any nest of floating tensors.
LossFunction = Callable[[Any], tuple[Sequence[Tensor], Any]]

LOSS_NAMES = ("loss", "alignment_loss")


@dataclasses.dataclass(frozen=True)
class Clip:
    """Clipping of one loss's gradients.

        value:  g <- min(max(g, -limit), limit)
        norm:   g <- g * limit / max(limit, |all g|_2)

    What is not finite stays so: an infinite element is not clipped, and a norm that is not finite
    makes every gradient NaN, so that the trainer sees it.

    Args:
        method: "value" or "norm", the norm of all gradients together.
        limit: above 0.

    Raises:
        ValueError: another method, or a limit that is not a finite number above 0.
    """

    method: str = "norm"
    limit: float = 1.0

    def __post_init__(self) -> None:
        validation.choice("method", self.method, ("value", "norm"))
        validation.number("limit", self.limit, above=0.0)

    def __call__(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The clipped gradients.

        Args:
            gradients: tensors, none of them None.

        Returns:
            As many tensors.
        """
        if self.method == "norm":
            return tf.clip_by_global_norm(list(gradients), self.limit)[0]
        return [
            # Not left to clip_by_value: XLA's may take NaN for a number.
            tf.where(tf.math.is_finite(g), tf.clip_by_value(g, -self.limit, self.limit), g)
            for g in gradients
        ]


def compute_gradients(
    loss_function: LossFunction,
    batch: Any,
    optimizers: Sequence[keras.optimizers.Optimizer],
    variables: Sequence[Any],
    names: Sequence[str] = LOSS_NAMES,
) -> tuple[list[list[Tensor | None]], list[Tensor], Any]:
    """Gradients of every loss at the same weights, from one forward pass ([K] section 3).

    Args:
        loss_function: of the batch; gives one loss for every optimizer, and anything else.
        batch: what it is given.
        optimizers: one a loss; a `LossScaleOptimizer` scales its loss.
        variables: all trainable variables.
        names: of the losses, for messages.

    Returns:
        A list of gradients for every loss, None where it does not reach the variable; the losses;
        what else the function returned.

    Raises:
        ValueError: a loss that reaches no variable, or not one loss for every optimizer.
    """
    replicas = _replicas()
    with contextlib.ExitStack() as stack:
        # One tape a loss, none persistent: each frees what it recorded with its backward pass.
        tapes = [stack.enter_context(tf.GradientTape()) for _ in optimizers]
        losses, rest = loss_function(batch)
        if len(losses) != len(optimizers):
            raise ValueError(
                f"Expected one loss for each of {len(optimizers)} optimizers. "
                f"Received: {len(losses)} losses"
            )
        scaled = [
            optimizer.scale_loss(loss / replicas if replicas > 1 else loss)
            for optimizer, loss in zip(optimizers, losses, strict=True)
        ]
    gradients = []
    for name, tape, loss in zip(names, tapes, scaled, strict=False):
        of_loss = tape.gradient(loss, list(variables))
        if all(gradient is None for gradient in of_loss):
            raise ValueError(
                f"Expected the loss {name!r} to depend on a trainable variable. Received: one that "
                f"reaches none of {len(of_loss)} variables. Leave this loss and its optimizer out, "
                "or choose a learning rule that has such a loss."
            )
        gradients.append(of_loss)
    return gradients, list(losses), rest


def _check_floating(outputs: Sequence[Tensor]) -> None:
    for output in outputs:
        if not output.dtype.is_floating:
            raise ValueError(
                "Expected floating results to average over micro-batches. "
                f"Received: {output.dtype.name} of shape {output.shape}"
            )


def average_gradients(
    loss_function: LossFunction,
    batch: Any,
    optimizers: Sequence[keras.optimizers.Optimizer],
    variables: Sequence[Any],
    names: Sequence[str] = LOSS_NAMES,
    micro_batches: int = 1,
) -> tuple[list[list[Tensor | None]], list[Tensor], Any]:
    """As `compute_gradients`, averaged over micro-batches that are processed one by one.

    The memory is that of one micro-batch. What depends on the batch (BatchNorm, batch centring)
    sees the micro-batch.

    Args:
        loss_function: of a micro-batch; what else it returns must be floating, as it is averaged.
        batch: a nest of tensors `[batch, ...]`.
        optimizers: one a loss.
        variables: all trainable variables.
        names: of the losses, for messages.
        micro_batches: how many; they divide the batch.

    Returns:
        Gradients, losses and what else the function returned, each the mean over micro-batches.

    Raises:
        ValueError: as `compute_gradients`, or a batch that cannot be split so.
    """
    validation.integer("micro_batches", micro_batches, at_least=1)
    if micro_batches == 1:
        return compute_gradients(loss_function, batch, optimizers, variables, names)
    stacked = tf.nest.map_structure(lambda x: _split(x, micro_batches), batch)

    # Traced once, which also tells which gradients exist before the loop is made.
    def of_part(micro_batch: Any) -> Any:
        return compute_gradients(loss_function, micro_batch, optimizers, variables, names)

    specs = tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape[1:], x.dtype), stacked)
    work = tf.function(of_part).get_concrete_function(specs)
    structure = work.structured_outputs
    outputs = [output for output in tf.nest.flatten(structure) if output is not None]
    _check_floating(outputs)

    def body(index: Tensor, *sums: Tensor) -> tuple[Tensor, ...]:
        results = work(tf.nest.map_structure(lambda x: x[index], stacked))
        flat = [result for result in tf.nest.flatten(results) if result is not None]
        return index + 1, *(a + b for a, b in zip(sums, flat, strict=True))

    _, *sums = tf.while_loop(
        lambda index, *_: index < micro_batches,
        body,
        (tf.constant(0), *(tf.zeros(output.shape, output.dtype) for output in outputs)),
        parallel_iterations=1,
        maximum_iterations=micro_batches,
    )
    means = iter([total / micro_batches for total in sums])
    flat = [None if one is None else next(means) for one in tf.nest.flatten(structure)]
    return tf.nest.pack_sequence_as(structure, flat)


def apply_gradients(
    gradients: Sequence[Sequence[Tensor | None]],
    optimizers: Sequence[keras.optimizers.Optimizer],
    variables: Sequence[Any],
    clip: Clip | None = None,
) -> None:
    """Applies each optimizer to its loss's gradients; a variable without one is left untouched.

    Args:
        gradients: from `compute_gradients` or `average_gradients`.
        optimizers: one a loss, built on all variables.
        variables: all trainable variables.
        clip: of each loss's gradients; across replicas, of their sum.

    Raises:
        ValueError: an optimizer that is not built, or clipping of scaled gradients.
    """
    # No update before every gradient is there: the graph optimizer may drop the order between a
    # weight's read and its first update where it wrongly takes one to imply the other.
    computed = [g for of_loss in gradients for g in of_loss if g is not None]
    with tf.control_dependencies(computed):
        gradients = [
            [None if g is None else tf.identity(g) for g in of_loss] for of_loss in gradients
        ]
    for of_loss, optimizer in zip(gradients, optimizers, strict=True):
        if not optimizer.built:
            raise ValueError(
                f"Expected the optimizer {optimizer.name!r} to be built. Received: one that is "
                "not. Call optimizer.build(model.trainable_variables) first."
            )
        pairs = zip(of_loss, variables, strict=True)
        reached = [(tf.convert_to_tensor(g), v) for g, v in pairs if g is not None]
        values, chosen = (list(column) for column in zip(*reached, strict=True))
        if clip is not None:
            if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
                raise ValueError(
                    "Expected no clip with a LossScaleOptimizer, whose gradients are scaled. "
                    f"Received: {clip}. Give global_clipnorm or clipvalue to the inner optimizer."
                )
            values = _clip_sum(clip, values)
        optimizer.apply(values, chosen)


def minimize(
    loss_function: LossFunction,
    batch: Any,
    optimizers: Sequence[keras.optimizers.Optimizer],
    variables: Sequence[Any],
    *,
    names: Sequence[str] = LOSS_NAMES,
    micro_batches: int = 1,
    clip: Clip | None = None,
) -> tuple[list[Tensor], Any]:
    """One update of every (loss, optimizer) pair; one loss with one optimizer is the list of one.

    Args:
        loss_function: of a (micro-)batch; gives one loss for every optimizer, and anything else.
        batch: a nest of tensors `[batch, ...]`.
        optimizers: one a loss, built on all variables.
        variables: all trainable variables.
        names: of the losses, for messages.
        micro_batches: parts of the batch that are processed one by one.
        clip: of each loss's gradients.

    Returns:
        The losses before the update, and what else the function returned.

    Raises:
        ValueError: as `average_gradients` and `apply_gradients`.
    """
    gradients, losses, rest = average_gradients(
        loss_function, batch, optimizers, variables, names, micro_batches
    )
    apply_gradients(gradients, optimizers, variables, clip)
    return losses, rest


def _replicas() -> int:
    context = tf.distribute.get_replica_context()
    return context.num_replicas_in_sync if context is not None else 1


def _clip_sum(clip: Clip, values: list[Tensor]) -> list[Tensor]:
    replicas = _replicas()
    if replicas == 1:
        return clip(values)
    # The optimizer sums over replicas once more: hand it equal shares of the clipped sum.
    context = tf.distribute.get_replica_context()
    total = context.all_reduce(tf.distribute.ReduceOp.SUM, values)
    return [value / replicas for value in clip(total)]


def _split(x: Tensor, parts: int) -> Tensor:
    x = tf.convert_to_tensor(x)
    size = x.shape[0]
    if size is not None and size % parts:
        raise ValueError(
            f"Expected a batch that {parts} micro-batches divide. Received: {size} examples"
        )
    rest = tf.shape(x)[1:] if None in x.shape[1:] else x.shape[1:]
    first = tf.shape(x)[0] // parts if size is None else size // parts
    split = tf.reshape(x, tf.concat([[parts, first], rest], axis=0))
    split.set_shape([parts, None if size is None else size // parts, *x.shape[1:]])
    return split
