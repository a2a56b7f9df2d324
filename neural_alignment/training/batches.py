"""Batches for the replicas of a strategy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def distribute(
    strategy: tf.distribute.Strategy, make: Callable[[tf.distribute.InputContext], tf.data.Dataset]
) -> Any:
    """The batches of every replica, to iterate over.

    Args:
        strategy: the devices.
        make: makes a worker's batches.

    Returns:
        Something to iterate over, in a `tf.function` too.
    """
    if isinstance(strategy, tf.distribute.OneDeviceStrategy):
        (device,) = strategy.extended.worker_devices
        if tf.DeviceSpec.from_string(device).device_type == "CPU":
            # Nothing to copy to: TensorFlow's iterator over devices takes a tenth of a second to
            # start and end, an epoch of a small data set.
            return make(tf.distribute.InputContext())
    return strategy.distribute_datasets_from_function(make)


def split(batches: tf.data.Dataset, parts: int) -> tf.data.Dataset:
    """Cuts every batch in equal parts, one for each replica of this worker, in order.

    Args:
        batches: of tensors whose first axis is a multiple of `parts`.
        parts: how many.

    Returns:
        The parts, read ahead.
    """
    if parts > 1:

        def cut(*tensors: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return tuple(tf.reshape(x, (parts, x.shape[0] // parts, *x.shape[1:])) for x in tensors)

        batches = batches.map(cut).unbatch()
    return batches.prefetch(tf.data.AUTOTUNE)
