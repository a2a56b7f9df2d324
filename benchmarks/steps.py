"""One training step of a model, with the two losses together or an optimizer for each."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from neural_alignment import layers, optimizers

Step = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def training_step(model: keras.Model, jit: bool = False, split: bool = False) -> Step:
    """Forward, backward, and momentum updates by J + R, or by J and by R.

    Args:
        model: ends in logits; stock layers or this package's.
        jit: compile with XLA.
        split: an optimizer for each of the two losses; the model's rule must have an R.

    Returns:
        A `tf.function` of images and labels that gives J.
    """
    variables = model.trainable_variables
    rules = [_momentum(variables) for _ in range(1 + split)]
    global_step = tf.Variable(0, dtype=tf.int64)

    def losses(batch: tuple[tf.Tensor, tf.Tensor]) -> tuple[list[tf.Tensor], tf.Tensor]:
        images, labels = batch
        with layers.training_step(global_step, seed=0) as collected:
            logits = model(images, training=True)
        errors = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        loss = tf.add_n([tf.reduce_mean(errors), *model.losses])  # with weight decay
        alignment_losses = [value for _, value in collected.losses]
        if split:
            return [loss, tf.add_n(alignment_losses)], loss
        return [tf.add_n([loss, *alignment_losses])], loss

    @tf.function(jit_compile=jit)
    def step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        _, loss = optimizers.minimize(losses, (images, labels), rules, variables)
        global_step.assign_add(1)
        return loss

    return step


def _momentum(variables: list[keras.Variable]) -> keras.optimizers.Optimizer:
    optimizer = keras.optimizers.SGD(1e-3, momentum=0.9, nesterov=True)
    optimizer.build(variables)
    return optimizer
