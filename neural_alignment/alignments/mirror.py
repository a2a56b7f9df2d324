"""Weight mirrors."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar

from neural_alignment.alignments import primitives
from neural_alignment.alignments.alignment import ProjectionAlignment, Tensor
from neural_alignment.alignments.facts import Examples
from neural_alignment.alignments.options import Coefficient, option
from neural_alignment.alignments.projections import Projections
from neural_alignment.alignments.registry import register


@register("mirror")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Mirror(ProjectionAlignment):
    """Weight mirror: the backward kernel grows with the correlation of input and output.

    `R = amp_coef * amp + decay_coef * decay`, `amp = -sum mean_b f*b`; on noise of variance s^2
    its expected gradient is `-amp_coef s^2 W + 2 decay_coef B` ([K] section 3; [A]).

    Args:
        decay_coef: of the decay primitive.
        amp_coef: of the amp primitive.
        average_positions: for convolutions, average amp over the output positions instead of
            summing, as [A] does (its mirror is amp_coef 0.1, decay_coef 0.25, gd at rate 1).
    """

    decay_coef: Coefficient = option(1e-3, "coefficient of the decay primitive")
    amp_coef: Coefficient = option(1e-3, "coefficient of the amp primitive")
    average_positions: bool = option(
        False, "average the amp primitive over output positions instead of summing"
    )

    sources: ClassVar[tuple[str, ...]] = ("[K]", "[A]")
    examples: ClassVar[Examples] = {
        "forward": {"update_forward": True, "use_bias_backward": True},
        "noise": {
            "input_distribution": "uniform",
            "use_bias_forward": True,
            "use_bias_backward": True,
            "activation_forward": True,
            "batch_center_forward_output": True,
        },
        "average": {"average_positions": True, "density": 0.5},
    }

    @property
    def extra_operations(self) -> int:
        return 1 + self.is_random

    def primitives(self, p: Projections, variables: Mapping[str, Tensor]) -> dict[str, Callable]:
        return {
            "decay": lambda: primitives.decay(p.forward_kernel, p.backward_kernel),
            "amp": lambda: p.amp() / p.positions if self.average_positions else p.amp(),
        }
