"""A rule as a text, `product(expansion=2)`: its name, and in brackets options of its own."""

from __future__ import annotations

import dataclasses
from typing import Any

from neural_alignment.alignments import registry
from neural_alignment.alignments.alignment import Alignment

_SIGNS = "(),:="


def parse(text: str) -> Alignment | None:
    """The rule that a text says.

    Args:
        text: `name`, or `name(option=value,option=value)`.

    Returns:
        The rule; None is backpropagation.

    Raises:
        ValueError: no such text, an unknown rule, or an option out of range.
        TypeError: an unknown option.
    """
    name, bracket, rest = text.partition("(")
    if not bracket:
        return registry.get(name.strip())
    defaults = {field.name: field.default for field in dataclasses.fields(registry.rule(name))}
    options = {}
    for item in filter(None, (part.strip() for part in rest.removesuffix(")").split(","))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise ValueError(f"Expected options as name=value. Received: {item!r} in {text!r}")
        options[key] = _value(value, defaults.get(key))
    return registry.get({"name": name, **options})


def _value(text: str, default: Any) -> Any:
    """A value in its option's type; the text where it is none of them, for the rule to refuse."""
    if isinstance(default, bool):
        return {"true": True, "false": False}.get(text.lower(), text)
    if isinstance(default, float):
        try:
            return float(text)
        except ValueError:
            return text
    return None if text.lower() == "none" else text


def spell(rule: Alignment) -> str:
    """The text that `parse` turns back into an equal rule.

    Args:
        rule: with numbers as its coefficients.

    Returns:
        The text, with the options that are not at their defaults.

    Raises:
        ValueError: a coefficient that is a schedule, or a string with signs of its own.
    """
    given = [
        f"{field.name}={_spelled(rule, field.name)}"
        for field in dataclasses.fields(rule)
        if getattr(rule, field.name) != field.default
    ]
    return rule.name + (f"({','.join(given)})" if given else "")


def _spelled(rule: Alignment, name: str) -> str:
    value = getattr(rule, name)
    text = str(value).lower() if value is None or isinstance(value, bool) else str(value)
    if callable(value) or set(text) & set(_SIGNS):
        raise ValueError(
            f"Expected numbers as coefficients, and texts without the signs {_SIGNS}, in a rule "
            f"that is written as a text. Received: {name}={value!r} of the rule {rule.name!r}"
        )
    return text
