"""Where a rule's R takes B, and what is wrong with where it goes: docs/settings.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class AlignmentWarning(UserWarning):
    """Settings of a rule that cannot align the backward kernel."""


# |B| / |W| at R's minimum between which errors keep a size that a network can train with.
_SMALLEST, _LARGEST = 0.01, 100.0


def doubts(
    pull: tuple[str, Any],
    size: tuple[str, Any],
    gain: float | None = 1.0,
    update_forward: bool = False,
) -> Iterator[str]:
    """What is wrong with a rule whose R is `size (|W|^2 + |B|^2) - pull gain <W, B>`.

    For B its minimum is `B = pull gain / (2 size) W`.

    Args:
        pull: name and value of the coefficient that pulls B towards W.
        size: name and value of the one that bounds B.
        gain: what the pull is multiplied by, the variance of a noise input say; None: not known.
        update_forward: whether R trains W too.

    Yields:
        A sentence or two for each reason; nothing of what depends on a schedule.
    """
    (pull_name, pull_value), (size_name, size_value) = pull, size
    if callable(pull_value):
        return
    if pull_value <= 0.0:
        where = "towards -W" if pull_value < 0.0 else "nowhere"
        yield f"B is pulled {where}. Expected {pull_name} > 0. Received: {pull_name}={pull_value:g}"
    elif not callable(size_value) and size_value <= 0.0:
        yield (
            f"R has no minimum, and B grows without bound. Expected {size_name} > 0. "
            f"Received: {size_name}={size_value:g}"
        )
    elif not callable(size_value) and gain is not None:
        yield from _of_ratio(pull, size, max(gain, 1e-30), update_forward)


def _of_ratio(
    pull: tuple[str, Any], size: tuple[str, Any], gain: float, update_forward: bool
) -> Iterator[str]:
    (pull_name, pull_value), (size_name, size_value) = pull, size
    balanced = 2.0 * size_value / gain
    ratio = pull_value / balanced
    expected = (
        f"Expected {pull_name} near {balanced:.2g} with this {size_name}, where B ends "
        f"as W. Received: {pull_name}={pull_value:g}, {size_name}={size_value:g}"
    )
    if ratio < _SMALLEST:
        yield f"B ends at {ratio:.2g} of W, and hardly any error gets through. {expected}"
    elif ratio > _LARGEST:
        yield f"B ends at {ratio:.2g} times W, and errors explode. {expected}"
    elif update_forward and ratio > 1.0 + 1e-6:
        yield (
            "R trains W too and has no minimum: both kernels grow without bound. "
            f"{expected.replace('near', 'at most')}"
        )


def tied_doubts(name: str, value: Any) -> Iterator[str]:
    """What is wrong with the decay of a rule that gives both kernels the same gradient.

    Args:
        name: of the coefficient.
        value: of the coefficient.

    Yields:
        A sentence or two; nothing of a schedule.
    """
    if not callable(value) and value <= 0.0:
        does = "stays" if value == 0.0 else "grows"
        yield (
            f"both kernels get the same gradient, and without decay their first difference {does}. "
            f"Expected {name} > 0. Received: {name}={value:g}"
        )
