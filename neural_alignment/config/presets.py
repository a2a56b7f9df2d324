"""The presets, and command lines with presets and flagfiles put in their places."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Iterator, Sequence

from neural_alignment.config.options import UsageError, path_of
from neural_alignment.messages import did_you_mean
from neural_alignment.runs import record

PRESETS = pathlib.Path(__file__).parent.parent / "presets"
# Where a run itself began, and what it took its settings from, is no setting of another run.
_ORIGIN = ("load_checkpoint", "load_step", "preset")


def preset_names() -> tuple[str, ...]:
    """Names of the presets, sorted."""
    return tuple(sorted(path.stem for path in PRESETS.glob("*.cfg")))


def expand(argv: Sequence[str], presets: bool = True) -> list[str]:
    """Puts the lines of every `--preset=NAME` and `--flagfile=FILE` in its place.

    So flags after it win, in files as on the command line; files may name others.

    Args:
        argv: the command line.
        presets: whether the program has `--preset`.

    Returns:
        The command line without flagfiles; each `--preset=NAME` follows its lines.

    Raises:
        UsageError: there is no such preset, or a file that cannot be read or names itself.
    """
    return [*argv[:1], *_expand(argv[1:], (), presets)]


def with_flags_of_run(argv: Sequence[str]) -> list[str]:
    """Puts the flags of `--load_checkpoint=RUN` first, so that they hold unless others follow.

    Args:
        argv: the command line; flagfiles may name the run.

    Returns:
        The command line, expanded; without flags of a run where RUN holds no flags.cfg.

    Raises:
        UsageError: see `expand`.
    """
    argv = expand(argv)
    named = [value for flag, value in _values(argv[1:]) if flag == "load_checkpoint"]
    if not named:
        return argv
    run = pathlib.Path(path_of("--load_checkpoint", named[-1]))
    for folder in (run, *list(run.parents)[:2]):
        if (folder / "flags.cfg").is_file():
            own = _expand_lines(folder / "flags.cfg", ())
            return [
                *argv[:1],
                *(line for line in own if record.flag_name(line) not in _ORIGIN),
                *argv[1:],
            ]
    return argv


def values(argv: Sequence[str], name: str) -> list[str]:
    """The values that an expanded command line gives a flag.

    Args:
        argv: the command line.
        name: of the flag.

    Returns:
        Its values, in order.
    """
    return [value for flag, value in _values(argv[1:]) if flag == name]


def _values(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    for argument, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        if argument == "--":
            return
        if argument.startswith("-"):
            _, equals, value = argument.partition("=")
            yield record.flag_name(argument), value if equals else following


def _expand(
    arguments: Sequence[str], within: tuple[pathlib.Path, ...], presets: bool = True
) -> list[str]:
    expanded: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            return [*expanded, argument, *rest]
        name = record.flag_name(argument) if argument.startswith("-") else None
        if name != "flagfile" and not (presets and name == "preset"):
            expanded.append(argument)
            continue
        _, equals, value = argument.partition("=")
        value = value if equals else next(rest, "")
        if name == "flagfile":
            expanded += _expand_lines(pathlib.Path(path_of(f"--{name}", value)), within, presets)
        elif within and _is_record(within[-1]):
            expanded.append(f"--preset={value}")  # its flags, and those that won, are there too
        else:
            expanded += _expand_lines(_preset(value), within)
            expanded.append(f"--preset={value}")
    return expanded


def _expand_lines(
    file: pathlib.Path, within: tuple[pathlib.Path, ...], presets: bool = True
) -> list[str]:
    if file.resolve() in within:
        raise UsageError(
            f"--flagfile: expected files that do not name each other. Received: {file}"
        )
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UsageError(
            f"--flagfile: expected a file of flags, one a line. Received: {file} ({reason})"
        ) from error
    flags = [line for line in lines if line and not line.startswith(("#", "//"))]
    for before, line in zip(["", *flags], flags, strict=False):
        is_value = before.startswith("-") and "=" not in before
        if not line.startswith("-") and not is_value:
            raise UsageError(
                f"--flagfile={file}: expected a flag a line, --NAME=VALUE. Received: {line!r}"
            )
    if _is_record(file):
        flags = record.complete(flags)
    return _expand(flags, (*within, file.resolve()), presets)


def _preset(name: str) -> pathlib.Path:
    if name not in preset_names():
        hint = did_you_mean(name.lower(), preset_names())
        raise UsageError(
            f"--preset: expected one of {', '.join(preset_names())}. Received: {name!r}{hint}"
        )
    return PRESETS / f"{name}.cfg"


def _is_record(file: pathlib.Path) -> bool:
    """Whether a file is the flags.cfg of a run, which says everything that was not a default."""
    beside = ("lock", "metrics.csv", "checkpoints")
    return file.name == "flags.cfg" and any((file.parent / name).exists() for name in beside)
