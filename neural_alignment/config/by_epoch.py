"""The text of a rate by epoch, `EPOCH:VALUE,EPOCH:VALUE`, as one flag has it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

FORM = "EPOCH:VALUE,EPOCH:VALUE, each value from its epoch on, the first 0"


def steps(text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The epochs and the values of a rate by epoch.

    Args:
        text: as "0:0.03,1:9e-5".

    Returns:
        Epochs, from 0 and increasing, and as many values.

    Raises:
        ValueError: the text is of another form.
    """
    pairs = [_pair(part, text) for part in text.split(",")]
    epochs, values = zip(*pairs, strict=True)
    rising = all(a < b for a, b in zip(epochs, epochs[1:], strict=False))
    if epochs[0] != 0.0 or not rising or not all(map(math.isfinite, epochs + values)):
        raise ValueError(
            f"expected {FORM}, finite numbers, the epochs ascending. Received: {text!r}"
        )
    return epochs, values


def _pair(part: str, text: str) -> tuple[float, float]:
    epoch, colon, value = part.partition(":")
    try:
        if colon:
            return float(epoch), float(value)
    except ValueError:
        pass
    raise ValueError(f"expected {FORM}. Received: {text!r}")


def checked(text: str, metadata: Mapping[str, Any]) -> str:
    """The text, where its form and its values are as the option says.

    Args:
        text: of the flag.
        metadata: of the option; `low` bounds the values.

    Returns:
        The text without spaces.

    Raises:
        ValueError: what was expected, and what came.
    """
    text = ",".join(":".join(map(str.strip, pair.split(":"))) for pair in text.split(","))
    _, values = steps(text)
    low = metadata.get("low")
    if low is not None and min(values) < low:
        raise ValueError(f"expected values >= {low:g}, by epoch. Received: {text!r}")
    return text


def scaled(text: str, factor: float) -> str:
    """The same values at epochs that are `factor` times as late."""
    epochs, values = steps(text)
    return ",".join(f"{e * factor:.12g}:{v!r}" for e, v in zip(epochs, values, strict=True))
