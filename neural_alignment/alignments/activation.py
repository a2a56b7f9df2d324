"""Activation alignment."""

import dataclasses
from collections.abc import Callable, Mapping

from neural_alignment.alignments import primitives
from neural_alignment.alignments.alignment import ProjectionAlignment, Tensor
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

    def primitives(self, p: Projections, variables: Mapping[str, Tensor]) -> dict[str, Callable]:
        return {
            "sparse": lambda: primitives.sparse(p.forward_projection, p.backward_projection),
            "amp": p.amp,
        }
