"""What a site draws: initial values that are independent of each other, and noise."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import keras
from keras import ops

from neural_alignment import backend
from neural_alignment.layers.collector import TrainingStep

Tensor = Any


def independent(initializer: Any, salt: str) -> Any:
    """An initializer with another seed: one instance gives the same values at every call.

    Args:
        initializer: of Keras, or any other, which stays as it is.
        salt: which draw.

    Returns:
        An initializer.
    """
    if not isinstance(initializer, keras.initializers.Initializer):
        return initializer
    config = initializer.get_config()
    if config.get("seed", 0) is None:
        return type(initializer).from_config(config)
    if isinstance(config.get("seed"), int):
        salted = _stable_hash(config["seed"], salt)
        return type(initializer).from_config({**config, "seed": salted})
    return initializer


def noise_state(shape: tuple[int, ...], dtype: Any = None) -> Tensor:
    """Initializer: a random number that tells layers apart, and a count of steps from 0.

    Args:
        shape: `(2,)`.
        dtype: None is int32.

    Returns:
        A tensor `[2]`.
    """
    del shape
    # Python's generator, as Keras's initializers: `keras.utils.set_random_seed` sets it in every
    # version, Keras's own global one only in the newer.
    return ops.convert_to_tensor([random.randrange(2**31 - 1), 0], dtype or "int32")


def seed_of_step(step: TrainingStep, path: str) -> Tensor:
    """The seed of a site's draws in a training step.

    Args:
        step: gives the run's seed, the global step and the micro-batch.
        path: of the site.

    Returns:
        int32 `[2]`: a hash of run, site, replica and micro-batch, and the step.
    """
    base = of_replica(_stable_hash(step.seed, path))
    base = base + ops.cast(step.draw, "int32") * 0x1B873593
    return ops.stack([base, ops.cast(step.global_step, "int32")])


def of_replica(base: Tensor | int) -> Tensor:
    """A number of this replica's own.

    Args:
        base: of all replicas.

    Returns:
        An int32 scalar.
    """
    # A large odd factor keeps the seeds of replicas away from those of other draws.
    return ops.cast(base, "int32") + ops.cast(backend.replica(), "int32") * 0x3C6EF35F


def _stable_hash(*parts: Any) -> int:
    """A number in [0, 2^31) that is the same in every process."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFFFFFF
