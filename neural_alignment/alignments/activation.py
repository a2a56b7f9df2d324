"""Activation alignment."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar

from neural_alignment.alignments import equilibrium, primitives
from neural_alignment.alignments.alignment import Tensor
from neural_alignment.alignments.facts import Examples
from neural_alignment.alignments.options import Coefficient, option
from neural_alignment.alignments.projecting import ProjectionAlignment
from neural_alignment.alignments.projections import Projections
from neural_alignment.alignments.registry import register


@register("activation")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Activation(ProjectionAlignment):
    """Activation alignment: pulls the backward projection towards the forward projection.

    `R = sparse_coef * (sum mean_b f^2 + sum mean_b b^2) - amp_coef * sum mean_b f*b`
    ([K] section 3, appendix B.2).

    Its gradient is `2 sparse_coef C (B - amp_coef / (2 sparse_coef) W)`, C the second moments of
    the layer's input. B ends as `amp_coef / (2 sparse_coef) W` in the directions that the input
    takes, soonest in its strongest, and stays as drawn where the input is always 0. With
    `input_distribution` noise takes the input's place, and all of B ends there. docs/settings.md
    has the recipe.

    Args:
        sparse_coef: of the sparse primitive.
        amp_coef: of the amp primitive.
    """

    sparse_coef: Coefficient = option(0.1, "coefficient of the sparse primitive")
    amp_coef: Coefficient = option(0.2, "coefficient of the amp primitive")

    def doubts(self) -> list[str]:
        standardized = self.normalize_forward_output or self.normalize_backward_output
        return super().doubts() or list(
            equilibrium.doubts(
                ("amp_coef", self.amp_coef),
                ("sparse_coef", self.sparse_coef),
                None if standardized else 1.0,
                self.update_forward,
            )
        )

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

    def primitives(
        self, p: Projections, variables: Mapping[str, Tensor]
    ) -> dict[str, Callable[[], Tensor]]:
        return {
            "sparse": lambda: self._over_positions(
                primitives.sparse(p.forward_projection, p.backward_projection), p
            ),
            "amp": lambda: self._over_positions(p.amp(), p),
        }
