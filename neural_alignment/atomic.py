"""Files that are there whole or not at all, whatever ends the process that writes them."""

from __future__ import annotations

import os
import pathlib


def part_of(path: pathlib.Path) -> pathlib.Path:
    """Where a file is written before it is moved into place, of this process alone.

    Args:
        path: of a file that several processes may write at a time.
    """
    return path.with_name(f"{path.name}.{os.getpid()}.part")


def write_text(path: str | os.PathLike[str], text: str, *, shared: bool = False) -> None:
    """Writes a text file so that a reader finds what was there before, or all of the new text.

    The text goes to a file beside it, to the disk, and is moved into place.

    Args:
        path: of the file, on a local or mounted file system.
        text: what it is to hold; names of files that are no UTF-8 as they are on the disk.
        shared: whether other processes may write it meanwhile, of which the last one wins; else it
            goes to `PATH.part` first, which is known as what a killed process leaves.

    Raises:
        OSError: it could not be written; `filename` is the path, and what it held is still there.
    """
    path = pathlib.Path(path)
    part = part_of(path) if shared else path.with_name(f"{path.name}.part")
    try:
        with part.open("w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        remove(part)
        raise OSError(error.errno, error.strerror, str(path)) from error


def remove(path: pathlib.Path) -> None:
    """Removes a file if it is there and can be removed."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
