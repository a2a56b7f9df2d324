"""Gradients of a function that reads Keras variables, on any back end."""

import keras
import numpy as np

from neural_alignment import backend


def gradients(function, sources):
    """The function's value, what else it gives, and its gradients by name.

    Args:
        function: of the sources' values by name; gives a scalar and a dict of tensors. Variables
            have these values while it runs.
        sources: name to an array or a `keras.Variable`.

    Returns:
        Value, dict, and name to gradient: arrays, None where a back end gives none.
    """
    names = list(sources)
    variables = {n: v for n, v in sources.items() if isinstance(v, keras.Variable)}
    tensors = [keras.ops.convert_to_tensor(keras.ops.convert_to_numpy(sources[n])) for n in names]

    def bound(values):
        named = dict(zip(names, values, strict=True))
        with keras.StatelessScope(state_mapping=[(v, named[n]) for n, v in variables.items()]):
            return function(named)

    (value, other), found = backend.value_and_gradients(bound, tensors)
    numpy = keras.ops.convert_to_numpy
    other = {name: np.asarray(numpy(tensor)) for name, tensor in other.items()}
    by_name = {
        name: None if gradient is None else np.asarray(numpy(gradient))
        for name, gradient in zip(names, found, strict=True)
    }
    return float(numpy(value)), other, by_name
