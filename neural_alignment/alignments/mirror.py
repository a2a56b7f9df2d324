"""Weight mirrors."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar

from neural_alignment.alignments import equilibrium, primitives
from neural_alignment.alignments.alignment import Tensor
from neural_alignment.alignments.facts import Examples
from neural_alignment.alignments.options import Coefficient, inherited, option
from neural_alignment.alignments.projecting import ProjectionAlignment
from neural_alignment.alignments.projections import Projections
from neural_alignment.alignments.registry import register


@register("mirror")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Mirror(ProjectionAlignment):
    """Weight mirror: the backward kernel grows with the correlation of input and output.

    `R = amp_coef * amp + decay_coef * decay`, `amp = -sum mean_b f*b`; on noise of variance s^2
    its expected gradient is `-amp_coef s^2 W + 2 decay_coef B` ([K] section 3; [A]).

    So B ends as `amp_coef s^2 / (2 decay_coef) W`, about half of that behind a ReLU
    (`activation_forward`), averaged over `1 / (2 decay_coef r)` steps of gradient descent at rate
    r; noise leaves an angle of about `atan sqrt(fan_in r decay_coef / batch)`, less in a
    convolution. The defaults make B of W's size. docs/settings.md has the recipe. [A]'s mirror is
    amp_coef 0.1, decay_coef 0.25, activation_forward, and gradient descent at rate 1; docs/rules.md
    has that of its MNIST code.

    Args:
        decay_coef: of the decay primitive.
        amp_coef: of the amp primitive.
        input_distribution: noise by default; None is the layer's own input.
    """

    decay_coef: Coefficient = option(0.1, "coefficient of the decay primitive")
    amp_coef: Coefficient = option(0.2, "coefficient of the amp primitive")
    input_distribution: str | None = inherited(ProjectionAlignment, "input_distribution", "normal")

    sources: ClassVar[tuple[str, ...]] = ("[K]", "[A]")
    examples: ClassVar[Examples] = {
        "forward": {
            "update_forward": True,
            "use_bias_backward": True,
            "input_distribution": None,
            "average_positions": False,
        },
        "noise": {
            "input_distribution": "uniform",
            "use_bias_forward": True,
            "use_bias_backward": True,
            "activation_forward": True,
            "batch_center_forward_output": True,
        },
        "average": {"input_distribution": None, "density": 0.5},
    }

    @property
    def extra_operations(self) -> int:
        return 1 + self.is_random

    def doubts(self) -> list[str]:
        return super().doubts() or list(
            equilibrium.doubts(
                ("amp_coef", self.amp_coef),
                ("decay_coef", self.decay_coef),
                self._noise_gain(),
                self.update_forward,
            )
        )

    def primitives(
        self, p: Projections, variables: Mapping[str, Tensor]
    ) -> dict[str, Callable[[], Tensor]]:
        return {
            "decay": lambda: primitives.decay(p.forward_kernel, p.backward_kernel),
            "amp": lambda: self._over_positions(p.amp(), p),
        }
