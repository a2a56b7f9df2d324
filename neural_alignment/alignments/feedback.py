"""Feedback alignment."""

import dataclasses
from typing import ClassVar

from neural_alignment.alignments.alignment import Alignment
from neural_alignment.alignments.facts import Examples
from neural_alignment.alignments.registry import register


@register("feedback")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Feedback(Alignment):
    """Feedback alignment: a fixed random backward kernel.

    `dx = dy B^T`, B drawn once and never trained; R = 0 (Lillicrap et al. 2016; [K] section 2,
    [A]).
    """

    trains_backward_kernel: ClassVar[bool] = False
    sources: ClassVar[tuple[str, ...]] = ("Lillicrap et al. 2016", "[K]", "[A]")
    examples: ClassVar[Examples] = {"sparse": {"density": 0.25}}
