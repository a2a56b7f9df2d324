"""Checks that a copy of a model computes what the model computes."""

from __future__ import annotations

import contextlib
import dis
import inspect
import types
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from neural_alignment import keras_private
from neural_alignment.layers import parts

# Lengths to try for axes of no fixed length; deep networks need many positions.
_LENGTHS = (8, 64, 160)
# Of the largest output: the copy runs the same operations, which devices may order anew.
_TOLERANCES = {"float16": 2e-2, "bfloat16": 5e-2}


def check_held(model: keras.Model) -> None:
    """Refuses functions that use a layer or weight of the model behind Keras's back.

    Args:
        model: to be copied; the copy would use the model's own.

    Raises:
        ValueError: such a function, by its layer.
    """
    layers = [model, *keras_private.flatten_layers(model)]
    held = {id(layer) for layer in layers} | {id(variable) for variable in model.variables}
    for layer in layers:
        for name, function in parts.own_functions(layer):
            if any(id(value) in held for value in _used_by(function)):
                raise ValueError(
                    "Expected functions that hold no layer and no weight of the model, which a "
                    f"copy would share. Received: {name!r} of layer {parts.described(layer)}. Make "
                    "it a layer, or call the layer it holds in the model."
                )


def _used_by(function: types.FunctionType) -> Iterator[Any]:
    values = [function.__defaults__, function.__kwdefaults__]
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # not filled
            values.append(cell.cell_contents)
    values += [function.__globals__.get(name) for name in _global_names(function.__code__)]
    yield from parts.flat(values)


def _global_names(code: types.CodeType) -> Iterator[str]:
    """Of a function's code and of functions inside it; `co_names` has attributes as well."""
    for instruction in dis.get_instructions(code):
        if instruction.opname == "LOAD_GLOBAL":
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def check_arguments(layer: keras.layers.Layer, copy: keras.layers.Layer) -> None:
    """Refuses a copy of a user's class that was made with other settings than the layer.

    Keras's own configs have every argument. Of a model, which is made without its config, every
    public attribute counts, unless the class has a `compile` of its own to set some.

    Args:
        layer: of the model.
        copy: its copy.

    Raises:
        ValueError: an argument that the config leaves out, an attribute that the model was given.
    """
    cls = type(layer)
    if cls is not type(copy) or parts.is_keras_own(cls):
        return
    # A copy has the layer's name, unless it was given another.
    names = [name for name in inspect.signature(cls.__init__).parameters if name != "name"]
    if parts.is_graph(layer) and cls.compile is keras.Model.compile:
        known = {*parts.bookkeeping(), "input_names", "output_names"}
        names += [name for name in vars(layer) if name not in known]
    for name in names:
        public = name in vars(layer) and not name.startswith(("_", "stop_"))
        if public and not _same(vars(layer)[name], vars(copy).get(name)):
            raise ValueError(
                f"Expected {name}={vars(layer)[name]!r} in the copy of layer "
                f"{parts.described(layer)}. Received: {vars(copy).get(name)!r}, since its config "
                "leaves it out. Add it to `get_config`; of a model, give keras.Model(model.inputs, "
                "model.outputs)."
            )


def _same(value: Any, other: Any) -> bool:
    """Whether plain values are equal; of others nothing is known."""
    plain = (bool, int, float, str, type(None), np.ndarray, np.generic)
    flat = parts.flat(value)
    if not all(isinstance(part, plain) for part in flat):
        return True
    others = parts.flat(other)
    return len(flat) == len(others) and all(
        np.array_equal(a, b) for a, b in zip(flat, others, strict=True)
    )


def check_function(model: keras.Model, copy: keras.Model) -> None:
    """Compares the outputs of a model and its copy on a made-up batch; both stay as they were.

    A model that takes no such batch, or is not the same twice, cannot be compared.

    Args:
        model: a built model.
        copy: with the same weights.

    Raises:
        ValueError: outputs differ, by more than rounding.
    """
    for batch in _batches(model):
        try:
            expected = _outputs(model, batch)
        except Exception:  # noqa: BLE001  (whatever a model makes of a batch that is not its data)
            continue
        received = _outputs(copy, batch)
        if _close(expected, received):
            return
        if _close(expected, _outputs(model, batch)):
            raise ValueError(
                f"Expected a copy that computes what model {model.name!r} does. Received: other "
                f"outputs, with equal weights. {_first_difference(model, copy, batch)}"
            )
        return


def _batches(model: keras.Model) -> Iterator[Any]:
    try:
        inputs = model.input if isinstance(model, keras.Function) else model.inputs[0]
    except (AttributeError, IndexError):
        return
    shapes = [tensor.shape for tensor in keras.tree.flatten(inputs)]
    free = any(size is None for shape in shapes for size in shape[1:])
    for length in _LENGTHS if free else _LENGTHS[:1]:
        generator = np.random.default_rng(0)
        yield keras.tree.map_structure(
            lambda tensor, length=length, generator=generator: _draw(tensor, length, generator),
            inputs,
        )


def _draw(tensor: keras.KerasTensor, length: int, generator: np.random.Generator) -> Any:
    shape = [2, *tensor.shape[1:]] if tensor.shape[0] is None else tensor.shape
    shape = [length if size is None else size for size in shape]
    if tensor.dtype == "string":
        return np.full(shape, "a")
    if keras.backend.is_float_dtype(tensor.dtype):
        return keras.ops.cast(generator.normal(size=shape), tensor.dtype)
    return keras.ops.cast(generator.integers(0, 2, size=shape), tensor.dtype)


def _outputs(model: keras.Model, batch: Any) -> list[np.ndarray]:
    layers = [model, *keras_private.flatten_layers(model)]
    with (
        keras_private.losses_kept(layers),
        keras.StatelessScope(),
        warnings.catch_warnings(action="ignore"),
    ):
        outputs = model(batch, training=False)
    return [np.asarray(keras.ops.convert_to_numpy(value)) for value in keras.tree.flatten(outputs)]


def _close(expected: list[np.ndarray], received: list[np.ndarray]) -> bool:
    return len(expected) == len(received) and all(map(_close_arrays, expected, received))


def _close_arrays(expected: np.ndarray, received: np.ndarray) -> bool:
    if expected.shape != received.shape or expected.dtype != received.dtype:
        return False
    if expected.tobytes() == received.tobytes():
        return True
    if not keras.backend.is_float_dtype(str(expected.dtype)):
        return False
    tolerance = _TOLERANCES.get(str(expected.dtype), 1e-3)
    a, b = expected.astype("float64"), received.astype("float64")
    scale = np.max(np.abs(a[np.isfinite(a)]), initial=0.0)
    return bool(np.allclose(a, b, rtol=0.0, atol=tolerance * scale, equal_nan=True))


def _first_difference(model: keras.Model, copy: keras.Model, batch: Any) -> str:
    """Names the first layer whose output differs, where the model has a graph to run."""
    try:
        expected, received = (_by_operation(side, batch) for side in (model, copy))
    except Exception:  # noqa: BLE001  (the error that this one would explain is raised anyway)
        return ""
    for name, outputs in expected.items():
        if not _close(outputs, received.get(name, [])):
            return f"They differ from layer {name!r} on: its config leaves something out."
    return ""


def _by_operation(model: keras.Model, batch: Any) -> dict[str, list[np.ndarray]]:
    found: dict[str, list[np.ndarray]] = {}

    def call(operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        outputs = operation(*args, **kwargs)
        values = [keras.ops.convert_to_numpy(value) for value in keras.tree.flatten(outputs)]
        found.setdefault(operation.name, values)
        return outputs

    graph = keras.Model(model.inputs, model.outputs)
    inputs = [keras.ops.convert_to_tensor(value) for value in keras.tree.flatten(batch)]
    layers = [model, *keras_private.flatten_layers(model)]
    with keras_private.losses_kept(layers), keras.StatelessScope():
        keras_private.run_graph(graph, inputs, call, lambda operation: operation)
    return found
