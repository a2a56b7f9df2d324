"""The run directory: what makes a folder one, and the flags that a run was started with."""

from __future__ import annotations

import pathlib
from collections.abc import Collection, Mapping

from neural_alignment import atomic
from neural_alignment.runs import record

_DEVICES = "# devices: "


class RunDirectoryError(RuntimeError):
    """A run directory of a run with other flags, or that cannot be read or written."""


def cannot_write(error: OSError) -> RunDirectoryError:
    """What to say of a file of the run directory that could not be written."""
    return RunDirectoryError(
        f"could not write {error.filename}: {error.strerror}. What it held is still there. Make "
        "space or check the folder, then run the same command again."
    )


def write_flags(
    folder: pathlib.Path, values: Mapping[str, str], devices: int | None = None
) -> None:
    """Writes `flags.cfg`, a flagfile that repeats the run in another run directory.

    A preset is named in a comment: all that it set is there already. So are the devices, which the
    machine may decide.

    Args:
        folder: the run directory.
        values: flag name to its line in a flagfile.
        devices: how many train.

    Raises:
        RunDirectoryError: it could not be written, because there is no space left, say.
    """
    told = [f"# {values['preset']}"] if "preset" in values else []
    told += [] if devices is None else [f"{_DEVICES}{devices}"]
    lines = [line for name, line in sorted(values.items()) if name not in ("workdir", "preset")]
    try:
        atomic.write_text(folder / "flags.cfg", "".join(f"{line}\n" for line in told + lines))
    except OSError as error:
        raise cannot_write(error) from error


def compiled_before(folder: pathlib.Path) -> str | None:
    """Whether the step of the run in a folder is compiled with XLA, as its flags.cfg says.

    Args:
        folder: the run directory.

    Returns:
        "true" or "false"; None where there is no run.
    """
    return recorded(folder, "jit_compile")


def recorded(folder: pathlib.Path, flag: str) -> str | None:
    """What a run was started with, as its flags.cfg says.

    Args:
        folder: the run directory.
        flag: its name.

    Returns:
        The text of its value; None where there is no run, or it does not say.
    """
    path = folder / "flags.cfg"
    if not path.exists():
        return None
    return record.named(record.complete(_lines(path))).get(flag)


def devices_before(folder: pathlib.Path) -> int | None:
    """On how many devices the run in a folder was trained last, as its flags.cfg says.

    Args:
        folder: the run directory.

    Returns:
        The number; None where there is no run, or it does not say.
    """
    path = folder / "flags.cfg"
    lines = record.read(path) if path.exists() else []
    counts = [line.removeprefix(_DEVICES) for line in lines if line.startswith(_DEVICES)]
    return int(counts[-1]) if counts and counts[-1].isdigit() else None


def _lines(path: pathlib.Path) -> list[str]:
    return [line for line in record.read(path) if line and not line.startswith("#")]


def check_flags(
    folder: pathlib.Path,
    values: Mapping[str, str],
    on_resume: Mapping[str, str],
    defaults: Mapping[str, float],
    given: Collection[str] | None = None,
) -> None:
    """Refuses to resume a run with flags that would make another run of it.

    Args:
        folder: the run directory.
        values: flag name to its line in a flagfile, as it would be written now.
        on_resume: flag name to what may become of it: "same", "more" or "any".
        defaults: of the flags that may become more.
        given: the flags of `values` that are not at their defaults; another one that the record
            has not is an option of a later version, which leaves the run as it was. None: all.

    Raises:
        RunDirectoryError: names every flag that differs, and both values.
    """
    path = folder / "flags.cfg"
    if not path.exists():
        return
    lines = _lines(path)
    before = {record.flag_name(line): line for line in record.complete(lines)}
    if "jit_compile" in before and "jit_compile" not in values:
        values = {**values, "jit_compile": before["jit_compile"]}  # auto, decided at the start
    compared = set(before) | set(values if given is None else given)
    differences = []
    for name in sorted(compared):
        old, new, may = before.get(name), values.get(name), on_resume.get(name, "same")
        if old == new or may == "any" or (may == "more" and _grows(old, new, defaults[name])):
            continue
        differences.append(f"  was {old or f'--{name} not given'}, now {new or 'not given'}")
    if differences:
        raise RunDirectoryError(
            f"{folder} holds a run with other flags:\n"
            + "\n".join(differences)
            + "\nGive the flags it was started with, or another --workdir."
        )


def _grows(old: str | None, new: str | None, default: float) -> bool:
    def epochs(line: str | None) -> float:
        return default if line is None else float(line.partition("=")[2])

    return epochs(new) >= epochs(old)
