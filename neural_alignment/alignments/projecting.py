"""Base of the rules whose loss compares projections of an input."""

from __future__ import annotations

import dataclasses
from typing import Any

from neural_alignment.alignments.alignment import LayerwiseAlignment, Tensor
from neural_alignment.alignments.options import ProjectionOptions, option
from neural_alignment.alignments.projections import Projections
from neural_alignment.lazy import keras


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProjectionAlignment(ProjectionOptions, LayerwiseAlignment):
    """Base of the rules whose loss compares projections of an input; it has their options.

    Args:
        average_positions: for convolutions, average the primitives of projections (amp, sparse,
            null) over the positions that a weight connects, instead of summing ([A] C.1).
    """

    average_positions: bool = option(
        True, "average amp, sparse and null over a convolution's positions instead of summing"
    )

    def doubts(self) -> list[str]:
        if self.input_distribution is not None and self.input_stddev == 0.0 and self.has_loss:
            return [
                "the noise in place of the input is 0, and says nothing of W. Expected "
                "input_stddev > 0, such as 1. Received: input_stddev=0"
            ]
        return super().doubts()

    def _noise_gain(self) -> float | None:
        """The variance of the input that R sees, where it is known and outputs keep their size."""
        if self.input_distribution is None or self.normalize_input:
            return None
        if self.normalize_forward_output or self.normalize_backward_output:
            return None
        return self.input_stddev**2

    def _over_positions(self, primitive: Tensor, p: Projections) -> Tensor:
        if not self.average_positions:
            return primitive
        # At least one position, or a mask has left out everything and the primitive is 0.
        positions = keras.ops.cast(p.positions, primitive.dtype)
        return primitive / keras.ops.maximum(positions, 1e-6)

    @property
    def is_random(self) -> bool:
        return super().is_random or (self.has_loss and self.input_distribution is not None)

    def _projections(self, **tensors: Any) -> Projections:
        return Projections(self, **tensors)
