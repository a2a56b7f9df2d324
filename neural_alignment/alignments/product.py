"""Product feedback alignment."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from neural_alignment.alignments import primitives
from neural_alignment.alignments.alignment import (
    OUTPUTS_LAST,
    LayerwiseAlignment,
    Tensor,
    Variable,
)
from neural_alignment.alignments.initializers import FixedFraction
from neural_alignment.alignments.options import Coefficient, option
from neural_alignment.alignments.projections import Projections
from neural_alignment.alignments.registry import register
from neural_alignment.lazy import keras
from neural_alignment.maps import Linear


@register("product")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Product(LayerwiseAlignment):
    """Product feedback alignment (PFA): the backward kernel is a product of two.

    `B = R Q`: Q `[N, N_out]` fixed with `Q^T Q ~ 1`, R `[*window, N_in, N]` trained by the tied
    gradient `dR = dW Q^T` and decay, `N = expansion * N_out`. The error goes back through the
    composite kernel, so no expanded activations are made ([P] section 2).

    Args:
        decay_coef: of the decay primitive, `sum W^2 + sum R^2`.
        expansion: N / N_out; N is rounded up.
        feedback: how Q is drawn: "gaussian" (variance 1/N an element; PFA), "orthogonal"
            (semi-orthogonal columns; PFA-o), "identity" (Kolen–Pollack; needs expansion 1).
        density: fraction of Q's and of R's elements that are not fixed at zero; the others of Q
            are scaled so that its variance stays 1/N.
    """

    decay_coef: Coefficient = option(1e-3, "coefficient of the decay primitive")
    expansion: float = option(10.0, "size of the expanded layer, as a multiple of the outputs")
    feedback: str = option(
        "gaussian", "how the fixed factor Q is drawn", ("gaussian", "orthogonal", "identity")
    )

    tie_grad: ClassVar[bool] = True
    compares_projections: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.expansion < 1.0:
            raise ValueError(
                "Expected expansion >= 1, the expanded size over the number of outputs. "
                f"Received: expansion={self.expansion!r}"
            )
        if self.feedback == "identity" and (self.expansion != 1.0 or self.density != 1.0):
            raise ValueError(
                "Expected expansion=1 and density=1 with feedback='identity'. "
                f"Received: expansion={self.expansion!r}, density={self.density!r}"
            )
        if self.feedback == "orthogonal" and self.density != 1.0:
            raise ValueError(
                "Expected density=1 with feedback='orthogonal', since a sparse Q is not "
                f"orthogonal; use feedback='gaussian'. Received: density={self.density!r}"
            )

    def variables(
        self,
        kernel_shape: tuple[int, ...],
        initializer: Callable[[str], Any],
        *,
        linear: Linear = OUTPUTS_LAST,
    ) -> dict[str, Variable]:
        *inputs, outputs = linear.outputs_last_shape(kernel_shape)
        expanded = math.ceil(self.expansion * outputs)
        r_shape = (*inputs, expanded)
        r = _Tiled(initializer, kernel_shape, linear)
        made = {
            "backward_kernel_r": Variable(r_shape, r, True),
            "backward_kernel_q": Variable((expanded, outputs), self._q_initializer(), False),
        }
        return made | self._mask("backward_mask", r_shape)

    def _q_initializer(self) -> Callable[..., Tensor]:
        if self.feedback == "identity":
            return keras.initializers.Identity()
        if self.feedback == "orthogonal":
            return _Orthogonal()
        return _SparseNormal(self.density)

    def backward_kernel(
        self,
        forward_kernel: Tensor,
        variables: Mapping[str, Tensor],
        seed: Tensor | None = None,
        *,
        linear: Linear = OUTPUTS_LAST,
    ) -> Tensor:
        composite = keras.ops.matmul(_factor(variables), variables["backward_kernel_q"])
        return linear.from_outputs_last(composite, tuple(forward_kernel.shape))

    def primitives(self, p: Projections, variables: Mapping[str, Tensor]) -> dict[str, Callable]:
        return {"decay": lambda: primitives.decay(p.forward_kernel, _factor(variables))}


def _factor(variables: Mapping[str, Tensor]) -> Tensor:
    r = variables["backward_kernel_r"]
    return r * variables["backward_mask"] if "backward_mask" in variables else r


class _Tiled:
    """Draws a wide kernel as kernels side by side, so that R Q has the kernel's scale."""

    def __init__(
        self, initializer: Callable[[str], Any], kernel_shape: tuple[int, ...], linear: Linear
    ) -> None:
        self._initializer = initializer
        self._kernel_shape = kernel_shape
        self._linear = linear

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        tiles = math.ceil(shape[-1] / self._linear.outputs(self._kernel_shape))
        drawn = [
            self._linear.outputs_last(
                self._initializer(f"backward_kernel_r_{i}")(self._kernel_shape, dtype=dtype)
            )
            for i in range(tiles)
        ]
        return keras.ops.concatenate(drawn, axis=-1)[..., : shape[-1]]


class _Orthogonal:
    """Semi-orthogonal, drawn in float32: the QR it takes knows no bfloat16."""

    def __init__(self) -> None:
        self._initializer = keras.initializers.Orthogonal()

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        return keras.ops.cast(self._initializer(shape), dtype or "float32")


class _SparseNormal:
    """Normal of variance 1/rows an element, a fixed fraction of them zero."""

    def __init__(self, density: float) -> None:
        self._density = density
        self._normal = keras.initializers.RandomNormal(stddev=1.0)
        self._mask = FixedFraction(density)

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        stddev = 1.0 / math.sqrt(shape[0] * self._density)
        values = stddev * self._normal(shape, dtype=dtype or "float32")
        return values if self._density == 1.0 else values * self._mask(shape, dtype)
