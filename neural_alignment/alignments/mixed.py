"""Groups of a layer's output units, each under a rule of its own."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self

from neural_alignment import noise
from neural_alignment.alignments import spelling
from neural_alignment.alignments.alignment import OUTPUTS_LAST, Alignment, Tensor, Variable
from neural_alignment.alignments.facts import Examples
from neural_alignment.alignments.options import option
from neural_alignment.alignments.registry import get, register
from neural_alignment.lazy import keras
from neural_alignment.maps import Linear, Units

# "name:0.6" or "name(option=value,option=value):0.6", then a comma or the end.
_GROUP = re.compile(r"\s*([^\s(),:=]+)\s*(?:\(([^()]*)\)\s*)?:\s*([^\s,()]+)\s*(?:,|$)")
_FORM = "rules and fractions, such as product(expansion=2):0.6,feedback:0.4"
# The share by which fractions may miss 1.
_SLACK = 1e-6

Fractions = str | Mapping[str, float] | Sequence[tuple[Any, float]]


@register("mixed")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixed(Alignment):
    """Mixed populations: groups of a layer's output units learn under different rules.

    The units are split in the given order, each group has its columns of W, and B is put together
    of what the rules make of them:

        B = [B_1, ..., B_n],  R = sum_g R_g

    A group's rule sees its columns alone; its kernels start at the whole layer's scale. Rules that
    tie gradients do so for their columns, and those with a loss have it of theirs. ([P] discussion:
    in the brain, whose two weights of a pair of cells correlate by about 0.2, an angle of 78
    degrees, synapses may be of several such groups.)

    Args:
        fractions: each group's rule and its fraction of the units, which sum to 1: a mapping
            `{"product": 0.6, "feedback": 0.4}`, pairs of a rule and a fraction, or a text
            "product(expansion=2):0.6,feedback:0.4", in which a rule has its options in brackets.
            A group that gets no unit of a small layer is not there.
        density: 1; each group has its own, `feedback(density=0.5):0.2`.

    Raises:
        ValueError: fractions that are none; a rule of whole models, with noise on the layer's
            input, or mixed itself; coefficients that are schedules.
    """

    fractions: Fractions = option(
        "product:0.6,feedback:0.2,kolen_pollack:0.2",
        "groups of output units: each rule, its options in brackets, and its fraction",
    )

    tied: ClassVar[str] = "by group"
    backward: ClassVar[str] = "put together of those of the groups"
    loss: ClassVar[str] = "the sum over the groups"
    sources: ClassVar[tuple[str, ...]] = ("[P]",)
    examples: ClassVar[Examples] = {
        "composite": {
            "fractions": "moving_average(tau=0.25):0.3,"
            "product(expansion=3.0,factored=false):0.4,sign_symmetry(magnitude=batch_random):0.3"
        },
    }

    # Made of `fractions`; no option.
    _groups: ClassVar[tuple[_Group, ...]]

    def __post_init__(self) -> None:
        # Kept as a text whatever was given, so that rules are equal, hashed, saved and recorded.
        object.__setattr__(self, "_groups", _groups(self.fractions))
        object.__setattr__(self, "fractions", ",".join(group.text for group in self._groups))
        super().__post_init__()
        if self.density != 1.0:
            raise ValueError(
                "Expected density=1 with the rule 'mixed', whose groups have one each, such as "
                f"feedback(density=0.5):0.2. Received: density={self.density!r}"
            )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(**config)

    @property
    def rules(self) -> tuple[Alignment, ...]:
        """The groups' rules, in order."""
        return tuple(group.rule for group in self._groups)

    # Facts of the class in the base; here they follow from the groups.
    @property
    def tie_grad(self) -> bool:  # type: ignore[override]
        return any(rule.tie_grad for rule in self.rules)

    @property
    def update_forward(self) -> bool:  # type: ignore[override]  # as above
        return any(rule.update_forward and rule.has_loss for rule in self.rules)

    @property
    def compares_projections(self) -> bool:  # type: ignore[override]  # as above
        return any(rule.has_loss and rule.compares_projections for rule in self.rules)

    @property
    def has_loss(self) -> bool:
        return any(rule.has_loss for rule in self.rules)

    @property
    def updates_itself(self) -> bool:
        return any(rule.updates_itself for rule in self.rules)

    @property
    def needs_linear_updates(self) -> bool:
        return any(rule.needs_linear_updates for rule in self.rules)

    @property
    def is_random(self) -> bool:
        return any(rule.is_random for rule in self.rules)

    @property
    def extra_operations(self) -> int:
        return sum(rule.extra_operations for rule in self.rules)

    def doubts(self) -> list[str]:
        return [f"{rule.name}: {doubt}" for rule in self.rules for doubt in rule.doubts()]

    def before(self, activation: str) -> Self:
        groups = [(group.rule.before(activation), group.fraction) for group in self._groups]
        return self.replace(fractions=groups)

    def rule_of(self, name: str) -> Alignment:
        return next(g.rule for g in self._groups if name.endswith(g.suffix))

    def parts(
        self, linear: Linear, kernel_shape: tuple[int, ...]
    ) -> Iterator[tuple[_Group, Units]]:
        """The groups that have units in a layer, and which.

        Args:
            linear: the layer's map.
            kernel_shape: W's.

        Yields:
            A group, and the map of its units.
        """
        outputs = linear.outputs(kernel_shape)
        for group in self._groups:
            units = Units(linear, tuple(kernel_shape), *group.range_of(outputs))
            if units.first < units.last:
                yield group, units

    def variables(
        self,
        kernel_shape: tuple[int, ...],
        initializer: Callable[[str], Any],
        *,
        linear: Linear = OUTPUTS_LAST,
    ) -> dict[str, Variable]:
        made = {}
        for group, units in self.parts(linear, kernel_shape):
            rule = group.rule
            if rule.has_loss and rule.compares_projections and linear.units_axis is None:
                raise ValueError(
                    f"Expected a group whose loss looks at kernels alone, in a layer whose units "
                    f"are on several axes. Received: the rule {rule.name!r} in a layer of the map "
                    f"{linear}"
                )
            drawn = partial(_Columns, initializer, group.suffix, units)
            for name, variable in rule.variables(units.shape, drawn, linear=units).items():
                made[name + group.suffix] = variable
        return made

    def backward_kernel(
        self,
        forward_kernel: Tensor,
        variables: Mapping[str, Tensor],
        seed: Tensor | None = None,
        *,
        linear: Linear = OUTPUTS_LAST,
    ) -> Tensor:
        ops, shape, columns = keras.ops, tuple(forward_kernel.shape), []
        for group, units in self.parts(linear, shape):
            made = group.backward_kernel(units.columns(forward_kernel), variables, seed, units)
            made = ops.cast(made, forward_kernel.dtype)
            columns.append(made if group.rule.tie_grad else ops.stop_gradient(made))
        return linear.from_outputs_last(ops.concatenate(columns, axis=-1), shape)

    def tied_gradient(
        self,
        inputs: Tensor,
        upstream: Tensor,
        kernel_gradient: Tensor,
        *,
        variables: Mapping[str, Tensor],
        linear: Linear = OUTPUTS_LAST,
    ) -> Tensor:
        shape, columns = tuple(kernel_gradient.shape), []
        for group, units in self.parts(linear, shape):
            own = units.columns(kernel_gradient)
            if group.rule.tie_grad:
                own = group.rule.tied_gradient(
                    inputs,
                    units.of_outputs(upstream),
                    own,
                    variables=group.own(variables),
                    linear=units,
                )
            columns.append(own)
        return linear.from_outputs_last(keras.ops.concatenate(columns, axis=-1), shape)

    def update(
        self,
        forward_kernel: Tensor,
        variables: Mapping[str, Tensor],
        step: Tensor | int | None,
        *,
        linear: Linear = OUTPUTS_LAST,
    ) -> dict[str, Tensor]:
        return {
            name + group.suffix: value
            for group, units in self.parts(linear, tuple(forward_kernel.shape))
            for name, value in group.rule.update(
                units.columns(forward_kernel), group.own(variables), step, linear=units
            ).items()
        }

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
        del backward_kernel  # R of a group reaches what its part of it is made of
        total = keras.ops.zeros((), "float32")
        for group, units in self.parts(linear, tuple(forward_kernel.shape)):
            if not group.rule.has_loss:
                continue
            columns, own = units.columns(forward_kernel), variables or {}
            loss = group.rule(
                inputs,
                forward_kernel=columns,
                backward_kernel=group.backward_kernel(columns, own, seed, units),
                linear=units,
                variables=group.own(own),
                bias=None if bias is None else units.of_outputs(bias),
                activation=activation,
                forward_projection=None
                if forward_projection is None
                else units.of_outputs(forward_projection),
                step=step,
                seed=group.seed(seed),
                mask=mask,
            )
            total = total + keras.ops.cast(loss, "float32")
        return total


@dataclasses.dataclass(frozen=True)
class _Group:
    """Units under one rule: those from one share of a layer's units to another."""

    rule: Alignment
    fraction: float
    number: int
    begin: float
    end: float

    @property
    def suffix(self) -> str:
        """What is added to the names of the rule's variables."""
        return f"_{self.number}_{self.rule.name}"

    @property
    def text(self) -> str:
        """As `fractions` has it, with the options that are not the rule's defaults."""
        return f"{spelling.spell(self.rule)}:{self.fraction!r}"

    def range_of(self, outputs: int) -> tuple[int, int]:
        """The first unit and the one behind the last, of so many."""
        return round(self.begin * outputs), round(self.end * outputs)

    def own(self, variables: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The group's variables, by the rule's own names for them."""
        return {
            name.removesuffix(self.suffix): value
            for name, value in variables.items()
            if name.endswith(self.suffix)
        }

    def seed(self, seed: Tensor | None) -> Tensor | None:
        """A seed for the group's draws."""
        return None if seed is None else noise.draw_seed(seed, 7919 * (self.number + 1))

    def backward_kernel(
        self,
        columns: Tensor,
        variables: Mapping[str, Tensor],
        seed: Tensor | None,
        units: Units,
    ) -> Tensor:
        """The group's columns of B, `[*window, inputs, units]`."""
        own = self.own(variables)
        return self.rule.backward_kernel(columns, own, self.seed(seed), linear=units)


class _Columns:
    """Draws a whole layer's kernel and gives a group's columns, so that they are at its scale."""

    def __init__(
        self, initializer: Callable[[str], Any], suffix: str, units: Units, name: str
    ) -> None:
        self._initializer, self._units = initializer(name + suffix), units

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        return self._units.columns(self._initializer(self._units.kernel_shape, dtype=dtype))


def _groups(fractions: Any) -> tuple[_Group, ...]:
    pairs: list[Any]
    if isinstance(fractions, str):
        pairs = _parsed(fractions)
    elif isinstance(fractions, Mapping):
        pairs = list(fractions.items())
    elif isinstance(fractions, (list, tuple)):
        pairs = [pair if isinstance(pair, (list, tuple)) else (pair,) for pair in fractions]
    else:
        pairs = []
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"Expected {_FORM}. Received: fractions={fractions!r}")
    made, begin = [], 0.0
    for number, (identifier, fraction) in enumerate(pairs):
        rule, share = _rule(identifier), _fraction(fraction, fractions)
        end = 1.0 if number == len(pairs) - 1 else begin + share
        made.append(_Group(rule, share, number, begin, end))
        begin += share
    if abs(begin - 1.0) > _SLACK:
        raise ValueError(
            f"Expected fractions that sum to 1. Received: fractions={fractions!r}, which sum to "
            f"{begin:g}"
        )
    return tuple(made)


def _parsed(text: str) -> list[tuple[Any, str]]:
    """Pairs of a rule's config and a fraction."""
    found, place = [], 0
    while place < len(text):
        match = _GROUP.match(text, place)
        if match is None:
            raise ValueError(f"Expected {_FORM}. Received: fractions={text!r}")
        name, options, fraction = match.groups()
        found.append((name if options is None else f"{name}({options})", fraction))
        place = match.end()
    return found


def _fraction(value: Any, given: Any) -> float:
    try:
        fraction = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        fraction = math.nan
    if not 0.0 < fraction <= 1.0 + _SLACK:
        raise ValueError(
            f"Expected fractions of a layer's units in (0, 1]. Received: {value!r} in "
            f"fractions={given!r}"
        )
    return fraction


def _rule(identifier: Any) -> Alignment:
    rule = spelling.parse(identifier) if isinstance(identifier, str) else get(identifier)
    if rule is None or rule.of_model or rule.disturbs_input or isinstance(rule, Mixed):
        raise ValueError(
            "Expected rules of single layers without noise on the layer's input, of which each "
            f"group has one. Received: {identifier if rule is None else rule.name!r}"
        )
    return rule
