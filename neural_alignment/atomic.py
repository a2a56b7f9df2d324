"""Files that are there whole or not at all, whatever ends the process that writes them."""

from __future__ import annotations

import os
import pathlib


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file so that a reader finds what was there before, or all of the new text.

    The text goes to `PATH.part`, to the disk, and is moved into place.

    Args:
        path: of the file, on a local or mounted file system.
        text: what it is to hold; names of files that are no UTF-8 as they are on the disk.

    Raises:
        OSError: it could not be written; `filename` is the path, and what it held is still there.
    """
    path = pathlib.Path(path)
    part = path.with_name(f"{path.name}.part")
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
