"""Direct feedback alignment."""

import dataclasses
from typing import ClassVar

from neural_alignment.alignments.alignment import Alignment
from neural_alignment.alignments.facts import Examples
from neural_alignment.alignments.options import option
from neural_alignment.alignments.registry import register


@register("direct")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Direct(Alignment):
    """Direct feedback alignment (DFA): the error goes from the output straight to every layer.

    The error at the input of layer l is `e B_l`, e the error at the logits and B_l
    `[classes, features]` fixed and random; the layer's own `dy B^T` is blocked. What stands between
    two layers (activation, BatchNorm, pooling, a skip connection) trains by its ordinary gradient,
    and the output layer by its exact one; R = 0 (Nøkland 2016, in BioTorch's convention).

    It is a rule of a whole model: `align(model, "direct")`, `models.get(..., alignment="direct")`.

    Args:
        projection: "channels" has one error for every channel, the same at all positions; "full"
            one for every feature at every position.
        points: "layers" sends the error to the input of every layer with a kernel; "blocks" to
            where every path through the model meets (a residual block's input), and backpropagates
            within.
        initial_scale: B is Glorot-uniform times this.
        density: fraction of the elements of B that are not zero.

    Raises:
        ValueError: an option out of range.
    """

    projection: str = option(
        "channels", "error sent to every channel, or to every feature", ("channels", "full")
    )
    points: str = option(
        "layers", "where the error is sent: to each layer, or to each block", ("layers", "blocks")
    )
    initial_scale: float = option(1.0, "of the feedback weights, over Glorot's")

    of_model: ClassVar[bool] = True
    trains_backward_kernel: ClassVar[bool] = False
    backward: ClassVar[str] = (
        "fixed, from the logits to the layer's input: {projection}; at {points}"
    )
    sources: ClassVar[tuple[str, ...]] = ("Nøkland 2016",)
    examples: ClassVar[Examples] = {
        "full": {"projection": "full", "density": 0.5},
        "blocks": {"points": "blocks", "initial_scale": 2.0},
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.initial_scale > 0.0:
            raise ValueError(
                "Expected initial_scale > 0, a factor of Glorot's scale. "
                f"Received: initial_scale={self.initial_scale!r}"
            )
