"""What a folder is: empty, a run, a search, or something else that is left alone."""

from __future__ import annotations

import os
import pathlib

# What a run writes first, so that a folder in which it was killed at once is still one.
_RUN_BEGINS = {"lock", "flags.cfg", "flags.cfg.part"}
_RUN_HAS = {"lock", "metrics.csv", "checkpoints"}
_SEARCH_BEGINS = {"search.lock", "search.json", "search.json.part", "trials", "reserve"}


class FolderError(ValueError):
    """A folder that is something else than it was taken for."""


def check_run(folder: pathlib.Path) -> None:
    """Refuses a folder that is neither new, empty nor a run's.

    Args:
        folder: where a run is to be kept.

    Raises:
        FolderError: it is no folder, a search's, or full of something else.
    """
    _check(folder, "workdir", "a run's", is_run(folder), "another --workdir")


def check_search(folder: pathlib.Path) -> None:
    """Refuses a folder that is neither new, empty nor a search's.

    Args:
        folder: where a search is to be kept.

    Raises:
        FolderError: it is no folder, a run's, or full of something else.
    """
    _check(folder, "searchdir", "a search's", is_search(folder), "another --searchdir")


def is_run(folder: pathlib.Path) -> bool:
    """Whether a folder holds a run, or the beginning of one."""
    held = _held(folder)
    begun = bool(held) and held <= _RUN_BEGINS
    known = ("flags.cfg" in held and held & _RUN_HAS) or {"metrics.csv", "checkpoints"} <= held
    return (begun or bool(known)) and "search.json" not in held


def is_search(folder: pathlib.Path) -> bool:
    """Whether a folder holds a search, or the beginning of one."""
    held = _held(folder)
    if held & {"flags.cfg", "metrics.csv", "checkpoints"}:
        return False
    return "search.json" in held or (bool(held) and held <= _SEARCH_BEGINS)


def _check(folder: pathlib.Path, flag: str, kind: str, fits: bool, remedy: str) -> None:
    if not folder.exists() or fits:
        return
    if not folder.is_dir():
        raise FolderError(f"--{flag}: expected a folder. Received: {folder}, a file")
    held = sorted(_held(folder))
    if not held:
        return
    what = ", ".join(held[:4]) + (", ..." if len(held) > 4 else "")
    if "search.json" in held:
        what = f"a search ({what})"
    elif is_run(folder):
        what = f"a run ({what})"
    raise FolderError(
        f"--{flag}: expected a new or an empty folder, or {kind}. Received: {folder}, which holds "
        f"{what}. Give {remedy}."
    )


def _held(folder: pathlib.Path) -> set[str]:
    """The names in a folder, but for the files that this process's own output goes to."""
    if not folder.is_dir():
        return set()
    own = _own_output()
    with os.scandir(folder) as entries:
        return {
            entry.name for entry in entries if _file(entry.stat(follow_symlinks=False)) not in own
        }


def _own_output() -> set[tuple[int, int]]:
    found = set()
    for number in (1, 2):
        try:
            found.add(_file(os.fstat(number)))
        except OSError:  # closed
            continue
    return found


def _file(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
