"""Interleaved timing: what one machine can say about ratios while its speed drifts."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Quartiles:
    """Median and quartiles.

    Args:
        lower: 25 %.
        median: 50 %.
        upper: 75 %.
    """

    lower: float
    median: float
    upper: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quartiles:
        """Those of a sample."""
        return cls(*(float(q) for q in np.quantile(values, (0.25, 0.5, 0.75))))


def interleave(
    contestants: Mapping[str, Callable[[], None]],
    rounds: int,
    calls: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Times each contestant once a round, in an order that rotates.

    Args:
        contestants: what to run, by name.
        rounds: measurements of each.
        calls: runs in a measurement.
        clock: seconds.

    Returns:
        Name to seconds a run, one for every round.
    """
    names = list(contestants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds):
        for name in turns(names, i):
            run, began = contestants[name], clock()
            for _ in range(calls):
                run()
            seconds[name].append((clock() - began) / calls)
    return seconds


def turns(names: Sequence[str], number: int) -> list[str]:
    """The order of a round, which rotates.

    Args:
        names: of the contestants.
        number: of the round.

    Returns:
        The names.
    """
    start = number % len(names)
    return [*names[start:], *names[:start]]


def ratios(seconds: Mapping[str, Sequence[float]], baseline: str) -> dict[str, Quartiles]:
    """Quartiles of the ratio to the baseline's time in the same round.

    Args:
        seconds: from `interleave`.
        baseline: a name in it.

    Returns:
        Name to quartiles.
    """
    reference = np.asarray(seconds[baseline])
    return {name: Quartiles.of(np.asarray(times) / reference) for name, times in seconds.items()}
