"""Batch normalisation as TensorFlow 1 did it."""

from __future__ import annotations

from typing import Any

import keras

from neural_alignment.lazy import tf


@keras.saving.register_keras_serializable(package="neural_alignment")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's BatchNormalization with the two habits of TensorFlow 1's.

    In training `y = gamma * (x - m) / sqrt(v + epsilon) + beta` with the batch's mean m and
    variance v, and

        moving_mean     <- momentum * moving_mean     + (1 - momentum) * m
        moving_variance <- momentum * moving_variance + (1 - momentum) * v * n / (n - 1)

    n being the number of values a channel is averaged over. Each replica takes its own batch's
    statistics; with `synchronized`, all take those of the global batch.

    `frozen` is the original's `bn_trainable=False`: training still normalises by the batch's
    statistics, gamma and beta are not trained, and the moving statistics stay what they are (0
    and 1 in a new model, which inference then uses). Keras's `trainable = False` is something
    else, and works too: there training normalises by the moving statistics.

    Args:
        unbiased_variance: feed the moving variance with `v * n / (n - 1)`, as TensorFlow 1 and
            PyTorch do; False is Keras's own `v`.
        frozen: normalise by the batch, train and update nothing.
        **kwargs: every other argument of `keras.layers.BatchNormalization`, save `renorm`.

    Raises:
        ValueError: `renorm=True`.
    """

    def __init__(
        self, *, unbiased_variance: bool = True, frozen: bool = False, **kwargs: Any
    ) -> None:
        if kwargs.get("renorm"):
            raise ValueError(
                "Expected batch normalisation without renorm. Received: renorm=True. Use "
                "keras.layers.BatchNormalization for it."
            )
        super().__init__(**kwargs)
        self.unbiased_variance = unbiased_variance
        self.frozen = frozen

    def add_weight(self, *args: Any, **kwargs: Any) -> Any:
        """Keras's; no weight is trainable where the layer is frozen."""
        if self.frozen:
            kwargs["trainable"] = False
        return super().add_weight(*args, **kwargs)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Normalises by the batch in training, else by the moving statistics."""
        if not (training and self.trainable):
            return super().call(inputs, training=False)
        ops = keras.ops
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        axis = self.axis % len(x.shape)
        axes = [i for i in range(len(x.shape)) if i != axis]
        mean, variance = ops.moments(x, axes=axes, synchronized=self.synchronized)
        if not self.frozen:
            self._update(mean, self._fed_variance(variance, ops.shape(x), axes))
        outputs = ops.batch_normalization(
            x,
            mean,
            variance,
            axis=axis,
            offset=None if self.beta is None else ops.cast(self.beta, x.dtype),
            scale=None if self.gamma is None else ops.cast(self.gamma, x.dtype),
            epsilon=self.epsilon,
        )
        return ops.cast(outputs, self.compute_dtype)

    def _fed_variance(self, variance: Any, shape: tuple[Any, ...], axes: list[int]) -> Any:
        if not self.unbiased_variance:
            return variance
        count = 1.0
        for axis in axes:
            count = count * keras.ops.cast(shape[axis], variance.dtype)
        if self.synchronized:  # which Keras offers on TensorFlow alone
            context = tf.distribute.get_replica_context()
            if context is not None:  # None: Keras averages over this batch
                count = count * context.num_replicas_in_sync
        return variance * (count / keras.ops.maximum(count - 1.0, 1.0))

    def _update(self, mean: Any, variance: Any) -> None:
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            old = keras.ops.cast(moving, value.dtype)
            moving.assign(old * self.momentum + value * (1.0 - self.momentum))

    def get_config(self) -> dict[str, Any]:
        """Every constructor argument."""
        return {
            **super().get_config(),
            "unbiased_variance": self.unbiased_variance,
            "frozen": self.frozen,
        }
