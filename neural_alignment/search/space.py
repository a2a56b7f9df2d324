"""Search spaces: parameters, their distributions, and the training flags they set.

A space is a tree: an option of a choice may fix more flags and hold more parameters, which exist
only where that option is taken.
"""

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

DISTRIBUTIONS = ("uniform", "loguniform", "integer", "choice", "boolean")
FlagValue = bool | int | float | str
# The search sets the first three itself; the others could set anything behind its back.
RESERVED = ("workdir", "train_epochs", "max_epochs", "preset", "flagfile")


class SpaceError(ValueError):
    """A search space that cannot be used; the message says which part of it, and why."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option of a choice: its value, the flags it fixes and the parameters it governs."""

    value: FlagValue
    flags: Mapping[str, FlagValue] = field(default_factory=dict)
    parameters: tuple["Parameter", ...] = ()


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One random variable of a space.

    The flag's value is the drawn one, or, with `times`, value * (value of the flag `times`): an
    amp/decay ratio gives amp_coef = ratio * decay_coef.

    Args:
        name: Its name in tables and files; unique in the space.
        distribution: One of `DISTRIBUTIONS`.
        flag: The training flag it sets; None for a choice whose options set flags themselves.
        low: Lower bound, in the flag's unit (uniform, loguniform, integer).
        high: Upper bound, included.
        times: A flag to multiply with.
        options: The options of a choice (a boolean's are False and True).
    """

    name: str
    distribution: str
    flag: str | None = None
    low: float | None = None
    high: float | None = None
    times: str | None = None
    options: tuple[Option, ...] = ()

    @property
    def continuous(self) -> bool:
        """Whether it is drawn from an interval of real numbers."""
        return self.distribution in ("uniform", "loguniform")

    def index(self, value: FlagValue) -> int:
        """The position of the option whose value this is.

        Raises:
            SpaceError: no option has this value.
        """
        for position, option in enumerate(self.options):
            # True == 1 in Python, but they are different flag values.
            if option.value == value and isinstance(option.value, bool) == isinstance(value, bool):
                return position
        known = [option.value for option in self.options]
        raise SpaceError(f"{self.name}: Expected one of {known}. Received {value!r}.")

    def contains(self, value: FlagValue) -> bool:
        """Whether the value is one it can take."""
        if self.options:
            return any(option.value == value for option in self.options)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if self.distribution == "integer" and value != int(value):
            return False
        return self.low <= value <= self.high


@dataclass(frozen=True, kw_only=True)
class Space:
    """A search space: fixed training flags, and parameters that set the others.

    Args:
        name: What the space is called.
        description: One sentence.
        schedule_epochs: Epochs of the schedule that the best settings are trained for.
        max_epochs: Epochs of that schedule after which a trial stops.
        flags: Training flags that are the same in every trial.
        parameters: What is searched.
    """

    name: str
    description: str = ""
    schedule_epochs: float
    max_epochs: float
    flags: Mapping[str, FlagValue] = field(default_factory=dict)
    parameters: tuple[Parameter, ...] = ()

    def walk(self) -> Iterator[Parameter]:
        """Every parameter of the tree, also those only some options have."""
        return _walk(self.parameters)

    def active(self, settings: Mapping[str, FlagValue]) -> Iterator[Parameter]:
        """The parameters that exist under these settings, in the tree's order."""
        return _active(self.parameters, settings)

    def contains(self, settings: Mapping[str, FlagValue]) -> bool:
        """Whether the settings (parameter name to value) are a point of the space."""
        names = set()
        for parameter in self.active(settings):
            if parameter.name not in settings:
                return False
            if not parameter.contains(settings[parameter.name]):
                return False
            names.add(parameter.name)
        return names == set(settings)

    def training_flags(self, settings: Mapping[str, FlagValue]) -> dict[str, FlagValue]:
        """The training flags of a point: the fixed ones, the options', the parameters'.

        Args:
            settings: Parameter name to value, for the parameters that exist at this point.

        Returns:
            Flag name to value.

        Raises:
            SpaceError: the settings are not a point of the space.
        """
        flags = dict(self.flags)
        products = []
        for parameter in self.active(settings):
            value = settings[parameter.name]
            if not parameter.contains(value):
                raise SpaceError(f"{parameter.name} cannot be {value!r} in the space {self.name}.")
            if parameter.options:
                flags.update(parameter.options[parameter.index(value)].flags)
            if parameter.flag:
                flags[parameter.flag] = value
            if parameter.times:
                products.append(parameter)
        for parameter in products:
            flags[parameter.flag] = settings[parameter.name] * flags[parameter.times]
        return flags

    def with_flags(self, extra: Mapping[str, FlagValue]) -> "Space":
        """The same space with more fixed flags.

        Raises:
            SpaceError: a parameter or an option sets one of these flags.
        """
        for flag in extra:
            if flag in flags_set(self.parameters):
                raise SpaceError(f"The space {self.name} itself chooses --{flag}; leave it out.")
        return replace(self, flags={**self.flags, **extra})

    def to_data(self) -> dict[str, Any]:
        """The space as plain data, as a space file holds it."""
        return {
            "name": self.name,
            "description": self.description,
            "schedule_epochs": self.schedule_epochs,
            "max_epochs": self.max_epochs,
            "flags": dict(self.flags),
            "parameters": [_parameter_data(parameter) for parameter in self.parameters],
        }


def schedule_epochs(flags: Mapping[str, FlagValue], epochs: float) -> float:
    """Training epochs that a trial needs to get to an epoch of the loss's schedule.

    d + (n + 1) * epochs: the schedule starts after `delay_epochs` d, and where every (n+1)-th step
    is an alignment step it is stretched by n + 1 ([K] B.1: one mirror step a batch).

    Args:
        flags: A trial's training flags.
        epochs: Epochs of the schedule.

    Returns:
        Epochs, for --train_epochs or --max_epochs.

    Raises:
        SpaceError: one of the two flags is not a number.
    """
    for name in ("delay_epochs", "alternate_step_freq"):
        if not is_number(flags.get(name) or 0):
            raise SpaceError(f"--{name}: Expected a number. Received {flags[name]!r}.")
    delay = flags.get("delay_epochs") or 0
    stretch = (flags.get("alternate_step_freq") or 0) + 1
    total = delay + stretch * epochs
    return int(total) if total == int(total) else total


def random_points(space: Space, number: int, seed: int) -> Iterator[dict[str, FlagValue]]:
    """Points of a space, drawn from its distributions without hyperopt.

    Args:
        space: The space.
        number: How many.
        seed: Of the draws.
    """
    rng = random.Random(seed)
    for _ in range(number):
        settings: dict[str, FlagValue] = {}
        # A choice is drawn before the parameters that it governs are walked.
        for parameter in _active(space.parameters, settings):
            settings[parameter.name] = _draw(parameter, rng)
        yield settings


def _draw(parameter: Parameter, rng: random.Random) -> FlagValue:
    if parameter.options:
        return rng.choice(parameter.options).value
    if parameter.distribution == "integer":
        return rng.randint(int(parameter.low), int(parameter.high))
    if parameter.distribution == "loguniform":
        drawn = math.exp(rng.uniform(math.log(parameter.low), math.log(parameter.high)))
        return min(max(drawn, parameter.low), parameter.high)
    return rng.uniform(parameter.low, parameter.high)


def is_number(value: Any) -> bool:
    """Whether a flag's value is a finite number; a boolean is none."""
    return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)


def flags_set(parameters: tuple[Parameter, ...]) -> set[str]:
    """All flags that these parameters, their options and what those govern may set."""
    flags: set[str] = set()
    for parameter in _walk(parameters):
        flags |= {parameter.flag} - {None}
        for option in parameter.options:
            flags |= set(option.flags)
    return flags


def _walk(parameters: tuple[Parameter, ...]) -> Iterator[Parameter]:
    for parameter in parameters:
        yield parameter
        for option in parameter.options:
            yield from _walk(option.parameters)


def _active(
    parameters: tuple[Parameter, ...], settings: Mapping[str, FlagValue]
) -> Iterator[Parameter]:
    for parameter in parameters:
        yield parameter
        if parameter.options and parameter.name in settings:
            for option in parameter.options:
                if option.value == settings[parameter.name]:
                    yield from _active(option.parameters, settings)


def _parameter_data(parameter: Parameter) -> dict[str, Any]:
    data: dict[str, Any] = {"name": parameter.name, "distribution": parameter.distribution}
    for key in ("flag", "low", "high", "times"):
        if getattr(parameter, key) is not None:
            data[key] = getattr(parameter, key)
    if parameter.distribution == "choice":
        data["options"] = [
            {
                "value": option.value,
                "flags": dict(option.flags),
                "parameters": [_parameter_data(child) for child in option.parameters],
            }
            for option in parameter.options
        ]
    return data
