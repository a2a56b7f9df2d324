"""Checks of constructor arguments. Imports nothing heavy."""

from __future__ import annotations

import math
import numbers
from typing import Any


def number(
    name: str,
    value: Any,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> float:
    """A finite number within bounds, as a float.

    Args:
        name: of the argument, for the message.
        value: what was given.
        at_least: lower bound, included.
        above: lower bound, excluded.
        at_most: upper bound, included.
        below: upper bound, excluded.

    Returns:
        The value.

    Raises:
        ValueError: not a finite number, or out of bounds.
    """
    bounds = [
        f"{sign} {bound:g}"
        for sign, bound in ((">=", at_least), (">", above), ("<=", at_most), ("<", below))
        if bound is not None
    ]
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (
        is_number
        and math.isfinite(value)
        and (at_least is None or value >= at_least)
        and (above is None or value > above)
        and (at_most is None or value <= at_most)
        and (below is None or value < below)
    ):
        expected = " ".join(["a finite number", " and ".join(bounds)]).strip()
        raise ValueError(f"Expected {name} to be {expected}. Received: {name}={value!r}")
    return float(value)


def integer(name: str, value: Any, *, at_least: int) -> int:
    """An integer not below a bound.

    Args:
        name: of the argument, for the message.
        value: what was given.
        at_least: lower bound, included.

    Returns:
        The value.

    Raises:
        ValueError: not an integer, or too small.
    """
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_integer or value < at_least:
        raise ValueError(
            f"Expected {name} to be an integer >= {at_least}. Received: {name}={value!r}"
        )
    return int(value)


def choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """One of a few strings.

    Args:
        name: of the argument, for the message.
        value: what was given.
        choices: what it may be.

    Returns:
        The value.

    Raises:
        ValueError: another value.
    """
    if value not in choices:
        raise ValueError(
            f"Expected {name} to be one of {', '.join(choices)}. Received: {name}={value!r}"
        )
    return value


def learning_rate(value: Any) -> Any:
    """A learning rate as Keras takes it: a float, a schedule or a callable.

    Args:
        value: a finite number >= 0, or a callable (schedules are).

    Returns:
        The float, or the callable itself.

    Raises:
        ValueError: a number that is negative or not finite, or something else.
    """
    if callable(value):
        return value
    return number("learning_rate", value, at_least=0.0)
