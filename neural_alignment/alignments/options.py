"""Options: the fields of a frozen dataclass, checked, described, saved."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any, Self

from neural_alignment.lazy import keras
from neural_alignment.messages import did_you_mean

Coefficient = float | Callable[[Any], Any]

# Keras's elementwise activations, named here so that options are checked without importing Keras.
ACTIVATIONS = (
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


def option(default: Any, help: str, choices: tuple[str, ...] | None = None, paper: str = "") -> Any:
    """A dataclass field that is an option.

    Args:
        default: its value when not given.
        help: one line, for flags and tables.
        choices: the strings it may be, besides None.
        paper: its name in Table 5 of [K].

    Returns:
        The field.
    """
    metadata = {"help": help, "choices": choices, "optional": default is None, "paper": paper}
    return dataclasses.field(default=default, metadata=metadata)


def inherited(cls: type[Options], name: str, default: Any) -> Any:
    """An option of a base class with another default.

    Args:
        cls: the base class.
        name: of its option.
        default: in the class that inherits it.

    Returns:
        The field.
    """
    (field,) = (field for field in dataclasses.fields(cls) if field.name == name)
    return dataclasses.field(default=default, metadata=field.metadata)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Base of what is configured: every field is an option, checked when the object is made.

    Raises:
        TypeError: an option that there is not.
        ValueError: an option out of range.
    """

    def __new__(cls, **options: Any) -> Self:
        """Refuses unknown options with the list of those there are."""
        known = cls.option_names()
        for option_name in options:
            if option_name not in known:
                raise TypeError(
                    f"Expected an option of {cls.described()}: {', '.join(known)}. "
                    f"Received: {option_name!r}{did_you_mean(option_name, known)}."
                )
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_option(type(self), field, getattr(self, field.name))

    @classmethod
    def described(cls) -> str:
        """What these are the options of, for messages."""
        return cls.__name__

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """Names of the options, in order."""
        return tuple(field.name for field in dataclasses.fields(cls))

    def replace(self, **changes: Any) -> Self:
        """A copy with some options changed."""
        return dataclasses.replace(self, **changes)

    def get_config(self) -> dict[str, Any]:
        """Every option by name; schedules as Keras's serialised objects."""
        return {name: _serialize_value(getattr(self, name)) for name in self.option_names()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The object that `get_config` described."""
        return cls(**{name: _deserialize_value(value) for name, value in config.items()})


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProjectionOptions(Options):
    """How the input, the projections and the reconstructions of a layer are made.

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

    Raises:
        ValueError: an option out of range.
    """

    input_distribution: str | None = option(
        None, "noise in place of the layer's input", ("normal", "uniform")
    )
    input_stddev: float = option(1.0, "standard deviation of the noise input", paper="noise σ")
    center_input: bool = option(
        False, "subtract each example's mean from the input", paper="BI FWMC"
    )
    normalize_input: bool = option(
        False, "centre the input and divide it by its L2 norm", paper="BI FWL2N"
    )
    batch_center_backward_input: bool = option(
        False, "subtract the batch mean from the backward path's input", paper="BI BWMC"
    )
    use_bias_forward: bool = option(
        False, "add the bias to the forward projection", paper="FO Bias"
    )
    use_bias_backward: bool = option(
        False, "add the bias to the backward projection", paper="BO Bias"
    )
    activation_forward: bool = option(
        False, "apply the activation to the forward projection", paper="FO ReLU"
    )
    activation_backward: bool = option(
        False, "apply the activation to the backward projection", paper="BO ReLU"
    )
    activation_fn_override: str | None = option(
        None, "activation of the projections in place of the layer's own", ACTIVATIONS
    )
    center_forward_output: bool = option(
        False, "subtract each example's mean from the forward output", paper="FO FWMC"
    )
    normalize_forward_output: bool = option(
        False, "centre the forward output and divide it by its L2 norm", paper="FO FWL2N"
    )
    batch_center_forward_output: bool = option(
        False, "subtract the batch mean from the forward output", paper="FO BWMC"
    )
    center_backward_output: bool = option(
        False, "subtract each example's mean from the backward output", paper="BO FWMC"
    )
    normalize_backward_output: bool = option(
        False, "centre the backward output and divide it by its L2 norm", paper="BO FWL2N"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.input_stddev) and self.input_stddev >= 0.0):
            raise ValueError(
                "Expected a finite input_stddev >= 0, the noise's standard deviation. "
                f"Received: input_stddev={self.input_stddev!r}"
            )


def _check_option(cls: type[Options], field: dataclasses.Field[Any], value: Any) -> None:
    def refuse(expected: str) -> None:
        raise ValueError(
            f"Expected {expected} for {field.name} of {cls.described()}. "
            f"Received: {field.name}={value!r}"
        )

    choices = field.metadata["choices"]
    if value is None and field.metadata["optional"]:
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
