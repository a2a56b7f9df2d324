"""What an optimizer must know of a kernel and cannot see: kept on the variable itself.

A layer says it when it makes its kernels; an optimizer that treats kernels apart asks.
"""

from __future__ import annotations

from typing import Any

_FORWARD = "_aligned_with"
_SHARED = "_trained_by_both_losses"
_LINEAR = "_wants_linear_updates"


def tie(backward_kernel: Any, forward_kernel: Any) -> None:
    """Says that a rule gives a backward kernel its forward kernel's gradient.

    Args:
        backward_kernel: a `keras.Variable`.
        forward_kernel: a `keras.Variable`.
    """
    setattr(backward_kernel, _FORWARD, forward_kernel)


def forward_kernel(variable: Any) -> Any | None:
    """The forward kernel whose gradient a variable gets.

    Args:
        variable: a `keras.Variable`.

    Returns:
        The forward kernel; None where the variable is not a tied rule's.
    """
    return getattr(variable, _FORWARD, None)


def share(variable: Any) -> None:
    """Says that the gradients of both J and R reach a variable.

    Args:
        variable: a `keras.Variable`.
    """
    setattr(variable, _SHARED, True)


def is_shared(variable: Any) -> bool:
    """Whether the gradients of both J and R reach a variable.

    Args:
        variable: a `keras.Variable`.

    Returns:
        What `share` said.
    """
    return getattr(variable, _SHARED, False)


def require_linear(variable: Any) -> None:
    """Says that a variable is right only where updates are linear in the gradients.

    Args:
        variable: a `keras.Variable`.
    """
    setattr(variable, _LINEAR, True)


def requires_linear(variable: Any) -> bool:
    """Whether a variable is right only where updates are linear in the gradients.

    Args:
        variable: a `keras.Variable`.

    Returns:
        What `require_linear` said.
    """
    return getattr(variable, _LINEAR, False)
