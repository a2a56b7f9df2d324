"""The only words of TensorFlow, JAX and PyTorch below `training`: one module each, the same names.

    read                 a variable's value, read once
    two_kernels          a map forward with one kernel, backward with another
    input_gradient       `dy K^T`
    kernel_gradient      `x^T dy`
    after                an input that waits until variables are read
    records_gradients    whether what is computed now will be differentiated
    sum_of_squares       in one pass over the weights
    random_mantissas     Philox's bits, equal on every back end
    value_and_gradients  of a function of tensors
    momentum_step        the fused update
    LayerLosses          where a layer keeps its losses
    provide_step         the number of updates, for layers in `fit`
    replica              which one this is; replica_number, while tracing

The module is that of `keras.backend.backend()`, imported when a name is first used. What two of
them do alike is in `common`.
"""

from __future__ import annotations

import importlib
import types
from typing import Any

_NAMES = ("tensorflow", "jax", "torch")


def module() -> types.ModuleType:
    """The module of Keras's back end.

    Returns:
        `neural_alignment.backend.tensorflow`, `.jax` or `.torch`.

    Raises:
        ImportError: Keras runs on another back end.
    """
    import keras

    name = keras.backend.backend()
    if name not in _NAMES:
        raise ImportError(
            f"Expected Keras on one of {', '.join(_NAMES)}. Received: KERAS_BACKEND={name!r}"
        )
    return importlib.import_module(f"{__name__}.{name}")


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(module(), name)
    globals()[name] = value  # Keras's back end does not change in a process
    return value
