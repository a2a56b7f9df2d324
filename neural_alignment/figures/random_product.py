"""What a random product path does to a kernel: `B = R Q` with `R = W Q^T` ([P] figure 3)."""

from __future__ import annotations

import math

import numpy as np

_ROWS_AT_ONCE = 4096


def _check(expansion: float) -> float:
    if not expansion >= 1.0:
        raise ValueError(f"Expected expansion >= 1. Received: {expansion!r}")
    return 1.0 / expansion


def _check_units(inputs: int, outputs: int, expansion: float) -> None:
    if inputs < 1 or outputs < 1 or math.isinf(expansion):
        raise ValueError(
            "Expected a unit at least and a finite expansion. Received: "
            f"{inputs!r} by {outputs!r}, {expansion!r}"
        )


def marchenko_pastur_edges(expansion: float) -> tuple[float, float]:
    """The ends of the spectrum of `Q^T Q` for many units, `(1 ± sqrt(1 / expansion))^2`.

    Args:
        expansion: rows of Q over its columns, at least 1.

    Returns:
        (lower, upper).

    Raises:
        ValueError: an expansion below 1.
    """
    root = math.sqrt(_check(expansion))
    return (1.0 - root) ** 2, (1.0 + root) ** 2


def marchenko_pastur_density(eigenvalues: np.ndarray, expansion: float) -> np.ndarray:
    """The density of the spectrum of `Q^T Q`, with the ratio `r = 1 / expansion`.

        p(e) = sqrt((upper - e) (e - lower)) / (2 pi r e)        between the edges

    Args:
        eigenvalues: e, positive.
        expansion: at least 1.

    Returns:
        p, of e's shape; 0 outside, and infinite at the lower edge 0 of an expansion of 1.

    Raises:
        ValueError: an expansion below 1.
    """
    lower, upper = marchenko_pastur_edges(expansion)
    e = np.asarray(eigenvalues, float)
    within = (e >= lower) & (e <= upper)
    inside = np.sqrt(np.where(within, (upper - e) * (e - lower), 0.0))
    with np.errstate(divide="ignore"):
        density = inside * expansion / (2.0 * math.pi * np.where(e == 0.0, 1.0, e))
    return np.where(within & (e == 0.0), math.inf, density)


def gram(outputs: int, expansion: float, generator: np.random.Generator) -> np.ndarray:
    """`G = Q^T Q` of a random Q `[expansion * outputs, outputs]` of variance 1 / rows an element.

    Args:
        outputs: columns of Q.
        expansion: rows over columns, at least 1; rows are rounded up.
        generator: of random numbers.

    Returns:
        `[outputs, outputs]`.

    Raises:
        ValueError: an expansion below 1 or without end, or no outputs.
    """
    _check(expansion)
    _check_units(1, outputs, expansion)
    rows = math.ceil(expansion * outputs)
    made = np.zeros((outputs, outputs))
    for begin in range(0, rows, _ROWS_AT_ONCE):  # Q as a whole may be large
        q = generator.standard_normal((min(_ROWS_AT_ONCE, rows - begin), outputs))
        made += q.T @ q
    return made / rows


def path_angle(expansion: float) -> float:
    """The angle of W and the path `W Q^T Q` for a random W of many units.

        cos = tr G / sqrt(N tr G^2) = 1 / sqrt(1 + 1 / expansion)

    17.55 degrees at an expansion of 10.

    Args:
        expansion: at least 1.

    Returns:
        Degrees.

    Raises:
        ValueError: an expansion below 1.
    """
    return math.degrees(math.acos(1.0 / math.sqrt(1.0 + _check(expansion))))


def measured_path_angle(
    inputs: int, outputs: int, expansion: float, generator: np.random.Generator
) -> float:
    """The angle of a random W and its path `W Q^T Q`.

    Args:
        inputs: rows of W.
        outputs: columns of W.
        expansion: at least 1.
        generator: of random numbers.

    Returns:
        Degrees.

    Raises:
        ValueError: an expansion below 1 or without end, or no units.
    """
    _check_units(inputs, outputs, expansion)
    w = generator.standard_normal((inputs, outputs))
    b = w @ gram(outputs, expansion, generator)
    cosine = np.vdot(w, b) / (np.linalg.norm(w) * np.linalg.norm(b))
    return math.degrees(math.acos(min(1.0, cosine)))
