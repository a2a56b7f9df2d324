"""A learning rule: how the backward kernel is made, whether its gradient is tied, and a loss."""

from __future__ import annotations

import abc
import dataclasses
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from neural_alignment.alignments import former
from neural_alignment.alignments.equilibrium import AlignmentWarning as AlignmentWarning
from neural_alignment.alignments.facts import Facts
from neural_alignment.alignments.initializers import FixedFraction
from neural_alignment.alignments.options import Options, ProjectionOptions, option
from neural_alignment.alignments.projections import Projections
from neural_alignment.alignments.variable import Variable as Variable
from neural_alignment.deprecation import moved
from neural_alignment.lazy import keras
from neural_alignment.maps import Linear, Matmul

Tensor = Any

OUTPUTS_LAST = Matmul()  # where a kernel's last axis counts outputs, as Dense and Conv have it

_ELSEWHERE = ("ProjectionAlignment", "get", "names", "register", "rule", "serialize")
__getattr__ = moved(
    __name__,
    dict.fromkeys(_ELSEWHERE, "neural_alignment.alignments")
    | {"draw_seed": "neural_alignment.noise"},
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alignment(Facts, Options, abc.ABC):
    """Base of the learning rules: holds settings, no variables.

    One object may serve every layer of a model. A subclass is a frozen dataclass whose fields are
    its options, registered under its name; what the pages and tests should know of it stands in
    the facts of its class (`Facts`).

    Args:
        density: fraction of the backward kernel's elements that are not fixed at zero ([P],
            sparse feedback), in (0, 1].
        forward_density: the same of W ([P] appendix B), whose other elements start and stay at 0.

    Raises:
        TypeError: an option that the rule does not have.
        ValueError: an option out of range.
    """

    density: float = option(1.0, "fraction of the backward kernel that is not fixed at zero")
    forward_density: float = option(1.0, "fraction of the forward kernel that is not fixed at zero")

    name: ClassVar[str]
    tie_grad: ClassVar[bool] = False
    trains_backward_kernel: ClassVar[bool] = True
    update_forward: ClassVar[bool] = False
    # Whether R looks at what flows through the layer; one that looks at the kernels alone is the
    # same at every call of a layer in a step, and is made once.
    compares_projections: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, kernel in (("density", "backward"), ("forward_density", "forward")):
            value = getattr(self, name)
            if not 0.0 < value <= 1.0 or (self.of_model and name != "density" and value != 1.0):
                raise ValueError(
                    f"Expected {name} in (0, 1], the fraction of the {kernel} kernel kept, and 1 "
                    f"where layers are Keras's own. Received: {name}={value!r}"
                )

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Lets rules written before maps had a geometry take no `linear`."""
        super().__init_subclass__(**kwargs)
        former.let_take_no_linear(cls)

    @classmethod
    def described(cls) -> str:
        return f"the rule {cls.name!r}"

    @property
    def has_loss(self) -> bool:
        """Whether R can be other than zero."""
        return False

    @property
    def updates_itself(self) -> bool:
        """Whether the rule says itself how its variables move, by `update`."""
        return type(self).update is not Alignment.update

    @property
    def needs_linear_updates(self) -> bool:
        """Whether it is right only where updates are linear in the gradients (gd, momentum)."""
        return False

    @property
    def is_random(self) -> bool:
        """Whether a step draws random numbers, so that the layer must own a noise state."""
        return False

    def variables(
        self,
        kernel_shape: tuple[int, ...],
        initializer: Callable[[str], Any],
        *,
        linear: Linear = OUTPUTS_LAST,
    ) -> dict[str, Variable]:
        """What the layer makes and owns for this rule, by name.

        Args:
            kernel_shape: of the forward kernel.
            initializer: gives the kernel's initializer, drawing independently for each name.
            linear: the layer's map, which knows what the kernel's axes are.

        Returns:
            Name to `Variable`.
        """
        del linear
        kernel = Variable(kernel_shape, initializer("backward_kernel"), self.trains_backward_kernel)
        return {"backward_kernel": kernel, **self._mask("backward_mask", kernel_shape)}

    def _mask(self, name: str, shape: tuple[int, ...]) -> dict[str, Variable]:
        if self.density == 1.0:
            return {}
        return {name: Variable(shape, FixedFraction(self.density), False)}

    def backward_kernel(
        self,
        forward_kernel: Tensor,
        variables: Mapping[str, Tensor],
        seed: Tensor | None = None,
        *,
        linear: Linear = OUTPUTS_LAST,
    ) -> Tensor:
        """B, the kernel the error goes back through. Default: the layer's own variable, masked.

        Args:
            forward_kernel: W.
            variables: what `variables` asked for, as tensors.
            seed: int32 `[2]`, new at every step, for rules that draw.
            linear: the layer's map, which knows what the kernel's axes are.

        Returns:
            A tensor of W's shape.
        """
        del forward_kernel, seed, linear
        kernel = variables["backward_kernel"]
        return kernel * variables["backward_mask"] if "backward_mask" in variables else kernel

    def factors(
        self, variables: Mapping[str, Tensor], *, linear: Linear = OUTPUTS_LAST
    ) -> tuple[Tensor, Tensor] | None:
        """R `[in, expanded]` and Q `[expanded, units]` of `B = R Q`, R trained by `dW Q^T`.

        Args:
            variables: what `variables` asked for, as tensors.
            linear: the layer's map.

        Returns:
            The pair; None, the default, where the error goes through `backward_kernel`.
        """
        del variables, linear
        return None

    def doubts(self) -> list[str]:
        """Why these settings cannot align B with W, and what they need; docs/settings.md.

        Returns:
            A sentence or two for each reason; none where the settings are sound, as far as numbers
            can tell. Schedules are not judged.
        """
        return []

    def rule_of(self, name: str) -> Alignment:
        """The rule that a variable is of: this one, or one of those that it is made of.

        Args:
            name: of a variable that `variables` asked for.

        Returns:
            The rule.
        """
        del name
        return self

    def before(self, activation: str) -> Self:
        """The rule for a layer whose activation is a layer of its own behind it.

        Args:
            activation: its name.

        Returns:
            A rule; itself where it applies no activation, or names one.
        """
        if getattr(self, "activation_fn_override", activation) is not None:
            return self
        return self.replace(activation_fn_override=activation)

    def input_noise(self, inputs: Tensor, seed: Tensor | None) -> Tensor:
        """Noise for a layer's input, where the rule `disturbs_input`.

        Args:
            inputs: x.
            seed: int32 `[2]`, new at every step.

        Returns:
            A tensor of x's shape and type.
        """
        del seed
        return keras.ops.zeros_like(inputs)

    def update(
        self,
        forward_kernel: Tensor,
        variables: Mapping[str, Tensor],
        step: Tensor | int | None,
        *,
        linear: Linear = OUTPUTS_LAST,
    ) -> dict[str, Tensor]:
        """New values of variables that the rule moves itself, without a loss. Default: none.

        They are set in the training call, as BatchNorm sets its statistics: once a step and layer,
        after the error has been sent through the old ones; no optimizer sees the variables.

        Args:
            forward_kernel: W, before the step's update.
            variables: what `variables` asked for, as tensors.
            step: the global step; None where it is not known, as in a plain `fit`.
            linear: the layer's map.

        Returns:
            Name to new value.
        """
        del forward_kernel, variables, step, linear
        return {}

    def tied_gradient(
        self,
        inputs: Tensor,
        upstream: Tensor,
        kernel_gradient: Tensor,
        *,
        variables: Mapping[str, Tensor],
        linear: Linear = OUTPUTS_LAST,
    ) -> Tensor:
        """What flows into B where the gradient is tied. Default: dW.

        Args:
            inputs: x.
            upstream: dy, the error at the output of the map.
            kernel_gradient: dW, `x^T dy`.
            variables: what `variables` asked for, as tensors.
            linear: the layer's map.

        Returns:
            A tensor of W's shape.
        """
        del inputs, upstream, variables, linear
        return kernel_gradient

    def __call__(
        self,
        inputs: Tensor,
        *,
        forward_kernel: Tensor,
        backward_kernel: Tensor | Callable[[], Tensor],
        linear: Linear,
        variables: Mapping[str, Tensor] | None = None,
        bias: Tensor | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
        forward_projection: Tensor | None = None,
        step: Tensor | int | None = None,
        seed: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """R of one layer: `sum_k coef_k * primitive_k`, isolated by stop_gradient.

        Its gradient reaches the backward kernel, the forward kernel with `update_forward`, and
        nothing else ([K] section 3 and appendix A).

        Args:
            inputs: of the layer, `[batch, ...]`.
            forward_kernel: W.
            backward_kernel: B, W's shape, or a function that makes it where R asks for it.
            linear: the layer's map.
            variables: the layer's variables for this rule (product needs its factor).
            bias: broadcastable to the output, or None.
            activation: of the layer; None is linear.
            forward_projection: `x W`, where it is known already.
            step: global step, for coefficients that are schedules.
            seed: int32 `[2]`, new at every step, for noise inputs.
            mask: bool, the leading axes of inputs (`[batch, time]`): False leaves a place out of R.

        Returns:
            A float32 scalar.

        Raises:
            ValueError: a schedule without a step, or noise without a seed.
        """
        stop = keras.ops.stop_gradient
        if self.update_forward:
            # f must then depend on W, but not on the input that the known projection came from.
            forward_projection = None
        p = self._projections(
            linear=linear,
            inputs=stop(inputs),
            forward_kernel=forward_kernel if self.update_forward else stop(forward_kernel),
            backward_kernel=backward_kernel,
            bias=None if bias is None else stop(bias),
            activation=activation,
            forward_projection=None if forward_projection is None else stop(forward_projection),
            seed=seed,
            mask=mask,
        )
        return self._loss(p, variables or {}, step)

    def _projections(self, **tensors: Any) -> Projections:
        return Projections(ProjectionOptions(), **tensors)

    def _loss(
        self, p: Projections, variables: Mapping[str, Tensor], step: Tensor | int | None
    ) -> Tensor:
        del p, variables, step
        return keras.ops.zeros((), "float32")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerwiseAlignment(Alignment):
    """Base of the rules with a layer-wise loss R.

    A subclass has a field `NAME_coef` for every primitive NAME that its `primitives` returns.

    Args:
        update_forward: R trains the forward kernel too.
    """

    # An option here, a fact of the class in the base.
    update_forward: bool = option(  # type: ignore[misc]
        False, "the alignment loss trains the forward kernel too"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for doubt in self.doubts():
            # Always from this place, so that Python's default filter shows each text once.
            warnings.warn(f"{type(self).__name__}: {doubt}", AlignmentWarning, stacklevel=1)

    def doubts(self) -> list[str]:
        if all(getattr(self, name) == 0.0 for name in self.coefficient_names()):
            zeros = ", ".join(f"{name}=0" for name in self.coefficient_names())
            return [f"R is 0, and B stays as drawn. Expected coefficients > 0. Received: {zeros}"]
        return []

    @classmethod
    def coefficient_names(cls) -> tuple[str, ...]:
        """The options that are coefficients, in order."""
        return tuple(name for name in cls.option_names() if name.endswith("_coef"))

    @property
    def has_loss(self) -> bool:
        return any(getattr(self, name) != 0.0 for name in self.coefficient_names())

    @abc.abstractmethod
    def primitives(
        self, p: Projections, variables: Mapping[str, Tensor]
    ) -> dict[str, Callable[[], Tensor]]:
        """The primitives of this rule by name, each a function of no argument.

        Args:
            p: input, kernels, projections and reconstructions.
            variables: the layer's variables for this rule.

        Returns:
            Name to a function that gives the primitive's value; called where its coefficient
            is not zero.
        """

    def _loss(
        self, p: Projections, variables: Mapping[str, Tensor], step: Tensor | int | None
    ) -> Tensor:
        total = keras.ops.zeros((), "float32")
        for name, value in self.primitives(p, variables).items():
            if getattr(self, f"{name}_coef") != 0.0:
                term = keras.ops.multiply(self._coefficient(f"{name}_coef", step), value())
                total = total + keras.ops.cast(term, "float32")
        return total

    def _coefficient(self, name: str, step: Tensor | int | None) -> Tensor | float:
        value = getattr(self, name)
        if not callable(value):
            return value
        if step is None:
            raise ValueError(
                f"Expected a global step for the schedule {name}={value!r}. "
                "Received: none, as in a plain `fit`. Give a number, add "
                "`neural_alignment.callbacks.GlobalStep()` to the callbacks, or train with "
                "`neural_alignment.training`."
            )
        return keras.ops.cast(value(step), "float32")
