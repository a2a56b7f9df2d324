"""Training steps to be timed, compiled ahead of their first call: on JAX, or on TensorFlow."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

_LEARNING_RATE, _MOMENTUM = 1e-3, 0.9


@dataclasses.dataclass
class Contestant:
    """A compiled training step.

    Args:
        run: some steps, to their end.
        steps: how many those are.
        compile_seconds: that tracing and compiling took.
        mebibytes: the step's peak of memory, where it is known.
        multiplications: of a step.
    """

    run: Callable[[], None]
    steps: int
    compile_seconds: float
    mebibytes: float | None = None
    multiplications: float = 0.0


def device() -> tuple[str, bool]:
    """What is measured, in a line, and whether it is something else than a CPU."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        first = jax.devices()[0]
        names, version = f"{jax.device_count()} x {first.device_kind}", jax.__version__
        is_cpu = first.platform == "cpu"
    else:
        import tensorflow as tf

        found = tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("CPU")
        details = tf.config.experimental.get_device_details(found[0])
        names = f"{len(found)} x {details.get('device_name', found[0].device_type)}"
        version, is_cpu = tf.__version__, found[0].device_type == "CPU"
    versions = f"{backend} {version}, Keras {keras.__version__}, Python {platform.python_version()}"
    return f"{names}; {versions}", not is_cpu


def building() -> contextlib.AbstractContextManager[Any]:
    """Where models are made: on JAX on the CPU, as each operation is compiled for its device."""
    if keras.backend.backend() != "jax":
        return contextlib.nullcontext()
    import jax

    try:
        cpu = jax.devices("cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        return contextlib.nullcontext()
    return jax.default_device(cpu)


def of_backend(mode: str) -> Callable[[keras.Model, Any], Contestant]:
    """What makes a contestant of a model.

    Args:
        mode: "xla", or "graph" on TensorFlow.

    Returns:
        A function of a model and a `gpu.Work`.
    """
    if keras.backend.backend() == "jax":
        return _on_jax
    return lambda model, work: _on_tensorflow(model, work, jit=mode == "xla")


def _batch(work: Any) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(work.batch, *work.input_shape)).astype("float32")
    return images, rng.integers(work.classes, size=work.batch).astype("int32")


def _on_jax(model: keras.Model, work: Any) -> Contestant:
    """A step as a plain `fit` makes it: R is among the model's losses."""
    import jax
    import jax.numpy as jnp

    began = time.monotonic()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def total(trainable: list, rest: list, images: Any, labels: Any) -> tuple[Any, list]:
        logits, rest, losses = model.stateless_call(
            trainable, rest, images, training=True, return_losses=True
        )
        return sum(losses, loss(labels, logits)), rest

    def step(state: tuple, images: Any, labels: Any) -> tuple:
        trainable, rest, slots, _ = state
        (value, rest), gradients = jax.value_and_grad(total, has_aux=True)(
            trainable, rest, images, labels
        )
        slots = [_MOMENTUM * v + g for v, g in zip(slots, gradients, strict=True)]
        trainable = [
            w - _LEARNING_RATE * (g + _MOMENTUM * v)
            for w, g, v in zip(trainable, gradients, slots, strict=True)
        ]
        return trainable, rest, slots, value

    def steps(state: tuple, images: Any, labels: Any) -> tuple:
        if work.steps == 1:
            return step(state, images, labels)
        return jax.lax.fori_loop(0, work.steps, lambda _, s: step(s, images, labels), state)

    # Copies on the accelerator: the step takes its state's memory over.
    here = jax.devices()[0]
    trainable, rest = (
        [jax.device_put(np.asarray(variable.value), here) for variable in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    )
    slots = [jnp.zeros_like(w) for w in trainable]
    images, labels = (jax.device_put(one, here) for one in _batch(work))
    state = trainable, rest, slots, jnp.zeros((), "float32")
    compiled = jax.jit(steps, donate_argnums=0).lower(state, images, labels).compile()
    memory = compiled.memory_analysis()
    held = [state]
    del state, trainable, rest, slots

    def run() -> None:
        held[0] = compiled(held[0], images, labels)
        jax.block_until_ready(held[0][-1])

    mebibytes = None
    if memory is not None:
        mebibytes = (
            memory.temp_size_in_bytes
            + memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            - memory.alias_size_in_bytes
        ) / 2**20
    return Contestant(run, work.steps, time.monotonic() - began, mebibytes)


def _on_tensorflow(model: keras.Model, work: Any, jit: bool) -> Contestant:
    """A step as the package's own trainer makes it; its peak is the device's."""
    import tensorflow as tf

    from benchmarks import steps

    began = time.monotonic()
    step = steps.training_step(model, jit=jit)
    images, labels = (tf.constant(one) for one in _batch(work))
    step.get_concrete_function(images, labels)
    if jit:  # the first call compiles
        step(images, labels)[0].numpy()
    gpus = tf.config.list_logical_devices("GPU")

    def run() -> None:
        if gpus:
            tf.config.experimental.reset_memory_stats(gpus[0].name)
        step(images, labels)[0].numpy()
        if gpus:
            peak = tf.config.experimental.get_memory_info(gpus[0].name)["peak"]
            contestant.mebibytes = peak / 2**20

    contestant = Contestant(run, 1, time.monotonic() - began)
    return contestant
