"""Where a callback reaches into Keras's training: each with its undoing."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import keras


def wrap(
    model: keras.Model,
    name: str,
    owner: str,
    make: Callable[[Callable[..., Any]], Callable[..., Any]],
) -> Callable[[], None]:
    """Puts a function around a method of one model.

    Args:
        model: whose method.
        name: of the method.
        owner: who does so; what it has left there, in a training that failed, is taken off first.
        make: from what stands there to the function.

    Returns:
        Takes it off again.
    """
    unwrap(model, name, owner)
    before = getattr(model, name)
    wrapped = functools.wraps(before)(make(before))
    wrapped.owner = owner
    object.__setattr__(model, name, wrapped)
    return lambda: unwrap(model, name, owner)


def unwrap(model: keras.Model, name: str, owner: str) -> None:
    """Takes an owner's function off a method of one model, if it is the outermost.

    Args:
        model: whose method.
        name: of the method.
        owner: who put it there.
    """
    own = model.__dict__.get(name)
    if getattr(own, "owner", None) != owner:
        return
    before = own.__wrapped__
    if getattr(before, "__self__", None) is model:  # the class's method
        object.__delattr__(model, name)
    else:
        object.__setattr__(model, name, before)


def variable_scope(model: keras.Model) -> contextlib.AbstractContextManager:
    """Where variables beside the model's are made: in its distribution strategy's scope.

    Args:
        model: any.

    Returns:
        A context manager.
    """
    strategy = getattr(model, "distribute_strategy", None)  # TensorFlow's alone
    return contextlib.nullcontext() if strategy is None else strategy.scope()
