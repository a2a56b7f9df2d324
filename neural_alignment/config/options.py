"""What a setting is: a field of a dataclass with default, bounds, choices and help.

From the field come its flag, the flag's check and its help, as they do for the options of rules.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags

from neural_alignment.config import by_epoch

# A path of the local disk, or of storage that TensorFlow reads (gs://).
PathText = typing.NewType("PathText", str)
# A module of the user's, or the path of a .py file; several with commas.
ModuleText = typing.NewType("ModuleText", str)
# "true", "false" or "auto"; on the command line also as a boolean: --flag, --noflag.
Switch = typing.NewType("Switch", str)
# A rate by epoch: "0:0.03,1:9e-5"; "none" for none.
ByEpochText = typing.NewType("ByEpochText", str)
_SWITCHED = {"t": "true", "1": "true", "f": "false", "0": "false"}
_NOT_GIVEN = dataclasses.MISSING


class UsageError(ValueError):
    """A flag, or a combination of flags, that makes no sense."""


def refuse(flag: str, expected: str, received: Any) -> typing.NoReturn:
    """Raises a `UsageError` that names the flag.

    Args:
        flag: its name.
        expected: what it takes.
        received: what came.
    """
    raise UsageError(f"--{flag}: expected {expected}. Received: {received!r}")


def option(
    default: Any,
    help: str,
    choices: Sequence[str] | Callable[[], Sequence[str]] = (),
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    by_flag: Any = _NOT_GIVEN,
    main: bool = False,
    on_resume: str = "same",
    flag: str | None = None,
    repeat: bool = False,
) -> Any:
    """A setting: a dataclass field that knows its flag. Its annotation is the flag's type.

    Args:
        default: of the field; `dataclasses.MISSING`: the field must be given.
        help: one line for `--help`.
        choices: the only values, where it has choices; a function, where more may be registered.
        low: least value.
        above: bound that every value exceeds.
        high: greatest value.
        by_flag: the flag's default, where it is another.
        main: it is shown by `--help`; the others by `--helpfull` alone.
        on_resume: "same": a run that goes on needs the value it had; "any"; "more".
        flag: the flag's name, where it is another than the field's.
        repeat: of several values: the flag is given once for each, instead of once with commas.

    Returns:
        The field.

    Raises:
        TypeError: a list as the default, which a dataclass would share.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "low": low,
        "above": above,
        "high": high,
        "by_flag": default if by_flag is _NOT_GIVEN else by_flag,
        "main": main,
        "on_resume": on_resume,
        "flag": flag,
        "repeat": repeat,
    }
    if isinstance(default, list):
        raise TypeError("Expected a tuple for a default of several values. Received: a list")
    if default is _NOT_GIVEN:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Parser(flags.ArgumentParser):
    """Reads a flag's text as its option says: type, bounds, choices; paths with `~` expanded.

    Args:
        kind: bool, int, float, str, PathText, ModuleText, ByEpochText or Switch.
        is_list: several of them, comma-separated.
        metadata: the option's.
    """

    kind: Any
    is_list: bool
    metadata: Mapping[str, Any]

    syntactic_help = ""

    def parse(self, argument: Any) -> Any:
        """The value of a text.

        Lists stay lists of texts once they are checked: a flagfile has them as they were given.

        Raises:
            ValueError: what was expected, and what came.
        """
        if self.kind is Switch:
            text = str(argument).lower()
            return self._one(_SWITCHED.get(text, text))
        if not isinstance(argument, str) or self._is_none(argument):
            return None if isinstance(argument, str) else argument
        if not self.is_list or self.metadata["repeat"]:
            return self._one(argument)
        texts = [text.strip() for text in argument.split(",")] if argument.strip() else []
        return [
            str(self._one(text)) if self.kind is PathText else self._text(text) for text in texts
        ]

    def flag_type(self) -> str:
        """absl's name of the type."""
        return "list" if self.is_list else self.kind.__name__

    @property
    def choices(self) -> tuple[str, ...]:
        """The only values, where it has choices."""
        choices = self.metadata["choices"]
        return tuple(choices() if callable(choices) else choices)

    def _is_none(self, text: str) -> bool:
        return self.kind is ByEpochText and text.strip() == "none"

    def _text(self, text: str) -> str:
        self._one(text)
        return text

    def _one(self, text: str) -> Any:
        choices = self.choices
        if choices and text not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}. Received: {text!r}")
        if self.kind is PathText:
            return expand_path(text)
        if self.kind is ByEpochText:
            return by_epoch.checked(text, self.metadata)
        if self.kind is ModuleText:
            return ",".join(map(module_name, text.split(",")))
        if self.kind in (int, float):
            return self._number(text)
        return text

    def _number(self, text: str) -> int | float:
        try:
            value = self.kind(text)
        except ValueError:
            value = None
        if value is None or not math.isfinite(value) or not _within(value, self.metadata):
            raise ValueError(f"expected {self.expected()}. Received: {text!r}")
        return value

    def expected(self) -> str:
        """The numbers that it takes, in words."""
        several = "s" if self.is_list else ""
        noun = "whole number" if self.kind is int else "finite number"
        words = f"{noun}s" if several else f"a {noun}"
        bounds = [
            f"{sign} {self.metadata[bound]:g}"
            for sign, bound in ((">=", "low"), (">", "above"), ("<=", "high"))
            if self.metadata.get(bound) is not None
        ]
        return " ".join([words, " and ".join(bounds)]).strip()


def _within(value: float, metadata: Mapping[str, Any]) -> bool:
    low, above, high = (metadata.get(bound) for bound in ("low", "above", "high"))
    return (
        (low is None or value >= low)
        and (above is None or value > above)
        and (high is None or value <= high)
    )


def expand_path(text: str) -> str:
    """A path as it was meant: `~` is the home folder, `$NAME` a variable of the environment.

    A shell has both in place already; a file of flags has not.

    Args:
        text: what the user wrote.

    Returns:
        The path.

    Raises:
        ValueError: it is empty, as a variable that is not set gives it, or of no user's home, has a
            variable that is not set, or is no UTF-8, which TensorFlow's files want.
    """
    if any("\udc80" <= sign <= "\udcff" for sign in text):  # bytes that are none
        raise ValueError(
            f"expected a path in UTF-8. Received: {text!r}, with bytes of another encoding. Give "
            "the folder another name"
        )
    if not text.strip():
        raise ValueError("expected a path. Received: '' (a variable that is not set?)")
    path = os.path.expandvars(os.path.expanduser(text))
    unset = re.search(r"\$(\w+|\{\w+\})", path)
    if unset and not os.path.lexists(path):  # a name may have a dollar in it
        raise ValueError(f"expected a path; {unset[0]} is not set. Received: {text!r}")
    if path.startswith("~"):
        raise ValueError(f"expected a path; there is no home folder {path!r}. Received: {text!r}")
    return path


def path_of(name: str, text: str) -> str:
    """A path that is an argument, or is read before its flag is parsed.

    Args:
        name: of the argument.
        text: what the user wrote.

    Returns:
        The path, as `expand_path` has it.

    Raises:
        UsageError: see `expand_path`.
    """
    try:
        return expand_path(text)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from error


def module_name(text: str) -> str:
    """A module as every working directory finds it: the path of a .py file is made absolute."""
    text = text.strip()
    return os.path.abspath(expand_path(text)) if text.endswith(".py") else text


def define_path(
    name: str,
    default: str | None,
    help: str,
    fv: flags.FlagValues = flags.FLAGS,
    required: bool = False,
) -> None:
    """Defines a flag that is a path, for programs whose flags are not declared as options.

    Args:
        name: of the flag.
        default: its value where it is not given.
        help: one line.
        fv: where to define it.
        required: it must be given.
    """
    parser = Parser(PathText, False, option(default, help).metadata)
    flags.DEFINE(parser, name, default, help, fv, flags.ArgumentSerializer(), required=required)


class ListSerializer(flags.ArgumentSerializer):
    """Writes a list as its flag takes it."""

    def serialize(self, value: Any) -> str:
        """Comma-separated."""
        return ",".join(value)


def define(name: str, parser: Parser, default: Any, help: str, fv: flags.FlagValues) -> None:
    """Defines one flag.

    Args:
        name: of the flag.
        parser: reads it.
        default: its value where it is not given.
        help: one line.
        fv: where to define it.
    """
    if parser.kind is bool:
        flags.DEFINE_boolean(name, default, help, flag_values=fv)
        return
    if parser.kind is Switch:
        serializer = flags.ArgumentSerializer()
        made = flags.Flag(parser, serializer, name, default, help, boolean=True)
        flags.DEFINE_flag(made, fv)
        return
    if parser.metadata["repeat"]:
        serializer = flags.ArgumentSerializer()
        flags.DEFINE_multi(parser, serializer, name, list(default), help, flag_values=fv)
        return
    serializer = ListSerializer() if parser.is_list else flags.ArgumentSerializer()
    if isinstance(default, tuple):
        default = [str(value) for value in default]
    flags.DEFINE(parser, name, default, help, fv, serializer)


@dataclasses.dataclass(frozen=True)
class Setting:
    """A field of a settings class, and the flag that sets it.

    Args:
        field: of the dataclass.
        flag: its flag's name.
        parser: of the flag.
    """

    field: dataclasses.Field
    flag: str
    parser: Parser

    @property
    def default(self) -> Any:
        """The flag's default."""
        return self.field.metadata["by_flag"]

    @property
    def help(self) -> str:
        """One line."""
        return self.field.metadata["help"]


@functools.cache
def settings_of(group: type, prefix: str = "") -> tuple[Setting, ...]:
    """The settings that a class declares.

    Args:
        group: a dataclass of `option`s.
        prefix: before every flag's name.

    Returns:
        Its settings, in order.
    """
    hints = typing.get_type_hints(group)
    found = []
    for field in dataclasses.fields(group):
        if "by_flag" not in field.metadata:
            continue
        kind, is_list = _kind(hints[field.name])
        name = prefix + (field.metadata["flag"] or field.name)
        found.append(Setting(field, name, Parser(kind, is_list, field.metadata)))
    return tuple(found)


def _kind(annotation: Any) -> tuple[Any, bool]:
    """(type, whether a list of them) of an annotation such as `int | None`, `tuple[int, ...]`."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        (annotation,) = (a for a in typing.get_args(annotation) if a is not types.NoneType)
    if typing.get_origin(annotation) is tuple:
        return typing.get_args(annotation)[0], True
    return annotation, False


def define_group(group: type, fv: flags.FlagValues, prefix: str = "") -> None:
    """Defines the flags of a settings class.

    Args:
        group: a dataclass of `option`s.
        fv: where to define them.
        prefix: before every flag's name.
    """
    for setting in settings_of(group, prefix):
        define(setting.flag, setting.parser, setting.default, setting.help, fv)


def read_group(group: type, fv: flags.FlagValues, prefix: str = "", **more: Any) -> Any:
    """A settings class with the values of its flags.

    Args:
        group: a dataclass of `option`s.
        fv: parsed flags.
        prefix: before every flag's name.
        **more: fields that are no settings.

    Returns:
        The object.
    """
    values = {}
    for setting in settings_of(group, prefix):
        value = fv[setting.flag].value
        if setting.parser.is_list and value is not None:
            value = tuple(setting.parser.kind(text) for text in value)
        values[setting.field.name] = value
    return group(**values, **more)
