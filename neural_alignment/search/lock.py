"""One search a directory: a lock file that names its owner and dies with it."""

import fcntl
import os
from pathlib import Path


class LockedError(RuntimeError):
    """Another process uses the directory; the message has its pid."""


class DirectoryLock:
    """Holds DIRECTORY/search.lock while a search runs.

    The kernel drops the lock when its owner dies, however it dies, so the file of a dead search is
    taken over without more ado.

    Args:
        directory: An existing directory.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "search.lock"
        self._file: int | None = None

    def acquire(self) -> int | None:
        """Takes the lock.

        Returns:
            The pid of a dead owner whose lock was taken over, or None.

        Raises:
            LockedError: a living process holds it.
        """
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(file, 64, 0).decode(errors="replace").strip() or "unknown"
            os.close(file)
            raise LockedError(
                f"{self._path.parent} is in use by another search (pid {owner}). Wait for it, or "
                f"end it, or choose another --searchdir."
            ) from error
        previous = os.pread(file, 64, 0).decode(errors="replace").strip()
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        self._file = file
        return int(previous) if previous.isdigit() else None

    def release(self) -> None:
        """Gives the lock back and empties the file."""
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None

    def __enter__(self) -> "DirectoryLock":
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
