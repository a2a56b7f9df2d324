"""Validation: loss and accuracy over every validation example, each once."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from neural_alignment.data import Dataset
from neural_alignment.data.padding import pad_batches
from neural_alignment.training.batches import distribute, split
from neural_alignment.training.step import Validation

# Nothing that replicas run needs AutoGraph, and its conversion takes longer than their tracing.
as_is = tf.autograph.experimental.do_not_convert


class Evaluator:
    """Measures a model on every validation example, each once, on any number of replicas.

    Args:
        model: ends in logits.
        dataset: whose validation split is taken.
        batch_size: global; rounded up to a multiple of the replicas.
        strategy: the devices.
        loss: a name of `losses.get`.
    """

    def __init__(
        self,
        model: keras.Model,
        dataset: Dataset,
        batch_size: int,
        strategy: tf.distribute.Strategy,
        loss: str = "softmax",
    ) -> None:
        self._dataset = dataset
        self._strategy = strategy
        self._replicas = strategy.num_replicas_in_sync
        self._batch_size = -(-batch_size // self._replicas) * self._replicas
        self._validation = Validation(model, loss)
        self._run = tf.function(self._sums)

    def __call__(self) -> dict[str, float]:
        """Measures.

        Returns:
            val_loss (the mean), val_top1, val_top5 (fractions).
        """
        batches = -(-self._dataset.num_validation // self._batch_size)
        iterator = iter(distribute(self._strategy, self._shard))
        sums = self._run(iterator, tf.constant(batches)).numpy().astype(np.float64)
        examples = sums[-1]
        return {
            name: float(value / examples)
            for name, value in zip(Validation.measured, sums[:-1], strict=True)
        }

    def _shard(self, context: tf.distribute.InputContext) -> tf.data.Dataset:
        pipelines = context.num_input_pipelines
        batches = self._dataset.validation(self._batch_size, (context.input_pipeline_id, pipelines))
        padded = pad_batches(batches, self._batch_size // pipelines)
        return split(padded, self._replicas // pipelines)

    def _sums(self, iterator: Any, count: tf.Tensor) -> tf.Tensor:
        sums = tf.zeros(len(Validation.measured) + 1)
        for _ in tf.range(count):
            per_replica = self._strategy.run(as_is(self._validation), args=next(iterator))
            sums += self._strategy.reduce(tf.distribute.ReduceOp.SUM, per_replica, axis=None)
        return sums
