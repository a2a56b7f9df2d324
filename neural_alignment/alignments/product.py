"""Product feedback alignment."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from neural_alignment.alignments import equilibrium, primitives
from neural_alignment.alignments.alignment import (
    OUTPUTS_LAST,
    LayerwiseAlignment,
    Tensor,
    Variable,
)
from neural_alignment.alignments.facts import Examples
from neural_alignment.alignments.initializers import FixedFraction, Masked
from neural_alignment.alignments.options import Coefficient, inherited, option
from neural_alignment.alignments.projections import Projections
from neural_alignment.alignments.registry import register
from neural_alignment.lazy import keras
from neural_alignment.maps import Linear, Matmul
from neural_alignment.maps.factored import by_fewer


@register("product")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Product(LayerwiseAlignment):
    """Product feedback alignment (PFA): the backward kernel is a product of two.

    `B = R Q`: Q `[N, N_out]` fixed with `Q^T Q ~ 1`, R `[*window, N_in, N]` trained by the tied
    gradient `dR = dW Q^T` and decay, `N = expansion * N_out`. The error goes back through the
    composite kernel ([P] section 2), or in Dense layers with a small batch through Q and then R,
    which is the same in fewer multiplications.

    Where the update is linear in the gradients (gd, momentum, with decay or without), `K = R Q`
    obeys `dK = dW G` with `G = Q^T Q`, whatever the expansion, and nothing else need be kept:
    `factored=False` keeps K and G, for the same training at about the cost of backpropagation.

    R decays W too (`update_forward`), as for Kolen–Pollack; the same holds for the time that
    alignment takes. What stays is the spread of Q^T Q, of `1 / sqrt(expansion)`, and nothing with
    feedback="orthogonal". docs/settings.md has the recipe.

    Args:
        decay_coef: of the decay primitive, `sum W^2 + sum R^2`.
        update_forward: R decays W as well.
        expansion: N / N_out; N is rounded up.
        feedback: how Q is drawn: "gaussian" (variance 1/N an element; PFA), "orthogonal"
            (semi-orthogonal columns; PFA-o), "identity" (Kolen–Pollack; needs expansion 1).
        factored: keep R and Q; False keeps K and G. Its R counts `sum K^2` for `sum R^2`: the
            gradient is that of the factored form, the value is not.
        scale: how R is drawn: "tiled" (kernels of the layer's own initializer side by side, so
            that B starts at W's scale) or "glorot" (over `[expanded, inputs]`, as [P]'s code; |B|
            starts at 0.3 to 0.5 of |W|).
        density: fraction of Q's and of R's elements that are not fixed at zero; the others of Q
            are scaled so that its variance stays 1/N.

    Raises:
        ValueError: an option out of range, or a feedback or form that goes with no such expansion
            or density.
    """

    decay_coef: Coefficient = option(1e-3, "coefficient of the decay primitive")
    # An option here, a fact of the class in the first base.
    update_forward: bool = inherited(  # type: ignore[misc]
        LayerwiseAlignment, "update_forward", True
    )
    expansion: float = option(10.0, "size of the expanded layer, as a multiple of the outputs")
    feedback: str = option(
        "gaussian", "how the fixed factor Q is drawn", ("gaussian", "orthogonal", "identity")
    )
    factored: bool = option(
        True, "keep R and Q; false keeps R Q and Q^T Q, exact where updates are linear in gradients"
    )
    scale: str = option(
        "tiled",
        "how the trained factor R is drawn: at the kernel's scale, or the authors' way",
        ("tiled", "glorot"),
    )

    tie_grad: ClassVar[bool] = True
    compares_projections: ClassVar[bool] = False
    backward: ClassVar[str] = (
        "a product of two: the left one trained by dW and R (its start {scale}), the right one "
        "fixed ({feedback})"
    )
    loss: ClassVar[str] = "decay_coef·decay, of W and the left factor"
    sources: ClassVar[tuple[str, ...]] = ("[P]",)
    examples: ClassVar[Examples] = {
        "orthogonal": {"feedback": "orthogonal", "expansion": 2.5, "update_forward": False},
        "identity": {"feedback": "identity", "expansion": 1.0},
        "composite": {"factored": False, "expansion": 3.0, "scale": "glorot"},
        "sparse": {"density": 0.5, "expansion": 3.0},
    }

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
        if not self.factored and self.density != 1.0:
            raise ValueError(
                "Expected density=1 with factored=False, since a mask on R has no counterpart on "
                f"R Q; use factored=True. Received: density={self.density!r}"
            )

    @property
    def needs_linear_updates(self) -> bool:
        return not self.factored

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
        q_shape, q = (expanded, outputs), self._q_initializer()
        if self.scale == "tiled":
            r = _Tiled(initializer, kernel_shape, linear)
        else:
            r = keras.initializers.GlorotUniform()
        if not self.factored:
            composite = _Composite(lambda dtype: (r(r_shape, dtype), q(q_shape, dtype)), linear)
            gram = _Gram(lambda dtype: q(q_shape, dtype))
            return {
                "backward_kernel_rq": Variable(kernel_shape, composite, True),
                "backward_kernel_g": Variable((outputs, outputs), gram, False),
            }
        made = {
            "backward_kernel_r": Variable(r_shape, r, True),
            "backward_kernel_q": Variable(q_shape, q, False),
        }
        return made | self._mask("backward_mask", r_shape)

    def _q_initializer(self) -> Callable[..., Tensor]:
        if self.feedback == "identity":
            return keras.initializers.Identity()
        if self.feedback == "orthogonal":
            return _Orthogonal()
        # Of variance 1 / (density N) an element that is not fixed at zero.
        normal = keras.initializers.VarianceScaling(
            1.0 / self.density, mode="fan_in", distribution="untruncated_normal"
        )
        return Masked(normal, FixedFraction(self.density))

    def backward_kernel(
        self,
        forward_kernel: Tensor,
        variables: Mapping[str, Tensor],
        seed: Tensor | None = None,
        *,
        linear: Linear = OUTPUTS_LAST,
    ) -> Tensor:
        if not self.factored:
            return variables["backward_kernel_rq"]
        composite = keras.ops.matmul(_factor(variables), variables["backward_kernel_q"])
        return linear.from_outputs_last(composite, tuple(forward_kernel.shape))

    def factors(
        self, variables: Mapping[str, Tensor], *, linear: Linear = OUTPUTS_LAST
    ) -> tuple[Tensor, Tensor] | None:
        as_here = all(
            getattr(type(self), name) is getattr(Product, name)
            for name in ("backward_kernel", "tied_gradient")
        )
        if not self.factored or not as_here or type(linear) is not Matmul:
            return None
        return _factor(variables), variables["backward_kernel_q"]

    def tied_gradient(
        self,
        inputs: Tensor,
        upstream: Tensor,
        kernel_gradient: Tensor,
        *,
        variables: Mapping[str, Tensor],
        linear: Linear = OUTPUTS_LAST,
    ) -> Tensor:
        """`dK = dW G = x^T (dy G)`, whichever takes fewer multiplications."""
        if self.factored:
            return kernel_gradient
        ops, shape = keras.ops, tuple(kernel_gradient.shape)
        gram = ops.cast(variables["backward_kernel_g"], kernel_gradient.dtype)
        axis = linear.output_axis(inputs, shape)

        def of_the_kernel() -> Tensor:
            mixed = ops.matmul(linear.outputs_last(kernel_gradient), gram)
            return linear.from_outputs_last(mixed, shape)

        def of_the_error() -> Tensor:
            mixed = ops.moveaxis(ops.matmul(ops.moveaxis(upstream, axis, -1), gram), -1, axis)
            return linear.kernel_gradient(inputs, kernel_gradient, mixed)

        if axis is None:
            return of_the_kernel()
        sizes = linear.fan_in(shape), linear.outputs(shape)
        return by_fewer(upstream, *sizes, of_the_error, of_the_kernel)

    def doubts(self) -> list[str]:
        return list(equilibrium.tied_doubts("decay_coef", self.decay_coef))

    def primitives(
        self, p: Projections, variables: Mapping[str, Tensor]
    ) -> dict[str, Callable[[], Tensor]]:
        trained = _factor(variables) if self.factored else p.backward_kernel
        return {"decay": lambda: primitives.decay(p.forward_kernel, trained)}


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


def _wide(dtype: Any) -> str:
    """What a product is made in: at least float32."""
    return "float64" if dtype == "float64" else "float32"


class _Composite:
    """R Q, from the same draws as the factors."""

    def __init__(self, factors: Callable[[str], tuple[Tensor, Tensor]], linear: Linear) -> None:
        self._factors = factors
        self._linear = linear

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        made = self._linear.from_outputs_last(keras.ops.matmul(*self._factors(_wide(dtype))), shape)
        return keras.ops.cast(made, dtype or "float32")


class _Gram:
    """`Q^T Q`."""

    def __init__(self, factor: Callable[[str], Tensor]) -> None:
        self._factor = factor

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        q = self._factor(_wide(dtype))
        return keras.ops.cast(keras.ops.matmul(keras.ops.transpose(q), q), dtype or "float32")


class _Orthogonal:
    """Semi-orthogonal, drawn in float32: the QR it takes knows no bfloat16."""

    def __init__(self) -> None:
        self._initializer = keras.initializers.Orthogonal()

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        return keras.ops.cast(self._initializer(shape), dtype or "float32")
