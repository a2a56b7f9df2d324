"""One preparation a folder; a full disk and the like are one message, and the call goes on."""

import errno
import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import pytest

from neural_alignment.data import claim, prepare
from neural_alignment.lock import LockedError
from tests.data import jpegs
from tests.data.test_sources import write_tree

NAMES = [f"{name}/i{number}.jpg" for name in ("lion", "zebra") for number in range(4)]
FILES = ["labels.txt", "manifest.json", "plan.json", "train-00000-of-00002",
         "train-00001-of-00002", "validation-00000-of-00001"]  # fmt: skip


@pytest.fixture
def source(tmp_path):
    return write_tree(tmp_path / "source", NAMES)


def write(source, output, **options):
    found, classes = prepare.images(str(source))
    splits = {"train": found, "validation": found}
    return prepare.write(splits, classes, str(output), {"train": 2, "validation": 1}, **options)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def command(source, output):
    validation = source.with_name("validation")
    if not validation.exists():
        shutil.copytree(source, validation)
    return [sys.executable, str(jpegs.ROOT / "scripts/prepare_imagenet.py"),
            f"--train={source}", f"--validation={validation}", f"--output_dir={output}",
            "--train_shards=2", "--validation_shards=1"]  # fmt: skip


ENVIRONMENT = os.environ | {"PYTHONPATH": str(jpegs.ROOT)}


def test_a_second_preparation_is_refused_and_changes_nothing(source, tmp_path, monkeypatch):
    to_jpeg, seen = prepare.to_jpeg, []

    def meanwhile(contents):
        if not seen:
            seen.append(names(tmp_path / "out"))
            with pytest.raises(LockedError) as caught:
                write(source, tmp_path / "out")
            assert f"pid {os.getpid()}" in str(caught.value) and "--output_dir" in str(caught.value)
            assert names(tmp_path / "out") == seen[0]
        return to_jpeg(contents)

    monkeypatch.setattr(prepare, "to_jpeg", meanwhile)
    write(source, tmp_path / "out", workers=1)
    assert seen and names(tmp_path / "out") == FILES


def test_the_script_says_who_has_the_folder(source, tmp_path):
    with claim.alone(str(tmp_path / "out")):
        result = subprocess.run(
            command(source, tmp_path / "out"), env=ENVIRONMENT, capture_output=True, text=True
        )
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert f"in use by the process with pid {os.getpid()}" in result.stderr
    assert names(tmp_path / "out") == []


@pytest.mark.slow
def test_many_at_once_leave_one_whole_set(source, tmp_path):
    alone = tmp_path / "alone"
    write(source, alone)
    running = [
        subprocess.Popen(
            command(source, tmp_path / "out"), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    results = [(process.communicate()[1], process.returncode) for process in running]
    assert 0 in [code for _, code in results]
    for errors, code in results:
        assert code == 0 or "in use by the process" in errors
    assert {name: (tmp_path / "out" / name).read_bytes() for name in FILES} == {
        name: (alone / name).read_bytes() for name in FILES
    }
    assert names(tmp_path / "out") == FILES


def test_a_lock_left_by_a_killed_process_is_taken_over(source, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / claim.LOCK).write_text("99999\n")
    write(source, tmp_path / "out")
    assert names(tmp_path / "out") == FILES


def test_a_lock_taken_away_while_it_is_opened_is_not_held(tmp_path, monkeypatch):
    folder, flock, calls = tmp_path / "out", fcntl.flock, []

    def late(file, how):
        if not calls:
            os.remove(folder / claim.LOCK)  # as its holder does at its end
        calls.append(file)
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with claim.alone(str(folder)):
        assert len(calls) == 2 and names(folder) == [claim.LOCK]
        with pytest.raises(LockedError), claim.alone(str(folder)):
            pass
    assert names(folder) == []


# A file of /dev/full takes no byte: the disk is full where the shard or the table is written.
@pytest.mark.parametrize(
    "file",
    [
        "train-00000-of-00002",
        pytest.param("train-00001-of-00002", marks=pytest.mark.slow),
        pytest.param("validation-00000-of-00001", marks=pytest.mark.slow),
        pytest.param("labels.txt", marks=pytest.mark.slow),
        pytest.param("manifest.json", marks=pytest.mark.slow),
        "plan.json",
    ],
)
def test_a_full_disk_is_one_message_and_the_call_goes_on(file, source, tmp_path):
    out = tmp_path / "out"
    write(source, tmp_path / "whole")
    out.mkdir()
    plan = (tmp_path / "whole/plan.json").read_bytes()
    if file != "plan.json":
        (out / "plan.json").write_bytes(plan)
        (out / f"{file}.part").symlink_to("/dev/full")
        result = subprocess.run(
            command(source, out), env=ENVIRONMENT, capture_output=True, text=True
        )
        assert result.returncode == 1 and "Traceback" not in result.stderr
        (message,) = [line for line in result.stderr.splitlines() if "Expected" in line]
        assert str(out) in message and "No space left on device" in message
        assert "{{" not in message and "0.0 GB" not in message
        (out / f"{file}.part").unlink(missing_ok=True)
    write(source, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()
    }


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
              OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
              PermissionError(errno.EACCES, "Permission denied", "/data/out/x")],
    ids=lambda error: errno.errorcode[error.errno],
)  # fmt: skip
def test_storage_that_fails_is_told_with_its_folder(error, source, tmp_path, monkeypatch):
    replace, calls = os.replace, []

    def fail(*paths):
        calls.append(paths)
        if len(calls) == 3:
            raise error
        return replace(*paths)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError) as caught:
        write(source, tmp_path / "out")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/out: Expected") and error.strerror in message
    assert "Errno" not in message and "\n" not in message


@pytest.mark.parametrize(
    ("free", "message"),
    [
        (0, r"Received: 0 bytes, [\d.]+ kB too little"),
        (10, "Received: 10 bytes"),
        (2_000, "Received: 2 kB"),
        (-1, "of free space"),
    ],
)
def test_too_little_room_is_said_in_units_that_tell(free, message, source, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": free})
    monkeypatch.setattr(claim.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=message) as caught:
        write(source, tmp_path / "out")
    assert "0.0 GB" not in str(caught.value)
    assert str(tmp_path / "out") in str(caught.value)


def test_a_plain_file_in_the_place_of_the_folder(source, tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(OSError, match=f"{tmp_path}/out: Expected a folder that can be written to"):
        write(source, tmp_path / "out")


def test_a_killed_preparation_goes_on_to_equal_bytes(source, tmp_path):
    write(source, tmp_path / "whole")
    process = subprocess.Popen(command(source, tmp_path / "out"), env=ENVIRONMENT)
    deadline = time.monotonic() + 60
    while not (tmp_path / "out/plan.json").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    write(source, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in pathlib.Path(tmp_path / "out").iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()
    }
    assert json.loads((tmp_path / "out/manifest.json").read_text())["num_classes"] == 2
