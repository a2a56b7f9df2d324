"""The variables of a model by the names that they have in a checkpoint."""

from __future__ import annotations

import itertools
import re
from typing import Any

import keras

_SEED_GENERATOR = re.compile(r"seed_generator(_\d+)?/")


def model_variables(model: keras.Model) -> dict[str, Any]:
    """The variables of a model by their names in a checkpoint.

    Args:
        model: built.

    Returns:
        `model/LAYER/NAME` to variable.

    Raises:
        ValueError: two variables have the same path.
    """
    generators = itertools.count()
    named = {}
    for variable in model.variables:
        path = variable.path
        if _SEED_GENERATOR.match(path):  # Keras numbers these over the process, not the model
            path = f"seed_generator_{next(generators)}/{variable.name}"
        named[f"model/{path}"] = variable
    if len(named) != len(model.variables):
        raise ValueError("Expected variables with paths of their own. Name the layers apart.")
    return named
