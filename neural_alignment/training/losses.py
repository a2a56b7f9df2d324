"""The losses J of logits and labels, by the name that `--loss` has."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

# (labels int32 [batch], logits float32 [batch, classes]) -> float32, [batch] or its mean
Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def get(name: str) -> Loss:
    """A loss by name.

        softmax    -log p_label,                                     p = softmax(logits)
        sigmoid    -log p_label - sum over other c of log(1 - p_c),  p = sigmoid(logits)

    Args:
        name: "softmax" or "sigmoid".

    Returns:
        A function of labels int32 `[batch]` and logits float32 `[batch, classes]` that gives a
        number for each example.

    Raises:
        ValueError: another name.
    """
    if name not in _LOSSES:
        raise ValueError(f"Expected a loss of {', '.join(_LOSSES)}. Received: {name!r}")
    return _LOSSES[name]


def mean(name: str) -> Loss:
    """The mean of a loss over a batch.

    Args:
        name: see `get`.

    Returns:
        A function of labels and logits that gives a scalar.

    Raises:
        ValueError: another name.
    """
    of_each = get(name)
    return lambda labels, logits: tf.reduce_mean(of_each(labels, logits))


def _softmax(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


def _sigmoid(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    targets = tf.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    of_classes = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits)
    return tf.reduce_sum(of_classes, axis=-1)


_LOSSES: dict[str, Loss] = {"softmax": _softmax, "sigmoid": _sigmoid}
