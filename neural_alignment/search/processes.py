"""Trial processes: each in a group of its own, ended with its parent, known by pid and start."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import neural_alignment

# The module that trains, as `neural-alignment train` does.
TRAINER = "neural_alignment.cli.train"
# Who is told to stop gets this long to save its state.
GRACE_SECONDS = 20.0
_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.01
# Loaded before any fork: nothing may be imported between fork and exec.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Process(Protocol):
    """A trial's process, however it was started."""

    pid: int

    def poll(self) -> int | None:
        """Its exit code (minus the signal's number if one ended it), or None while it runs."""

    def wait(self, timeout: float) -> int | None:
        """As `poll`, after waiting up to `timeout` seconds for the end."""


class Launcher(Protocol):
    """Starts trial processes."""

    def start(self, argv: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
        """Starts a Python script (argv[0]) with its arguments; its output goes to `log`.

        A module is started as Python's command line starts it: -m, its name, its arguments.
        """

    def close(self) -> None:
        """Gives back what the launcher itself holds."""


def interpreter() -> list[str]:
    """Python, for a module of this package: whatever lies in the current folder is not imported.

    Unless that folder is the repository's, from which the package is imported where it is not
    installed.
    """
    at_home = Path(neural_alignment.__file__).parents[1] == Path.cwd()
    return [sys.executable, *([] if at_home else ["-P"])]


class ScriptLauncher:
    """Starts each script with a new Python interpreter."""

    def start(self, argv: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
        """Starts `python argv...` with `environment` added to this process's."""
        python = interpreter() if argv[0] == "-m" else [sys.executable]
        with open(log, "wb") as output:
            parent = os.getpid()
            process = subprocess.Popen(
                [*python, *argv],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=lambda: end_with_parent(parent),
            )
        return _Child(process)

    def close(self) -> None:
        """Nothing is held."""


class _Child:
    def __init__(self, process: subprocess.Popen) -> None:
        self._process = process
        self.pid = process.pid

    def poll(self) -> int | None:
        if self._process.returncode is None and has_ended(self.pid):
            end_group(self.pid)
        return self._process.poll()

    def wait(self, timeout: float) -> int | None:
        # Popen.wait would take the exit code before `poll` has ended the group.
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return code


def end_with_parent(parent: int) -> None:
    """Asks the kernel to kill this process when its parent dies (Linux; elsewhere a no-op).

    Args:
        parent: The parent's pid, to notice that it died before we asked.
    """
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


def has_ended(child: int) -> bool:
    """Whether a child has ended; it stays a zombie, so that its pid and group remain its own."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def end_group(pid: int, number: int = signal.SIGKILL) -> None:
    """Sends a signal to a process group, if it still exists."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        # Nobody is left in it, or (macOS) only zombies are.
        return


def stop(processes: Sequence[Process]) -> None:
    """Tells processes to save their state and end; ends those that have not after a while.

    Args:
        processes: under way, or ended.
    """
    for process in processes:
        if process.poll() is None:
            end_group(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        while process.poll() is None:
            if time.monotonic() > deadline:
                end_group(process.pid)
            process.wait(0.1)


def identity(pid: int) -> str | None:
    """What tells a process from a later one of the same pid: when it started; None if it is gone.

    The start is in clock ticks since boot on Linux, with the boot's id; elsewhere what ps says.
    """
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else f"{boot} {fields[19]}"
    listed = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return listed.stdout.strip() or None
