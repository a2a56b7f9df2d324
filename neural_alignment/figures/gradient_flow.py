"""Gradient flow of the alignment losses in one dimension ([K] appendix D.1, figure 2).

With a scalar input x and scalar weights w and b,

    R_SA = decay_coef (w^2 + b^2) - self_coef w b
    R_AA = x^2 (sparse_coef (w^2 + b^2) - amp_coef w b)
    R_WM = decay_coef (w^2 + b^2) - amp_coef x^2 w b

and the flow that lets both weights follow their gradient is linear, d/dt (w, b) = -A (w, b). A has
the eigenvectors u = (1, 1) / sqrt 2, along which w = b, and v = (1, -1) / sqrt 2, along which they
differ: a positive eigenvalue shrinks its direction, a negative one lets it grow without bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

# [K]'s: R_SA = (w - b)^2 / 2, R_AA = (x w - x b)^2 / 2, R_WM = lambda (w^2 + b^2) / 2 - x^2 w b
# with lambda = 1.
PUBLISHED: Mapping[str, Mapping[str, float]] = {
    "symmetric": {"decay_coef": 0.5, "self_coef": 1.0},
    "activation": {"sparse_coef": 0.5, "amp_coef": 1.0},
    "mirror": {"decay_coef": 0.5, "amp_coef": 1.0},
}
_TOGETHER = np.array([1.0, 1.0]) / math.sqrt(2.0)
_APART = np.array([1.0, -1.0]) / math.sqrt(2.0)


def flow_matrix(rule: str, x: float = 1.0, **coefficients: float) -> np.ndarray:
    """A of the flow d/dt (w, b) = -A (w, b), the Hessian of R.

        A = [[own, -cross], [-cross, own]]

    Args:
        rule: "symmetric", "activation" or "mirror".
        x: the input.
        **coefficients: the rule's, by name; [K]'s where they are not given.

    Returns:
        `[2, 2]`.

    Raises:
        ValueError: another rule, or a coefficient that it does not have.
    """
    if rule not in PUBLISHED:
        raise ValueError(f"Expected a rule of {', '.join(PUBLISHED)}. Received: {rule!r}")
    unknown = [name for name in coefficients if name not in PUBLISHED[rule]]
    if unknown:
        raise ValueError(
            f"Expected coefficients of {rule}: {', '.join(PUBLISHED[rule])}. "
            f"Received: {unknown[0]!r}"
        )
    c = {**PUBLISHED[rule], **coefficients}
    square = x * x
    if rule == "symmetric":
        own, cross = 2.0 * c["decay_coef"], c["self_coef"]
    elif rule == "activation":
        own, cross = 2.0 * c["sparse_coef"] * square, c["amp_coef"] * square
    else:
        own, cross = 2.0 * c["decay_coef"], c["amp_coef"] * square
    return np.array([[own, -cross], [-cross, own]])


def eigenvalues(matrix: np.ndarray) -> tuple[float, float]:
    """The eigenvalues of A along u = (1, 1) and v = (1, -1).

    With [K]'s coefficients: (0, 2) of symmetric, (0, 2 x^2) of activation, and of mirror
    (lambda - x^2, lambda + x^2), lambda twice its decay_coef.

    Args:
        matrix: A, as `flow_matrix` gives it.

    Returns:
        (lambda_u, lambda_v).
    """
    own, cross = np.asarray(matrix, float)[0]
    return float(own + cross), float(own - cross)


def blows_up(matrix: np.ndarray) -> bool:
    """Whether the flow leaves every bound: of mirror where x^2 > lambda ([K] appendix D.1).

    Args:
        matrix: A.
    """
    return min(eigenvalues(matrix)) < 0.0


def field(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The flow's velocity, -A p.

    Args:
        points: (w, b), `[..., 2]`.
        matrix: A.

    Returns:
        `[..., 2]`.
    """
    return -np.asarray(points, float) @ np.transpose(matrix)


def trajectory(start: np.ndarray, times: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Where the flow takes a point, `u (u.p) exp(-lambda_u t) + v (v.p) exp(-lambda_v t)`.

    Args:
        start: p, `[2]`.
        times: `[n]`.
        matrix: A.

    Returns:
        `[n, 2]`.
    """
    start, times = np.asarray(start, float), np.asarray(times, float)
    parts = zip((_TOGETHER, _APART), eigenvalues(matrix), strict=True)
    moved = [
        np.exp(-eigenvalue * times)[:, None] * (direction @ start) * direction
        for direction, eigenvalue in parts
    ]
    return np.sum(moved, axis=0)
