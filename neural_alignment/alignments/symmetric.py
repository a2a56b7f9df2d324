"""Symmetric alignment."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar

from neural_alignment import backend
from neural_alignment.alignments import equilibrium, primitives
from neural_alignment.alignments.alignment import LayerwiseAlignment, Tensor
from neural_alignment.alignments.facts import Examples
from neural_alignment.alignments.options import Coefficient, option
from neural_alignment.alignments.projections import Projections
from neural_alignment.alignments.registry import register
from neural_alignment.lazy import keras


@register("symmetric")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Symmetric(LayerwiseAlignment):
    """Symmetric alignment: pulls the backward kernel towards the forward kernel.

    `R = decay_coef * (sum W^2 + sum B^2) - self_coef * sum W*B`; with the defaults that is
    `20 |W - B|^2` ([K] section 3, appendix B.2).

    B ends as `self_coef / (2 decay_coef) W`. It must follow W faster than W moves: gradient descent
    at rate r takes `1 / (2 decay_coef r)` steps, and needs `r < 1 / decay_coef`. Adam sees no
    coefficients, only their ratio. docs/settings.md has the recipe.

    Args:
        decay_coef: of the decay primitive.
        self_coef: of the self primitive.
    """

    decay_coef: Coefficient = option(20.0, "coefficient of the decay primitive")
    self_coef: Coefficient = option(40.0, "coefficient of the self primitive")

    compares_projections: ClassVar[bool] = False
    sources: ClassVar[tuple[str, ...]] = ("[K]",)
    examples: ClassVar[Examples] = {"forward": {"update_forward": True}}

    def doubts(self) -> list[str]:
        return super().doubts() or list(
            equilibrium.doubts(
                ("self_coef", self.self_coef),
                ("decay_coef", self.decay_coef),
                update_forward=self.update_forward,
            )
        )

    def primitives(
        self, p: Projections, variables: Mapping[str, Tensor]
    ) -> dict[str, Callable[[], Tensor]]:
        return {
            "decay": lambda: primitives.decay(p.forward_kernel, p.backward_kernel),
            "self": lambda: primitives.self_(p.forward_kernel, p.backward_kernel),
        }

    def _loss(
        self, p: Projections, variables: Mapping[str, Tensor], step: Tensor | int | None
    ) -> Tensor:
        if self.self_coef == 0.0:
            return super()._loss(p, variables, step)
        # The same as (decay - self/2) (sum W^2 + sum B^2) + self/2 sum (W - B)^2: fewer passes over
        # the weights, and no difference of large numbers where B is near W. B - W, not W - B: its
        # gradient for B needs no pass to change a sign.
        pull = self._coefficient("self_coef", step)
        rest = self._coefficient("decay_coef", step) - 0.5 * pull
        multiply = keras.ops.multiply  # of float64 and a schedule's float32
        apart = backend.sum_of_squares(p.backward_kernel - p.forward_kernel)
        loss = multiply(0.5 * pull, apart)
        if isinstance(rest, float) and rest == 0.0:
            return loss
        return loss + multiply(rest, primitives.decay(p.forward_kernel, p.backward_kernel))
