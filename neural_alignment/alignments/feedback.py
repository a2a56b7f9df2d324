"""Feedback alignment."""

import dataclasses
from typing import ClassVar

from neural_alignment.alignments.alignment import Alignment
from neural_alignment.alignments.registry import register


@register("feedback")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Feedback(Alignment):
    """Feedback alignment: a fixed random backward kernel.

    `dx = dy B^T`, B drawn once and never trained; R = 0 ([K] section 2, [A]).
    """

    trains_backward_kernel: ClassVar[bool] = False
