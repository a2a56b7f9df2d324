"""One training step of the two losses, and one validation step: no loop, no input or output."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar

import keras
import tensorflow as tf

from neural_alignment import backend, keras_private
from neural_alignment.layers.aligned import aligned_layers, training_step
from neural_alignment.optimizers import linear
from neural_alignment.optimizers.optimizers import Clip, apply_gradients, average_gradients
from neural_alignment.optimizers.routed import ALIGNMENT_PATTERNS
from neural_alignment.training import losses

Rate = Callable[[tf.Tensor], tf.Tensor]


class Step:
    """One update of a model: `loss_rate(t) * J + alignment_rate(t) * R`.

    J is the mean loss plus the model's regularization losses and the weight decay, R the
    sum of the layers' alignment losses. With one optimizer it minimises the total; with two, the
    first minimises `loss_rate * J` and the second `alignment_rate * R`, both from gradients at the
    same weights ([K] section 3). A pure function of weights, slots, batch and global step: the same
    eagerly, as a graph and under XLA, on one device and on many.

    Args:
        model: ends in logits.
        optimizer: of J, or of the total.
        alignment_optimizer: of R, or None.
        loss_rate: function of the global step.
        alignment_rate: function of the global step.
        loss: in J, a name of `losses.get`.
        bias_rate: factor of the learning rate of biases; other than 1 with gradient descent or
            momentum alone.
        weight_decay: lambda of `lambda(t) / 2 * sum w^2` over every trainable weight but the
            rule's, a function of the global step; None for none.
        clip: of each loss's gradients, or None.
        micro_batches: parts of a replica's batch that are processed one by one.
        seed: of the noise.
        jit_compile: compile the step with XLA; on several devices its forward and backward pass.

    Raises:
        ValueError: an alignment_optimizer and no layer with an alignment loss; a rule or a
            bias_rate that wants updates linear in the gradients, and others; another loss.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        alignment_optimizer: keras.optimizers.Optimizer | None,
        loss_rate: Rate,
        alignment_rate: Rate,
        *,
        loss: str = "softmax",
        bias_rate: float = 1.0,
        weight_decay: Rate | None = None,
        clip: Clip | None = None,
        micro_batches: int = 1,
        seed: int = 0,
        jit_compile: bool = False,
    ) -> None:
        self.model = model
        self.loss_rate = loss_rate
        self.alignment_rate = alignment_rate
        self.loss, self.mean_loss = loss, losses.mean(loss)
        self.weight_decay = weight_decay
        self._decayed = [] if weight_decay is None else _weights(model)
        self._clip = clip
        self._micro_batches = micro_batches
        self._seed = seed
        self._paths = [layer.path for layer in aligned_layers(model) if layer.alignment.has_loss]
        if alignment_optimizer is not None and not self._paths:
            raise ValueError(
                "Expected a layer with an alignment loss for the alignment_optimizer. "
                f"Received: none in the model {model.name!r}."
            )
        self.optimizers = [optimizer] + [alignment_optimizer] * (alignment_optimizer is not None)
        for each in self.optimizers:
            linear.check(each, model.trainable_variables, clips=clip is not None)
            each.build(model.trainable_variables)
        if bias_rate != 1.0:
            linear.check_scaled(optimizer, "bias_rate", bias_rate, clips=clip is not None)
        self._bias_rate = bias_rate
        self._statistics = [
            variable
            for layer in keras_private.flatten_layers(model)
            if isinstance(layer, keras.layers.BatchNormalization)
            for variable in (layer.moving_mean, layer.moving_variance)
        ]
        self._compute, self._alone = self._gradients, self._update
        if jit_compile:
            self._compute = tf.function(self._gradients, jit_compile=True, autograph=False)
            self._alone = tf.function(self._update, jit_compile=True, autograph=False)

    @property
    def clips(self) -> bool:
        """Whether gradients are clipped."""
        return self._clip is not None

    @property
    def has_alignment_loss(self) -> bool:
        """Whether a layer has an alignment loss."""
        return bool(self._paths)

    @property
    def measured(self) -> tuple[str, ...]:
        """What a step returns, in order: both losses, and the alignment loss of each layer."""
        return ("loss", "alignment_loss", *(f"alignment_loss/{path}" for path in self._paths))

    def __call__(self, images: tf.Tensor, labels: tf.Tensor, global_step: tf.Tensor) -> tf.Tensor:
        """Updates the weights.

        Args:
            images: this replica's batch.
            labels: int32 `[batch]`.
            global_step: int scalar, before the update.

        Returns:
            float32, one number for each of `measured`, before the update and without the rates.
        """
        # One device exchanges nothing, so that the updates are compiled, too.
        one = isinstance(tf.distribute.get_strategy(), tf.distribute.OneDeviceStrategy)
        alone = one or not tf.distribute.has_strategy()
        return (self._alone if alone else self._update)(images, labels, global_step)

    def _update(self, images: tf.Tensor, labels: tf.Tensor, global_step: tf.Tensor) -> tf.Tensor:
        gradients, measured = self._compute(images, labels, global_step)
        apply_gradients(gradients, self.optimizers, self.model.trainable_variables, self._clip)
        self._average_statistics()
        return measured

    def _average_statistics(self) -> None:
        """Gives BatchNorm's moving statistics, which each replica updates alone, their mean."""
        context = tf.distribute.get_replica_context()
        if not self._statistics or context is None or context.num_replicas_in_sync == 1:
            return
        values = [tf.identity(variable) for variable in self._statistics]
        means = context.all_reduce(tf.distribute.ReduceOp.MEAN, values)
        for variable, mean in zip(self._statistics, means, strict=True):
            variable.assign(mean)

    def _gradients(self, images: tf.Tensor, labels: tf.Tensor, global_step: tf.Tensor) -> Any:
        size = images.shape[0] // self._micro_batches

        def of_batch(batch: Any) -> Any:
            inputs, targets, index = batch
            return self._losses(inputs, targets, global_step, index[0] // size)

        gradients, _, measured = average_gradients(
            of_batch,
            (images, labels, tf.range(images.shape[0])),
            self.optimizers,
            self.model.trainable_variables,
            micro_batches=self._micro_batches,
        )
        if self._bias_rate != 1.0:
            for i, variable in enumerate(self.model.trainable_variables):
                if _is_bias(variable) and gradients[0][i] is not None:
                    gradients[0][i] *= self._bias_rate
        return gradients, measured

    def _losses(
        self, images: tf.Tensor, labels: tf.Tensor, global_step: tf.Tensor, draw: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        with training_step(global_step, self._seed, draw, self._micro_batches) as active:
            logits = tf.cast(self.model(images, training=True), "float32")
        loss = self.mean_loss(labels, logits)
        loss += sum(tf.cast(penalty, "float32") for penalty in self.model.losses)
        if self._decayed:
            squares = [backend.sum_of_squares(tf.cast(w, "float32")) for w in self._decayed]
            loss += 0.5 * self.weight_decay(global_step) * tf.add_n(squares)
        by_layer = [
            sum((value for path, value in active.losses if path == wanted), tf.zeros(()))
            for wanted in self._paths
        ]
        alignment_loss = tf.add_n(by_layer) if by_layer else tf.zeros(())
        rated = [self.loss_rate(global_step) * loss]
        if len(self.optimizers) == 2:
            rated.append(self.alignment_rate(global_step) * alignment_loss)
        elif by_layer:
            rated[0] += self.alignment_rate(global_step) * alignment_loss
        return rated, tf.stack([loss, alignment_loss, *by_layer])


class Validation:
    """Sums over a batch of what validation measures, examples of weight 0 left out.

    Args:
        model: ends in logits.
        loss: a name of `losses.get`.
    """

    measured: ClassVar[tuple[str, ...]] = ("val_loss", "val_top1", "val_top5")

    def __init__(self, model: keras.Model, loss: str = "softmax") -> None:
        self.model = model
        self._loss = losses.get(loss)

    def __call__(self, images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Measures a batch.

        Args:
            images: this replica's batch.
            labels: int32 `[batch]`.
            weights: float32 `[batch]`, 1 or 0.

        Returns:
            float32: summed loss, examples right, examples right among the first five, and
            the number of examples.
        """
        logits = tf.cast(self.model(images, training=False), "float32")
        right = tf.gather(logits, labels, batch_dims=1)[:, None]
        rank = tf.reduce_sum(tf.cast(logits > right, "float32"), axis=1)
        # Of equal logits the first class wins, as in argmax.
        classes = tf.range(logits.shape[1], dtype=labels.dtype)[None, :]
        tied = tf.logical_and(logits == right, classes < labels[:, None])
        rank += tf.reduce_sum(tf.cast(tied, "float32"), axis=1)
        values = [
            tf.where(weights > 0.0, self._loss(labels, logits), 0.0),
            weights * tf.cast(rank < 1.0, "float32"),
            weights * tf.cast(rank < 5.0, "float32"),
            weights,
        ]
        return tf.stack([tf.reduce_sum(value) for value in values])


def _weights(model: keras.Model) -> list[Any]:
    """The trainable weights that are not the rule's."""
    return [
        variable
        for variable in model.trainable_variables
        if not any(re.search(pattern, variable.path) for pattern in ALIGNMENT_PATTERNS)
    ]


def _is_bias(variable: Any) -> bool:
    return variable.path.rpartition("/")[2] == "bias"
