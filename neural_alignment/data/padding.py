"""Batches of one static shape, with weights, for an exact evaluation on any number of replicas."""

from __future__ import annotations

from neural_alignment.lazy import tf


def pad_batches(batches: tf.data.Dataset, size: int) -> tf.data.Dataset:
    """Fills every batch up to `size` with zeros of weight 0.

    Σ weight·metric / Σ weight over all batches is then the mean over the examples, each counted
    once, however many replicas share the batches; shapes are static, as a TPU wants them.

    Args:
        batches: pairs (images [n, ...], labels [n]), 0 <= n <= size.
        size: the examples of every batch that comes out.

    Returns:
        Triples (images [size, ...], labels [size], weights float32 [size]).

    Raises:
        ValueError: size < 1.
    """
    if size < 1:
        raise ValueError(f"Expected a batch size >= 1. Received: {size}.")

    def pad(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, ...]:
        count = tf.shape(labels)[0]
        missing = size - count

        def fill(values: tf.Tensor) -> tf.Tensor:
            padded = tf.pad(values, [[0, missing]] + [[0, 0]] * (values.shape.rank - 1))
            return tf.ensure_shape(padded, [size, *values.shape[1:]])

        return fill(images), fill(labels), tf.cast(tf.range(size) < count, tf.float32)

    padded = batches.map(pad, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return padded.prefetch(tf.data.AUTOTUNE)
