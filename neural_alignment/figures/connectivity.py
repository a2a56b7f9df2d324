"""How forward and feedback weights correlate where pairs are connected one way or both ways.

[P] appendix B: of the connected pairs of neurons in a rat's visual cortex 69 % are connected one
way, and 31 % both ways with weights that correlate by 0.36 (Song et al. 2005).
"""

from __future__ import annotations

import math

import numpy as np

ONE_WAY, BOTH_WAYS, CORRELATION = 0.69, 0.31, 0.36


def _check(one_way: float, both_ways: float, correlation: float) -> None:
    if min(one_way, both_ways) < 0.0 or not math.isclose(one_way + both_ways, 1.0):
        raise ValueError(
            "Expected shares of the connected pairs, one_way + both_ways = 1. "
            f"Received: {one_way!r}, {both_ways!r}"
        )
    if not -1.0 <= correlation <= 1.0:
        raise ValueError(f"Expected a correlation in [-1, 1]. Received: {correlation!r}")


def pair_correlation(one_way: float, both_ways: float, correlation: float) -> float:
    """The correlation of forward and feedback weights over all connected pairs.

    A pair connected one way has 0 for the other weight; half of them lack the forward one. With
    weights of mean 0 and one variance, the covariance comes from the others alone:

        r = both_ways * correlation / (one_way / 2 + both_ways)

    Args:
        one_way: share of the connected pairs that are connected one way.
        both_ways: share that is connected both ways; the two add up to 1.
        correlation: of the weights of pairs connected both ways.

    Returns:
        r.

    Raises:
        ValueError: shares that do not add up, or no correlation.
    """
    _check(one_way, both_ways, correlation)
    return both_ways * correlation / (one_way / 2.0 + both_ways)


def pair_angle(correlation: float) -> float:
    """The angle of two weight vectors of mean 0 that correlate, `acos r`.

    Args:
        correlation: r; what rounding leaves beyond -1 and 1 is that.

    Returns:
        Degrees.

    Raises:
        ValueError: no correlation.
    """
    if not abs(correlation) <= 1.0 + 1e-6:
        raise ValueError(f"Expected a correlation in [-1, 1]. Received: {correlation!r}")
    return math.degrees(math.acos(min(1.0, max(-1.0, correlation))))


def sample_pairs(
    one_way: float,
    both_ways: float,
    correlation: float,
    pairs: int,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the weights of connected pairs.

    Args:
        one_way: share of the pairs that are connected one way, half of them each way.
        both_ways: share of those connected both ways.
        correlation: of the weights of the latter.
        pairs: how many.
        generator: of random numbers.

    Returns:
        Forward and feedback weights, each `[pairs]`, 0 where there is no connection.

    Raises:
        ValueError: shares that do not add up, or no correlation.
    """
    _check(one_way, both_ways, correlation)
    w, other = generator.standard_normal((2, pairs))
    b = correlation * w + math.sqrt(1.0 - correlation**2) * other
    kind = generator.random(pairs)
    lacks_forward = kind < one_way / 2.0
    lacks_feedback = (kind >= one_way / 2.0) & (kind < one_way)
    return np.where(lacks_forward, 0.0, w), np.where(lacks_feedback, 0.0, b)
