"""The lock of a folder: of a living process, of a dead one, given back."""

import errno
import os
import pathlib
import subprocess
import sys

import pytest

from neural_alignment.lock import FileLock, LockedError

ROOT = pathlib.Path(__file__).parents[1]
HOLD = """
import pathlib, sys, time
from neural_alignment.lock import FileLock
with FileLock(pathlib.Path(sys.argv[1]), "workdir"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_lock_of_a_living_process_and_of_a_killed_one(tmp_path):
    path = tmp_path / "run" / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    with holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LockedError, match=f"the process with pid {holder.pid}.*--searchdir"):
            FileLock(path, "searchdir").__enter__()
        holder.kill()
        holder.wait()
    assert path.read_text() == f"{holder.pid}\n"
    with FileLock(path, "workdir") as lock:
        assert lock.dead_holder == holder.pid
        assert path.read_text() == f"{os.getpid()}\n"
    with FileLock(path, "workdir") as lock:
        assert lock.dead_holder is None


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="lock") as raised:
        FileLock(tmp_path / "lock", "workdir").__enter__()
    assert raised.value.filename == str(tmp_path / "lock")
    monkeypatch.undo()
    with FileLock(tmp_path / "lock", "workdir") as lock:  # it was given back
        assert lock.dead_holder is None
