"""One process a folder: a lock file that names its holder and dies with it."""

from __future__ import annotations

import fcntl
import os
import pathlib
from types import TracebackType


class LockedError(RuntimeError):
    """Another process uses the folder; the message has its pid."""


class FileLock:
    """Keeps other processes out of a folder while this one uses it.

    The kernel drops the lock when its process ends, however it ends, so a stale one is taken over.

    Args:
        path: of the lock file, in the folder, which is made if it is not there; a local disk.
        flag: the flag that names the folder, for the message.
    """

    def __init__(self, path: pathlib.Path, flag: str) -> None:
        self._path = path
        self._flag = flag
        self._file: int | None = None
        self.dead_holder: int | None = None  # pid of the process it was taken over from

    def __enter__(self) -> FileLock:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(file) or "unknown"
            os.close(file)
            raise LockedError(
                f"{self._path.parent} is in use by the process with pid {holder}. Wait for it, "
                f"end it, or give another --{self._flag}."
            ) from None
        try:
            self.dead_holder = _holder(file)
            os.ftruncate(file, 0)
            os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:  # a full disk, say
            os.close(file)
            raise OSError(error.errno, error.strerror, str(self._path)) from error
        self._file = file
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.ftruncate(self._file, 0)
        os.close(self._file)
        self._file = None


def claim(path: pathlib.Path) -> int | None:
    """Takes a lock on a file whose content is left as it is, and which is made if need be.

    Args:
        path: of the file.

    Returns:
        A descriptor, which holds the lock until it is closed or this process ends; None where
        another one holds it.
    """
    file = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def in_use(path: pathlib.Path) -> bool:
    """Whether some process holds a lock; nothing is made or changed.

    Args:
        path: of the lock file.
    """
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:  # it is not there, or not ours to look at
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def _holder(file: int) -> int | None:
    text = os.pread(file, 64, 0).decode(errors="replace").strip()
    return int(text) if text.isdigit() else None
