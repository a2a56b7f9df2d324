"""A learning rule: how the backward kernel is made, whether its gradient is tied, and a loss."""

from __future__ import annotations

import abc
import dataclasses
import difflib
import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from neural_alignment.alignments.projections import BilinearMap, Projections
from neural_alignment.lazy import keras, tf

Tensor = Any
Coefficient = float | Callable[[Any], Any]

_RULES: dict[str, type[Alignment]] = {}

# Keras's elementwise activations, named here so that options are checked without importing Keras.
_ACTIVATIONS = (
    "linear",
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "silu",
    "mish",
    "sigmoid",
    "hard_sigmoid",
    "tanh",
    "softplus",
    "softsign",
    "exponential",
)


def option(default: Any, help: str, choices: tuple[str, ...] | None = None) -> Any:
    """A dataclass field that is an option of a rule.

    Args:
        default: its value when not given.
        help: one line, for flags and tables.
        choices: the strings it may be, besides None.

    Returns:
        The field.
    """
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


@dataclasses.dataclass(frozen=True)
class Variable:
    """What a rule asks the layer to make.

    Args:
        shape: of the variable.
        initializer: a Keras initializer.
        trainable: whether an optimizer may change it.
    """

    shape: tuple[int, ...]
    initializer: Callable[..., Tensor]
    trainable: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alignment(abc.ABC):
    """Base of the learning rules: holds settings, no variables.

    One object may serve every layer of a model. A subclass is a frozen dataclass whose fields are
    its options, registered under its name.

    Args:
        density: fraction of the backward kernel's elements that are not fixed at zero ([P],
            sparse feedback), in (0, 1].

    Raises:
        TypeError: an option that the rule does not have.
        ValueError: an option out of range.
    """

    density: float = option(1.0, "fraction of the backward kernel that is not fixed at zero")

    name: ClassVar[str]
    tie_grad: ClassVar[bool] = False
    trains_backward_kernel: ClassVar[bool] = True
    update_forward: ClassVar[bool] = False

    def __new__(cls, **options: Any) -> Alignment:
        """Refuses unknown options with the list of those there are."""
        known = cls.option_names()
        for option_name in options:
            if option_name not in known:
                raise TypeError(
                    f"Expected an option of the rule {cls.name!r}: {', '.join(known)}. "
                    f"Received: {option_name!r}{_did_you_mean(option_name, known)}."
                )
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_option(type(self), field, getattr(self, field.name))
        if not 0.0 < self.density <= 1.0:
            raise ValueError(
                f"Expected density in (0, 1], the fraction of the backward kernel kept. "
                f"Received: density={self.density!r}"
            )

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """Names of the options, in order."""
        return tuple(field.name for field in dataclasses.fields(cls))

    def replace(self, **changes: Any) -> Alignment:
        """A copy with some options changed."""
        return dataclasses.replace(self, **changes)

    def get_config(self) -> dict[str, Any]:
        """Every option by name; schedules as Keras's serialised objects."""
        return {name: _serialize_value(getattr(self, name)) for name in self.option_names()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Alignment:
        """The object that `get_config` described."""
        return cls(**{name: _deserialize_value(value) for name, value in config.items()})

    @property
    def has_loss(self) -> bool:
        """Whether R can be other than zero."""
        return False

    @property
    def is_random(self) -> bool:
        """Whether a step draws random numbers, so that the layer must own a noise state."""
        return False

    def variables(
        self, kernel_shape: tuple[int, ...], initializer: Callable[[str], Any]
    ) -> dict[str, Variable]:
        """What the layer makes and owns for this rule, by name.

        Args:
            kernel_shape: of the forward kernel.
            initializer: gives the kernel's initializer, drawing independently for each name.

        Returns:
            Name to `Variable`.
        """
        made = {
            "backward_kernel": Variable(
                kernel_shape, initializer("backward_kernel"), self.trains_backward_kernel
            )
        }
        return made | self._mask("backward_mask", kernel_shape)

    def _mask(self, name: str, shape: tuple[int, ...]) -> dict[str, Variable]:
        if self.density == 1.0:
            return {}
        return {name: Variable(shape, FixedFraction(self.density), False)}

    def backward_kernel(
        self, forward_kernel: Tensor, variables: Mapping[str, Tensor], seed: Tensor | None = None
    ) -> Tensor:
        """B, the kernel the error goes back through. Default: the layer's own variable, masked.

        Args:
            forward_kernel: W.
            variables: what `variables` asked for, as tensors.
            seed: int32 `[2]`, new at every step, for rules that draw.

        Returns:
            A tensor of W's shape.
        """
        del forward_kernel, seed
        kernel = variables["backward_kernel"]
        return kernel * variables["backward_mask"] if "backward_mask" in variables else kernel

    def __call__(
        self,
        inputs: Tensor,
        *,
        forward_kernel: Tensor,
        backward_kernel: Tensor,
        linear: BilinearMap,
        variables: Mapping[str, Tensor] | None = None,
        bias: Tensor | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
        forward_projection: Tensor | None = None,
        step: Tensor | int | None = None,
        seed: Tensor | None = None,
    ) -> Tensor:
        """R of one layer: `sum_k coef_k * primitive_k`, isolated by stop_gradient.

        Its gradient reaches the backward kernel, the forward kernel with `update_forward`, and
        nothing else ([K] section 3 and appendix A).

        Args:
            inputs: of the layer, `[batch, ...]`.
            forward_kernel: W.
            backward_kernel: B, W's shape.
            linear: the layer's bilinear map.
            variables: the layer's variables for this rule (product needs its factor).
            bias: broadcastable to the output, or None.
            activation: of the layer; None is linear.
            forward_projection: `x W`, where it is known already.
            step: global step, for coefficients that are schedules.
            seed: int32 `[2]`, new at every step, for noise inputs.

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
        )
        return self._loss(p, variables or {}, step)

    def _projections(self, **tensors: Any) -> Projections:
        return Projections(_NO_PROJECTION_OPTIONS, **tensors)

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

    update_forward: bool = option(False, "the alignment loss trains the forward kernel too")

    @classmethod
    def coefficient_names(cls) -> tuple[str, ...]:
        """The options that are coefficients, in order."""
        return tuple(name for name in cls.option_names() if name.endswith("_coef"))

    @property
    def has_loss(self) -> bool:
        return any(getattr(self, name) != 0.0 for name in self.coefficient_names())

    @abc.abstractmethod
    def primitives(self, p: Projections, variables: Mapping[str, Tensor]) -> dict[str, Callable]:
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
                total = total + self._coefficient(f"{name}_coef", step) * value()
        return total

    def _coefficient(self, name: str, step: Tensor | int | None) -> Tensor | float:
        value = getattr(self, name)
        if not callable(value):
            return value
        if step is None:
            raise ValueError(
                f"Expected a global step for the schedule {name}={value!r}. "
                "Received: none, as in a plain `fit`. Give a number, add "
                "`neural_alignment.training.GlobalStep()` to the callbacks, or train with "
                "`neural_alignment.training`."
            )
        return keras.ops.cast(value(step), "float32")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProjectionAlignment(LayerwiseAlignment):
    """Base of the rules whose loss compares projections of an input.

    In order: noise input, centring and normalising it, batch centring the backward input, bias,
    activation, reconstruction, centring and normalising the outputs ([K] A.3, appendix B.1).

    Args:
        input_distribution: "normal" or "uniform" noise in place of the layer's input.
        input_stddev: standard deviation of the noise.
        center_input: subtract each example's mean from the input of both paths.
        normalize_input: subtract it and divide by the L2 norm.
        batch_center_backward_input: subtract the batch mean from the backward input.
        use_bias_forward: add the layer's bias to the forward projection.
        use_bias_backward: add it to the backward projection.
        activation_forward: apply the activation to the forward projection.
        activation_backward: apply it to the backward projection.
        activation_fn_override: an activation's name, in place of the layer's own.
        center_forward_output: subtract each example's mean from the forward pair.
        normalize_forward_output: subtract it and divide by the L2 norm.
        batch_center_forward_output: subtract the batch mean from the forward pair.
        center_backward_output: as `center_forward_output`, for the backward pair.
        normalize_backward_output: as `normalize_forward_output`, for the backward pair.
    """

    input_distribution: str | None = option(
        None, "noise in place of the layer's input", ("normal", "uniform")
    )
    input_stddev: float = option(1.0, "standard deviation of the noise input")
    center_input: bool = option(False, "subtract each example's mean from the input")
    normalize_input: bool = option(False, "centre the input and divide it by its L2 norm")
    batch_center_backward_input: bool = option(
        False, "subtract the batch mean from the backward path's input"
    )
    use_bias_forward: bool = option(False, "add the bias to the forward projection")
    use_bias_backward: bool = option(False, "add the bias to the backward projection")
    activation_forward: bool = option(False, "apply the activation to the forward projection")
    activation_backward: bool = option(False, "apply the activation to the backward projection")
    activation_fn_override: str | None = option(
        None, "activation of the projections in place of the layer's own", _ACTIVATIONS
    )
    center_forward_output: bool = option(
        False, "subtract each example's mean from the forward output"
    )
    normalize_forward_output: bool = option(
        False, "centre the forward output and divide it by its L2 norm"
    )
    batch_center_forward_output: bool = option(
        False, "subtract the batch mean from the forward output"
    )
    center_backward_output: bool = option(
        False, "subtract each example's mean from the backward output"
    )
    normalize_backward_output: bool = option(
        False, "centre the backward output and divide it by its L2 norm"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.input_stddev) and self.input_stddev >= 0.0):
            raise ValueError(
                "Expected a finite input_stddev >= 0, the noise's standard deviation. "
                f"Received: input_stddev={self.input_stddev!r}"
            )

    @property
    def is_random(self) -> bool:
        return super().is_random or (self.has_loss and self.input_distribution is not None)

    def _projections(self, **tensors: Any) -> Projections:
        return Projections(self, **tensors)


class FixedFraction:
    """Initializer: exactly `round(density * size)` ones at random places, zeros elsewhere.

    Every call gives the same, as each replica of a variable may make its own.

    Args:
        density: fraction of ones, in (0, 1].
    """

    def __init__(self, density: float) -> None:
        self.density = density
        self._order = keras.initializers.RandomUniform(0.0, 1.0)

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        size = math.prod(shape)
        ones = max(1, round(self.density * size))
        order = keras.ops.argsort(self._order((size,)))
        return keras.ops.reshape(keras.ops.cast(order < ones, dtype or "float32"), shape)


def register(name: str) -> Callable[[type[Alignment]], type[Alignment]]:
    """Class decorator: makes a rule known by `name` to `get`, flags, tables and tests.

    Args:
        name: of the rule.

    Returns:
        The decorator.

    Raises:
        ValueError: the name is taken.
    """

    def decorate(cls: type[Alignment]) -> type[Alignment]:
        if name in _RULES:
            raise ValueError(
                f"Expected a new rule name. Received: {name!r}, which is {_RULES[name].__name__}."
            )
        cls.name = name
        _RULES[name] = cls
        return cls

    return decorate


def names() -> tuple[str, ...]:
    """Names of the registered rules, sorted."""
    return tuple(sorted(_RULES))


def rule(name: str) -> type[Alignment]:
    """The class registered under a name.

    Args:
        name: of the rule.

    Returns:
        The class.

    Raises:
        ValueError: there is no such rule.
    """
    if name not in _RULES:
        raise ValueError(
            f"Expected a rule's name: {', '.join(names())}. "
            f"Received: {name!r}{_did_you_mean(name, names())}."
        )
    return _RULES[name]


def get(identifier: str | Mapping[str, Any] | Alignment | None) -> Alignment | None:
    """A rule from its name, its config or itself; None is backpropagation.

    Args:
        identifier: "symmetric", `{"name": "symmetric", "self_coef": 1e-3}`, an `Alignment`, None
            or "backprop".

    Returns:
        The rule, or None.

    Raises:
        ValueError: an unknown name.
        TypeError: an unknown option, or an identifier of another type.
    """
    if identifier is None or identifier == "backprop" or isinstance(identifier, Alignment):
        return identifier if isinstance(identifier, Alignment) else None
    if isinstance(identifier, str):
        return rule(identifier)()
    if isinstance(identifier, Mapping) and "name" in identifier:
        options = dict(identifier)
        return rule(options.pop("name")).from_config(options)
    raise TypeError(
        "Expected a rule's name, a config with a 'name', an Alignment or None. "
        f"Received: {identifier!r}"
    )


def serialize(alignment: Alignment | None) -> dict[str, Any] | None:
    """The config that `get` turns back into an equal rule.

    Args:
        alignment: a rule or None.

    Returns:
        `{"name": ..., option: value, ...}`, or None.
    """
    if alignment is None:
        return None
    return {"name": alignment.name} | alignment.get_config()


def _did_you_mean(name: Any, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(str(name), known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _check_option(cls: type[Alignment], field: dataclasses.Field, value: Any) -> None:
    def refuse(expected: str) -> None:
        raise ValueError(
            f"Expected {expected} for {field.name} of the rule {cls.name!r}. "
            f"Received: {field.name}={value!r}"
        )

    choices = field.metadata["choices"]
    if value is None and field.default is None:
        return
    if choices and value not in choices:
        refuse(f"one of {', '.join(choices)}")
    if field.name.endswith("_coef"):
        if not callable(value) and not _is_finite(value):
            refuse("a finite number or a schedule (a callable of the global step)")
    elif isinstance(field.default, bool):
        if not isinstance(value, bool):
            refuse("True or False")
    elif isinstance(field.default, float):
        if not _is_finite(value):
            refuse("a finite number")
    elif not isinstance(value, str):
        refuse("a string")


def _is_finite(value: Any) -> bool:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _serialize_value(value: Any) -> Any:
    if not callable(value):
        return value
    if not hasattr(value, "get_config"):
        raise TypeError(
            "Expected a schedule with get_config, such as those of "
            "neural_alignment.optimizers.rate_scheduler, to save a rule. "
            f"Received: {value!r}"
        )
    return keras.saving.serialize_keras_object(value)


def _deserialize_value(value: Any) -> Any:
    return keras.saving.deserialize_keras_object(value) if isinstance(value, Mapping) else value


def draw_seed(seed: Tensor, salt: int) -> Tensor:
    """A seed for one more draw of the same step.

    Args:
        seed: int32 `[2]`.
        salt: which draw.

    Returns:
        int32 `[2]`.
    """
    return seed + tf.constant([salt, 0], seed.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _NoProjectionOptions(ProjectionAlignment):
    """The projection options of a rule that has none: all off."""

    name: ClassVar[str] = "none"

    def primitives(self, p: Projections, variables: Mapping[str, Tensor]) -> dict[str, Callable]:
        return {}


_NO_PROJECTION_OPTIONS = _NoProjectionOptions()
