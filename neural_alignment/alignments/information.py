"""Information alignment."""

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


@register("information")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Information(ProjectionAlignment):
    """Information alignment: reconstructs the input through both kernels.

    `R = null_coef * null + amp_coef * amp + decay_coef * (decay or sparse)`, with
    `null = sum mean_b r^2` of the forward reconstruction `r = B f` ([K] section 3, B.1.4).

    On noise of variance s^2 its expected gradient is `-amp_coef s^2 W + 2 null_coef s^2 B W^T W +
    2 decay_coef B`: along a singular direction of W of value g, B ends with
    `amp_coef s^2 g / (2 null_coef s^2 g^2 + 2 decay_coef)`. With null_coef 0 that is the mirror;
    null holds B back where W is strong, from `g^2 > decay_coef / (null_coef s^2)` on, and too much
    of it turns B away from W. docs/settings.md has the recipe.

    Args:
        null_coef: of the null primitive.
        amp_coef: of the amp primitive.
        decay_coef: of the decay primitive, or of sparse with `use_sparse`.
        input_distribution: noise by default; None is the layer's own input.
        reconstruction_reversal: null, and amp with `reconstruction_amp`, take the backward
            reconstruction `W b` instead of the forward one.
        reconstruction_amp: amp pairs the input with that reconstruction.
        use_sparse: sparse in decay's place.
    """

    null_coef: Coefficient = option(2e-3, "coefficient of the null primitive")
    amp_coef: Coefficient = option(0.2, "coefficient of the amp primitive")
    decay_coef: Coefficient = option(
        0.1, "coefficient of the decay primitive (of sparse with use_sparse)"
    )
    input_distribution: str | None = inherited(ProjectionAlignment, "input_distribution", "normal")
    reconstruction_reversal: bool = option(
        False, "null, and amp with reconstruction_amp, take b W^T, not f B^T, the forward one"
    )
    reconstruction_amp: bool = option(False, "amp pairs the input with that reconstruction")
    use_sparse: bool = option(
        False, "the sparse primitive in decay's place, with decay's coefficient"
    )

    loss: ClassVar[str] = "null_coef·null + amp_coef·amp + decay_coef·decay (or sparse)"
    sources: ClassVar[tuple[str, ...]] = ("[K]",)
    examples: ClassVar[Examples] = {
        "reversal": {
            "reconstruction_reversal": True,
            "update_forward": True,
            "input_distribution": None,
            "average_positions": False,
        },
        "amp": {
            "reconstruction_amp": True,
            "use_sparse": True,
            "null_coef": 0.1,
            "input_distribution": None,
        },
        "reversal_amp": {
            "reconstruction_reversal": True,
            "reconstruction_amp": True,
            "input_distribution": "normal",
            "input_stddev": 0.5,
            "center_backward_output": True,
        },
    }

    @property
    def extra_operations(self) -> int:
        return 2 + self.is_random

    def doubts(self) -> list[str]:
        null = self.null_coef
        if not callable(null) and null < 0.0:
            return [
                "R has no minimum, as null lets B grow without bound where W is strong. Expected "
                f"null_coef >= 0. Received: null_coef={null:g}"
            ]
        return super().doubts() or list(
            equilibrium.doubts(
                ("amp_coef", self.amp_coef),
                ("decay_coef", self.decay_coef),
                None if self.use_sparse else self._noise_gain(),
                # Null keeps both kernels in bounds where R trains W too.
                update_forward=self.update_forward and null == 0.0,
            )
        )

    def primitives(
        self, p: Projections, variables: Mapping[str, Tensor]
    ) -> dict[str, Callable[[], Tensor]]:
        # null and sparse come first: amp then takes the cheapest form of what is made.
        return {
            "null": lambda: self._over_positions(primitives.null(self._reconstruction(p)), p),
            "decay": lambda: self._size(p),
            "amp": lambda: self._over_positions(self._amp(p), p),
        }

    def _reconstruction(self, p: Projections) -> Tensor:
        if self.reconstruction_reversal:
            return p.backward_reconstruction
        return p.forward_reconstruction

    def _size(self, p: Projections) -> Tensor:
        if self.use_sparse:
            sparse = primitives.sparse(p.forward_projection, p.backward_projection)
            return self._over_positions(sparse, p)
        return primitives.decay(p.forward_kernel, p.backward_kernel)

    def _amp(self, p: Projections) -> Tensor:
        if self.reconstruction_amp:
            return primitives.amp(p.input, self._reconstruction(p))
        return p.amp()
