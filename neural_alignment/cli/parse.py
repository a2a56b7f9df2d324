"""From a command line to flags, or to help: short in groups, or all of it."""

from __future__ import annotations

import dataclasses
import shutil
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from absl import flags

from neural_alignment.config.options import ByEpochText, PathText, Setting, UsageError

_HELP = ("-h", "-help", "--help", "--helpshort")
_HELP_FULL = ("-helpfull", "--helpfull")
# What looks like a hyphen and is none.
_DASHES = "\N{HYPHEN}\N{NON-BREAKING HYPHEN}\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}"
_COLUMN = 30
_MOST_CHOICES = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """What a script is for, and its flags.

    Args:
        usage: the lines of its usage.
        about: what it does.
        define: defines its flags.
        sections: its flags by section: titles and settings.
        page: the page of the documentation that says more.
    """

    usage: str
    about: str
    define: Callable[[flags.FlagValues], None]
    sections: Callable[[], Iterable[tuple[str, Sequence[Setting]]]]
    page: str


def wants_help(argv: Sequence[str]) -> str | None:
    """What help a command line asks for: "short", "full" or None."""
    asked = set(argv[1 : argv.index("--") if "--" in argv else None])
    if asked.intersection(_HELP_FULL):
        return "full"
    return "short" if asked.intersection(_HELP) else None


def parse(program: Program, argv: Sequence[str]) -> tuple[flags.FlagValues, list[str]]:
    """The flags of a command line, presets and flagfiles expanded.

    Args:
        program: whose flags they are.
        argv: the command line.

    Returns:
        The flags, and the arguments that are none.

    Raises:
        UsageError: an unknown flag, a value that it does not take, or a flag behind another dash
            than the hyphen.
    """
    _check_dashes(argv)
    fv = flags.FlagValues()
    program.define(fv)
    try:
        rest = fv(list(argv))
    except flags.Error as error:
        raise UsageError(f"{error}\nPass --help to see the flags.") from error
    return fv, rest[1:]


def _check_dashes(argv: Sequence[str]) -> None:
    """Refuses the dashes that text processors make of two hyphens, which look like flags."""
    for argument in argv[1 : argv.index("--") if "--" in argv else None]:
        bare = argument.lstrip(f"-{_DASHES}")
        if any(dash in argument[: len(argument) - len(bare)] for dash in _DASHES):
            raise UsageError(
                f"expected flags behind two hyphens, --{bare}. Received: {argument}, which begins "
                "with another dash, as text processors write it"
            )


def check_given(fv: flags.FlagValues, *names: str) -> None:
    """Refuses lists that are given and empty, as a variable that is not set makes them.

    Args:
        fv: parsed flags.
        *names: of flags that mean all of something where they are not given.

    Raises:
        UsageError: names the flag.
    """
    for name in names:
        if fv[name].present and not fv[name].value:
            raise UsageError(
                f"--{name}: expected one or several, comma-separated. Received: '' (a variable "
                "that is not set?)"
            )


def help_text(program: Program, full: bool) -> str:
    """What `--help` shows.

    Args:
        program: whose flags they are.
        full: all of them; False: the main ones.

    Returns:
        Lines for a terminal.
    """
    width = min(100, shutil.get_terminal_size().columns)
    lines = [program.usage, "", *textwrap.wrap(program.about, width)]
    count = 0
    for title, settings in program.sections():
        count += len(settings)
        shown = [s for s in settings if full or s.field.metadata["main"]]
        if shown:
            lines += ["", f"{title}:"]
        for setting in shown:
            lines += _flag_lines(setting, width, full)
    lines.append("")
    if not full:
        lines.append(f"--helpfull shows all {count} flags; {program.page} says more of them.")
    else:
        lines.append(f"{program.page} says more of them.")
    lines.append("Flags may stand in a file, one a line: --flagfile=FILE, at any place.")
    return "\n".join(lines) + "\n"


def _flag_lines(setting: Setting, width: int, full: bool) -> list[str]:
    parser, default = setting.parser, setting.default
    if parser.kind is bool:
        head = f"  --[no]{setting.flag}"
    else:
        head = f"  --{setting.flag}={_placeholder(setting)}"
    text = setting.help
    choices = parser.choices
    if choices and (full or len(choices) <= _MOST_CHOICES):
        text = f"{text}: {', '.join(choices)}"
    elif choices:
        text = f"{text}: {', '.join(choices[:3])}, ... (--helpfull lists all {len(choices)})"
    if "default" not in text and default is not None and default is not False and default != ():
        text = f"{text} (default: {_spelled(default)})"
    wrapped = textwrap.wrap(text, width - _COLUMN) or [""]
    first = f"{head:<{_COLUMN - 1}} {wrapped[0]}" if len(head) < _COLUMN else head
    rest = wrapped[1:] if len(head) < _COLUMN else wrapped
    return [first, *(" " * _COLUMN + line for line in rest)]


def _spelled(default: Any) -> str:
    if isinstance(default, tuple):
        return ",".join(map(_spelled, default))
    if default is True:
        return "yes"
    return f"{default:g}" if isinstance(default, float) else str(default)


def _placeholder(setting: Setting) -> str:
    kind = setting.parser.kind
    words = {int: "N", float: "X", PathText: "PATH", ByEpochText: "EPOCH:X,..."}
    word = words.get(kind, "NAME")
    return f"{word},..." if setting.parser.is_list and not _repeats(setting) else word


def _repeats(setting: Setting) -> bool:
    return setting.field.metadata["repeat"]
