"""A moving average of the forward kernel."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from neural_alignment.alignments.alignment import OUTPUTS_LAST, Alignment, Tensor
from neural_alignment.alignments.facts import Examples
from neural_alignment.alignments.options import option
from neural_alignment.alignments.registry import register
from neural_alignment.lazy import keras
from neural_alignment.maps import Linear


@register("moving_average")
@dataclasses.dataclass(frozen=True, kw_only=True)
class MovingAverage(Alignment):
    """Moving average: the backward kernel follows the forward kernel at a rate of its own.

    `B <- (1 - tau) B + tau W` once a step, with W before its update; R = 0, and no optimizer moves
    B. The same as `symmetric` with decay_coef tau/2, self_coef tau and gradient descent at rate 1.

    Args:
        tau: in (0, 1]; B forgets where it was drawn within about 1/tau steps.

    Raises:
        ValueError: tau out of range.
    """

    tau: float = option(0.5, "fraction of the way to the forward kernel that B goes in a step")

    trains_backward_kernel: ClassVar[bool] = False
    backward: ClassVar[str] = "a variable that goes a fraction tau of the way to W at every step"
    sources: ClassVar[tuple[str, ...]] = ("[K]",)
    examples: ClassVar[Examples] = {"sparse": {"tau": 0.25, "density": 0.5}}

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.tau <= 1.0:
            raise ValueError(
                "Expected tau in (0, 1], the fraction of the way to W that B goes in a step. "
                f"Received: tau={self.tau!r}"
            )

    def update(
        self,
        forward_kernel: Tensor,
        variables: Mapping[str, Tensor],
        step: Tensor | int | None,
        *,
        linear: Linear = OUTPUTS_LAST,
    ) -> dict[str, Tensor]:
        before = variables["backward_kernel"]
        kernel = keras.ops.cast(forward_kernel, before.dtype)
        return {"backward_kernel": before + self.tau * (kernel - before)}
