"""Whether the step of a job is compiled with XLA: as `--jit_compile` says, or by what is faster."""

from __future__ import annotations

import keras
import tensorflow as tf

from neural_alignment import keras_private
from neural_alignment.config import UsageError
from neural_alignment.training.strategy import compiles_itself


def is_compiled(choice: str, strategy: tf.distribute.Strategy, model: keras.Model) -> bool:
    """Whether forward and backward pass are compiled.

    On GPUs and TPUs XLA makes a step several times as fast. On a CPU it makes one slower, with
    convolutions and without (docs/cost.md).

    Args:
        choice: "true", "false", or "auto": on GPUs and TPUs.
        strategy: the devices.
        model: that is trained.

    Returns:
        Whether they are.

    Raises:
        UsageError: "true", and layers whose replicas exchange statistics within the step.
    """
    if choice == "false" or compiles_itself(strategy):
        return compiles_itself(strategy)  # on a TPU whatever is asked for
    exchanging = _synchronized(model) if strategy.num_replicas_in_sync > 1 else []
    if exchanging and choice == "true":
        raise UsageError(
            "--jit_compile: expected BatchNormalization without synchronized=True, as XLA cannot "
            f"compile what {strategy.num_replicas_in_sync} devices exchange within a step; or "
            f"false. Received: true, and {', '.join(exchanging)}"
        )
    if exchanging or choice == "true":
        return not exchanging
    return _accelerated(strategy)


def _accelerated(strategy: tf.distribute.Strategy) -> bool:
    types = {
        tf.DeviceSpec.from_string(device).device_type for device in strategy.extended.worker_devices
    }
    return types != {"CPU"}


def _synchronized(model: keras.Model) -> list[str]:
    return [
        layer.path
        for layer in keras_private.flatten_layers(model)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.synchronized
    ]
