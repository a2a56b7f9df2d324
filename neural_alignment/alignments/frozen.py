"""Hidden layers as they were drawn: what a rule has to beat."""

import dataclasses
from typing import ClassVar

from neural_alignment.alignments.alignment import Alignment
from neural_alignment.alignments.registry import register


@register("frozen")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Frozen(Alignment):
    """Frozen: the hidden layers stay as they were drawn, and the output layer alone trains.

    No error goes below the last layer with a kernel; R = 0. A baseline: a rule that does no better
    has learned nothing deep.

    It is a rule of a whole model: `align(model, "frozen")`, `models.get(..., alignment="frozen")`.

    Raises:
        ValueError: a density, which nothing here has.
    """

    of_model: ClassVar[bool] = True
    trains_backward_kernel: ClassVar[bool] = False
    backward: ClassVar[str] = "none: no error goes below the output layer"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.density != 1.0:
            raise ValueError(
                "Expected density=1 with the rule 'frozen', which has no backward kernel. "
                f"Received: density={self.density!r}"
            )
