"""Means over seeds, and how sure they are."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True)
class Summary:
    """Mean and spread of a few numbers.

    Args:
        mean: of the numbers that are finite; NaN without any.
        sd: standard deviation with n - 1; NaN for fewer than two.
        count: n.
    """

    mean: float
    sd: float
    count: int

    @property
    def sem(self) -> float:
        """Standard error of the mean, sd / sqrt(n); NaN for fewer than two."""
        return self.sd / math.sqrt(self.count) if self.count else math.nan

    @property
    def spread(self) -> float:
        """sd, and 0 where there is none to be drawn."""
        return 0.0 if math.isnan(self.sd) else self.sd

    @property
    def error(self) -> float:
        """s.e.m., and 0 where there is none to be drawn."""
        return 0.0 if math.isnan(self.sd) else self.sem

    def row(self) -> dict[str, float | int]:
        """Columns of a table."""
        return {"mean": self.mean, "sd": self.sd, "sem": self.sem, "runs": self.count}


def summarise(values: Iterable[float]) -> Summary:
    """Mean and standard deviation of the numbers that are finite.

    Args:
        values: any.

    Returns:
        The summary.
    """
    found = [value for value in values if math.isfinite(value)]
    if not found:
        return Summary(math.nan, math.nan, 0)
    mean = math.fsum(found) / len(found)
    if len(found) == 1:
        return Summary(mean, math.nan, 1)
    variance = math.fsum((value - mean) ** 2 for value in found) / (len(found) - 1)
    return Summary(mean, math.sqrt(variance), len(found))
