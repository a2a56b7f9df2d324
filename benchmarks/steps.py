"""One training step of a model, with the two losses together or an optimizer for each."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from neural_alignment import layers, optimizers

Step = Callable[[tf.Tensor, tf.Tensor], list[tf.Tensor]]


def training_step(model: keras.Model, jit: bool = False, split: bool = False) -> Step:
    """Forward, backward, and momentum updates by J + R, or by J and by R.

    Args:
        model: ends in logits; stock layers or this package's.
        jit: compile with XLA.
        split: an optimizer for each of the two losses; the model's rule must have an R.

    Returns:
        A `tf.function` of images and labels that gives the losses, R among them: a trainer logs it.
    """
    variables = model.trainable_variables
    rules = [_momentum(variables) for _ in range(1 + split)]
    global_step = tf.Variable(0, dtype=tf.int64)

    def losses(batch: tuple[tf.Tensor, tf.Tensor]) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        images, labels = batch
        with layers.training_step(global_step, seed=0) as collected:
            logits = tf.cast(model(images, training=True), tf.float32)
        errors = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        logged = [tf.add_n([tf.reduce_mean(errors), *model.losses])]  # with weight decay
        if collected.losses:
            logged.append(tf.add_n([value for _, value in collected.losses]))
        return logged if split else [tf.add_n(logged)], logged

    @tf.function(jit_compile=jit)
    def step(images: tf.Tensor, labels: tf.Tensor) -> list[tf.Tensor]:
        _, logged = optimizers.minimize(losses, (images, labels), rules, variables)
        global_step.assign_add(1)
        return logged

    return step


def _momentum(variables: list[keras.Variable]) -> keras.optimizers.Optimizer:
    optimizer = optimizers.get("momentum", learning_rate=1e-3)
    optimizer.build(variables)
    return optimizer
