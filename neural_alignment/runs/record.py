"""A run's flags.cfg: what it leaves out, and what older versions left out."""

from __future__ import annotations

import errno
import pathlib
from collections.abc import Mapping, Sequence

# Of `--defaults`: nothing is filled in.
NONE = "none"
# The classes' defaults in version 0.1, whose flags.cfg says neither them nor what was filled in.
_BEFORE_0_2: Mapping[str, Mapping[str, str]] = {
    "symmetric": {"decay_coef": "0.001", "self_coef": "0.002"},
    "activation": {"sparse_coef": "0.001", "amp_coef": "0.002", "average_positions": "false"},
    "mirror": {
        "decay_coef": "0.001",
        "amp_coef": "0.001",
        "average_positions": "false",
        "input_distribution": NONE,
    },
    "information": {
        "null_coef": "0.001",
        "amp_coef": "0.002",
        "decay_coef": "0.001",
        "average_positions": "false",
        "input_distribution": NONE,
    },
    "kolen_pollack": {"update_forward": "false"},
    "product": {"update_forward": "false"},
}
# Version 0.1 had a boolean there.
_SPELLED = {"--jit_compile": "--jit_compile=true", "--nojit_compile": "--jit_compile=false"}


def read(path: pathlib.Path) -> list[str]:
    """The lines of a flags.cfg, without what an editor puts around them: Windows's mark, spaces.

    Args:
        path: of the file.

    Returns:
        Lines, comments too.

    Raises:
        OSError: it cannot be read, or is no text; `filename` is the path.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise OSError(errno.EILSEQ, "it is no text in UTF-8", str(path)) from error
    return [line.strip() for line in text.splitlines()]


def named(lines: Sequence[str]) -> dict[str, str]:
    """Flag name to the text of its value, the last of each."""
    split = (line.strip().lstrip("-").partition("=") for line in lines)
    return {name: text for name, _, text in split}


def flag_name(line: str) -> str:
    """The name of the flag that a line, or an argument, gives."""
    (name,) = named([line])
    return name


def is_complete(lines: Sequence[str]) -> bool:
    """Whether the file says all that the run depended on, as it does from version 0.2 on."""
    return "defaults" in named(lines)


def complete(lines: Sequence[str]) -> list[str]:
    """The lines of a flags.cfg, those first that version 0.1 left to the rule's class.

    Args:
        lines: of the file.

    Returns:
        Lines; as they were where the file is complete.
    """
    lines = [_SPELLED.get(line.strip(), line) for line in lines]
    if is_complete(lines):
        return lines
    given = named(lines)
    options = {"jit_compile": "false", **_BEFORE_0_2.get(given.get("alignment", ""), {})}
    missing = [f"--{name}={text}" for name, text in options.items() if name not in given]
    return [*missing, f"--defaults={NONE}", *lines]


def filled(lines: Sequence[str]) -> dict[str, str]:
    """What the run did not get from its command line, by flag.

    Args:
        lines: of its flags.cfg.

    Returns:
        Flag name to text.
    """
    whole = named(complete(lines))
    if is_complete(lines):
        return {name: whole[name] for name in whole["defaults"].split(",") if name in whole}
    given = named(lines)
    return {n: t for n, t in whole.items() if n not in (*given, "defaults", "jit_compile")}
