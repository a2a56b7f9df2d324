"""Gradient flow of a two-layer scalar linear network under a rule ([K] appendix D.2).

With y = w2 w1 x, squared error, alpha = E[x y] and beta = E[x^2], the residual is
e = alpha - w2 w1 beta, and

    dw1/dt = b e        dw2/dt = w1 e        b = w2 (backprop)
                                             db/dt = 0 (feedback), w2 - b (symmetric)

The fixed points are the solutions w2 w1 = alpha / beta, and saddles where b = w1 = 0.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

RULES = ("backprop", "feedback", "symmetric")


def _check(rule: str, state: np.ndarray) -> None:
    if rule not in RULES:
        raise ValueError(f"Expected a rule of {', '.join(RULES)}. Received: {rule!r}")
    if not state.ndim:
        raise ValueError(f"Expected a state of several numbers. Received: {state}")
    size = 2 if rule == "backprop" else 3
    if state.shape[-1] != size:
        names = "(w1, w2)" if size == 2 else "(w1, w2, b)"
        raise ValueError(f"Expected a state {names} of {rule}. Received: {state.shape[-1]} numbers")


def flow(rule: str, state: np.ndarray, alpha: float = 1.0, beta: float = 1.0) -> np.ndarray:
    """The velocity of the weights.

    Args:
        rule: one of `RULES`.
        state: (w1, w2) of backprop, (w1, w2, b) of the others, `[..., 2 or 3]`.
        alpha: E[x y].
        beta: E[x^2].

    Returns:
        As the state.

    Raises:
        ValueError: another rule, or a state of another size.
    """
    state = np.asarray(state, float)
    _check(rule, state)
    w1, w2 = state[..., 0], state[..., 1]
    b = w2 if rule == "backprop" else state[..., 2]
    residual = alpha - w2 * w1 * beta
    moved = [b * residual, w1 * residual]
    if rule == "feedback":
        moved.append(np.zeros_like(b))
    elif rule == "symmetric":
        moved.append(w2 - b)
    return np.stack(moved, axis=-1)


def jacobian(rule: str, state: np.ndarray, alpha: float = 1.0, beta: float = 1.0) -> np.ndarray:
    """The derivatives of the velocity by the weights.

    Args:
        rule: one of `RULES`.
        state: `[2]` or `[3]`, as `flow` takes it.
        alpha: E[x y].
        beta: E[x^2].

    Returns:
        `[2, 2]` or `[3, 3]`.

    Raises:
        ValueError: another rule, a state of another size, or several states.
    """
    state = np.asarray(state, float)
    _check(rule, state)
    if state.ndim != 1:
        raise ValueError(f"Expected one state. Received: shape {state.shape}")
    w1, w2 = state[:2]
    b = w2 if rule == "backprop" else state[2]
    residual = alpha - w2 * w1 * beta
    made = np.array(
        [
            [-b * w2 * beta, -b * w1 * beta, residual],
            [residual - w1 * w2 * beta, -w1 * w1 * beta, 0.0],
            [0.0, 0.0, 0.0],
        ]
    )
    if rule == "symmetric":
        made[2] = (0.0, 1.0, -1.0)
    if rule == "backprop":  # b is w2, by the chain rule
        return made[:2, :2] + np.outer(made[:2, 2], (0.0, 1.0))
    return made


def eigenvalues_at_solution(
    rule: str, w1: float, alpha: float = 1.0, beta: float = 1.0, b: float | None = None
) -> tuple[float, ...]:
    """The eigenvalues of the Jacobian at the solution `w2 = alpha / (beta w1)`.

        backprop    -(w1^2 + w2^2) beta, 0
        feedback    -(w1^2 + b w2) beta, 0, 0
        symmetric   -(w1^2 + w2^2) beta, 0, -1        (b = w2)

    Args:
        rule: one of `RULES`.
        w1: the first weight, not 0.
        alpha: E[x y].
        beta: E[x^2].
        b: the feedback weight, of feedback.

    Returns:
        The eigenvalues, in this order.

    Raises:
        ValueError: another rule, b missing or given where it is w2, or no solution.
    """
    if rule not in RULES:
        raise ValueError(f"Expected a rule of {', '.join(RULES)}. Received: {rule!r}")
    if (b is None) == (rule == "feedback"):
        raise ValueError(f"Expected b with feedback alone. Received: {rule!r}, b={b!r}")
    if not w1 or not beta:
        raise ValueError(
            f"Expected w1 and beta other than 0, of a solution w2 w1 = alpha / beta. Received: "
            f"w1={w1!r}, beta={beta!r}"
        )
    w2 = alpha / (beta * w1)
    if b is not None:
        return -(w1 * w1 + b * w2) * beta, 0.0, 0.0
    first = -(w1 * w1 + w2 * w2) * beta
    return (first, 0.0) if rule == "backprop" else (first, 0.0, -1.0)


def is_sink(w1: np.ndarray, w2: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether a solution attracts its surroundings, `w1^2 + b w2 > 0`.

    Args:
        w1: first weight.
        w2: second weight, on the solutions.
        b: feedback weight; w2 for backprop and symmetric, where every solution is a sink.

    Returns:
        Booleans.
    """
    return np.square(w1) + np.multiply(b, w2) > 0.0


def conserved(rule: str, state: np.ndarray) -> np.ndarray:
    """What the flow leaves as it is: `w1^2 - w2^2` of backprop, `w1^2 - 2 b w2` of feedback.

    Args:
        rule: "backprop" or "feedback".
        state: `[..., 2 or 3]`.

    Returns:
        `[...]`.

    Raises:
        ValueError: another rule.
    """
    state = np.asarray(state, float)
    if rule not in ("backprop", "feedback"):
        raise ValueError(f"Expected backprop or feedback. Received: {rule!r}")
    _check(rule, state)
    w1, w2 = state[..., 0], state[..., 1]
    return w1 * w1 - (w2 * w2 if rule == "backprop" else 2.0 * state[..., 2] * w2)


def integrate(
    velocity: Callable[[np.ndarray], np.ndarray], start: np.ndarray, time: float, steps: int = 1000
) -> np.ndarray:
    """Follows a flow by the classical Runge–Kutta method.

    Args:
        velocity: of a state.
        start: the first state, `[..., n]`.
        time: how long.
        steps: of equal length.

    Returns:
        `[steps + 1, ..., n]`, the start first.

    Raises:
        ValueError: fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"Expected steps >= 1. Received: {steps!r}")
    state, h = np.asarray(start, float), time / steps
    path = [state]
    for _ in range(steps):
        k1 = velocity(state)
        k2 = velocity(state + 0.5 * h * k1)
        k3 = velocity(state + 0.5 * h * k2)
        k4 = velocity(state + h * k3)
        state = state + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
        path.append(state)
    return np.stack(path)
