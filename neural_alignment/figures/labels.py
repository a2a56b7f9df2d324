"""What runs are called: by as few of their flags as tell their settings apart."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence

from neural_alignment.config.flags import flag_defaults
from neural_alignment.config.groups import rule_options
from neural_alignment.runs import record

BACKPROP = "backprop"


def plain(text: str) -> str:
    """A flag's text with every number in one spelling: of 3, 3.0 and 3e0 it is 3.

    Args:
        text: a value, or several with commas or colons.
    """
    return "".join(map(_plain_number, re.split("([,:])", text)))


def _plain_number(text: str) -> str:
    try:
        value = float(text)
    except ValueError:
        return text
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else repr(value)


def labels(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """The shortest names that tell settings apart.

    Args:
        settings: flag to text, no two the same.

    Returns:
        For each its rule, and its data set where that is not the same in all; where several are
        alike in that, with as few flags as tell it from those, of the flags in which it differs
        from most of them.
    """
    sets = [data_set(one) for one in settings]
    mixed = len(set(sets)) > 1
    rules = [one.get("alignment", BACKPROP) for one in settings]
    heads = [[rule, name] if mixed else [rule] for rule, name in zip(rules, sets, strict=True)]
    named = []
    for one, head in zip(settings, heads, strict=True):
        alike = [other for other, its in zip(settings, heads, strict=True) if its == head]
        telling = (_named(flag, _text(one, flag)) for flag in _telling(one, alike))
        named.append(", ".join([*head, *telling]))
    return named


def data_set(one: Mapping[str, str]) -> str:
    """What settings train on: accuracies on two data sets are not to be compared.

    Args:
        one: flag to text.

    Returns:
        The data set's name; of images of one's own, and their folder's.
    """
    return " ".join([_text(one, "dataset"), *([one["data_dir"]] if "data_dir" in one else [])])


def _text(one: Mapping[str, str], flag: str) -> str:
    default = flag_defaults().get(flag)
    return one.get(flag, record.NONE if default is None else default)


def _named(flag: str, text: str) -> str:
    return text if flag == "model" else f"{flag}={text}"


def _telling(one: Mapping[str, str], alike: Sequence[Mapping[str, str]]) -> list[str]:
    """As few flags as tell settings from all others: of those that differ from the majority's."""
    flags = {flag for other in alike for flag in other}
    values = {flag: [other.get(flag) for other in alike] for flag in flags}
    own = [flag for flag in flags if 2 * values[flag].count(one.get(flag)) <= len(alike)]
    own.sort(key=lambda flag: (_unlikely(flag, alike), flag))
    others = [other for other in alike if other is not one]
    for size in range(1, min(3, len(own) + 1)):
        for chosen in itertools.combinations(own, size):
            if all(any(one.get(f) != other.get(f) for f in chosen) for other in others):
                return list(chosen)
    return own


def _unlikely(flag: str, settings: Sequence[Mapping[str, str]]) -> int:
    """How little a flag says to a reader: names come first, then the rule's own numbers."""
    if flag == "model":
        return 0
    is_option = flag in rule_options()
    texts = [one[flag] for one in settings if flag in one]
    is_name = not any(re.fullmatch(r"[\d.,e+-]+|true|false", text) for text in texts)
    return 1 if is_option and is_name else 2 if is_option else 3
