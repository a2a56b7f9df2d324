"""Activation alignment."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar

from neural_alignment.alignments import primitives
from neural_alignment.alignments.alignment import ProjectionAlignment, Tensor
from neural_alignment.alignments.facts import Examples
from neural_alignment.alignments.options import Coefficient, option
from neural_alignment.alignments.projections import Projections
from neural_alignment.alignments.registry import register


@register("activation")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Activation(ProjectionAlignment):
    """Activation alignment: pulls the backward projection towards the forward projection.

    `R = sparse_coef * (sum mean_b f^2 + sum mean_b b^2) - amp_coef * sum mean_b f*b`
    ([K] section 3, appendix B.2).

    Args:
        sparse_coef: of the sparse primitive.
        amp_coef: of the amp primitive.
    """

    sparse_coef: Coefficient = option(1e-3, "coefficient of the sparse primitive")
    amp_coef: Coefficient = option(2e-3, "coefficient of the amp primitive")

    sources: ClassVar[tuple[str, ...]] = ("[K]",)
    examples: ClassVar[Examples] = {
        "noise": {
            "input_distribution": "normal",
            "input_stddev": 0.5,
            "use_bias_forward": True,
            "use_bias_backward": True,
            "activation_forward": True,
            "activation_backward": True,
        },
        "standardized": {
            "use_bias_forward": True,
            "use_bias_backward": True,
            "activation_forward": True,
            "normalize_input": True,
            "normalize_forward_output": True,
            "normalize_backward_output": True,
        },
    }

    @property
    def extra_operations(self) -> int:
        return 2 + self.is_random

    def primitives(self, p: Projections, variables: Mapping[str, Tensor]) -> dict[str, Callable]:
        return {
            "sparse": lambda: primitives.sparse(p.forward_projection, p.backward_projection),
            "amp": p.amp,
        }
