"""Kolen–Pollack."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar

from neural_alignment.alignments import equilibrium, primitives
from neural_alignment.alignments.alignment import LayerwiseAlignment, Tensor
from neural_alignment.alignments.facts import Examples
from neural_alignment.alignments.options import Coefficient, inherited, option
from neural_alignment.alignments.projections import Projections
from neural_alignment.alignments.registry import register


@register("kolen_pollack")
@dataclasses.dataclass(frozen=True, kw_only=True)
class KolenPollack(LayerwiseAlignment):
    """Kolen–Pollack: the backward kernel receives the forward kernel's gradient, and both decay.

    `dB = dW`, `R = decay_coef * (sum W^2 + sum B^2)`; W and B meet when both decay alike
    (Kolen & Pollack 1994; [K] appendix D.3).

    R decays W too (`update_forward`), so W needs no weight decay. Without, give W the decay
    `2 decay_coef / 2 |W|^2`. Under gradient descent at rate r, with momentum m, the first
    difference of W and B shrinks e-fold in `(1 - m) / (2 decay_coef r)` steps; under Adam, which
    scales the two gradients apart, it need not. docs/settings.md has the recipe.

    Args:
        decay_coef: of the decay primitive.
        update_forward: R decays W as well.
    """

    decay_coef: Coefficient = option(1e-3, "coefficient of the decay primitive")
    # An option here, a fact of the class in the first base.
    update_forward: bool = inherited(  # type: ignore[misc]
        LayerwiseAlignment, "update_forward", True
    )

    tie_grad: ClassVar[bool] = True
    compares_projections: ClassVar[bool] = False
    sources: ClassVar[tuple[str, ...]] = ("Kolen & Pollack 1994", "[K] D.3")
    examples: ClassVar[Examples] = {"apart": {"update_forward": False, "density": 0.5}}

    def doubts(self) -> list[str]:
        return list(equilibrium.tied_doubts("decay_coef", self.decay_coef))

    def primitives(
        self, p: Projections, variables: Mapping[str, Tensor]
    ) -> dict[str, Callable[[], Tensor]]:
        return {"decay": lambda: primitives.decay(p.forward_kernel, p.backward_kernel)}
