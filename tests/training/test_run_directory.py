"""The run directory: its flags, its tables."""

import errno
import math
import os
import pathlib

import pytest

from neural_alignment import atomic
from neural_alignment.config.flags import on_resume
from neural_alignment.runs import directory
from neural_alignment.runs.directory import RunDirectoryError, write_flags
from neural_alignment.runs.table import Table, has_ended

ROOT = pathlib.Path(__file__).parents[2]
LINES = {"seed": "--seed=3", "learning_rate": "--learning_rate=0.1", "rescale_lr": "--rescale_lr"}

MAY_CHANGE = sorted(name for name, may in on_resume().items() if may == "any")


def check_flags(folder, values):
    directory.check_flags(folder, values, on_resume(), {"train_epochs": 90.0})


def test_same_flags_in_any_order(tmp_path):
    check_flags(tmp_path, LINES)  # a new run
    write_flags(tmp_path, LINES | {"workdir": f"--workdir={tmp_path}"})
    check_flags(tmp_path, dict(reversed(LINES.items())))
    assert "workdir" not in (tmp_path / "flags.cfg").read_text()


@pytest.mark.parametrize(
    ("said", "devices"),
    [(None, None), ("# devices: 2", 2), ("# devices: many", None), ("# devices:", None)],
)
def test_devices_are_noted(tmp_path, said, devices):
    assert directory.devices_before(tmp_path) is None
    write_flags(tmp_path, LINES | {"preset": "--preset=mnist_sa"}, devices=7)
    assert directory.devices_before(tmp_path) == 7
    check_flags(tmp_path, LINES)
    path = tmp_path / "flags.cfg"
    lines = [line for line in path.read_text().splitlines() if "devices" not in line]
    path.write_text("\n".join([*lines, *([said] if said else [])]))
    assert directory.devices_before(tmp_path) == devices


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": "--seed=4"}, "was --seed=3, now --seed=4"),
        ({"seed": None}, "was --seed=3, now not given"),
        ({"rescale_lr": None}, "was --rescale_lr, now not given"),
        ({"optimizer": "--optimizer=gd"}, "was --optimizer not given, now --optimizer=gd"),
        ({"rescale_lr": "--norescale_lr"}, "was --rescale_lr, now --norescale_lr"),
    ],
)
def test_changed_flags_are_refused_with_the_difference(tmp_path, change, said):
    write_flags(tmp_path, LINES)
    now = {name: line for name, line in (LINES | change).items() if line is not None}
    with pytest.raises(RunDirectoryError, match="other flags") as raised:
        check_flags(tmp_path, now)
    shown = [line.strip() for line in str(raised.value).splitlines() if line.startswith("  ")]
    assert shown == [said]


def test_an_option_of_a_later_version_is_at_its_default(tmp_path):
    """Of all that holds, what the record has not and nobody gave changes nothing."""
    write_flags(tmp_path, LINES | {"defaults": "--defaults=none"})
    now = LINES | {"defaults": "--defaults=none", "new_option": "--new_option=false"}
    told = (tmp_path, now, on_resume(), {"train_epochs": 90.0})
    directory.check_flags(*told, given=set(LINES))
    with pytest.raises(
        RunDirectoryError, match="was --new_option not given, now --new_option=false"
    ):
        directory.check_flags(*told, given={*LINES, "new_option"})


@pytest.mark.parametrize("name", MAY_CHANGE)
def test_flags_that_may_change(tmp_path, name):
    write_flags(tmp_path, LINES | {name: f"--{name}=1"})
    check_flags(tmp_path, LINES | {name: f"--{name}=2"})
    check_flags(tmp_path, LINES)


@pytest.mark.parametrize(
    ("written", "was"),
    [
        (["--jit_compile=true", "--defaults=none"], "true"),
        (["--jit_compile=false", "--defaults=none"], "false"),
        # Of version 0.1, where it was a boolean and off.
        (["--jit_compile"], "true"),
        (["--jit_compile=true"], "true"),
        (["--nojit_compile"], "false"),
        ([], "false"),
    ],
)
def test_what_auto_decided_holds_for_the_run(tmp_path, written, was):
    assert directory.compiled_before(tmp_path) is None
    (tmp_path / "flags.cfg").write_text("\n".join(["--seed=3", *written]) + "\n")
    assert directory.compiled_before(tmp_path) == was
    values = {"seed": "--seed=3", "defaults": "--defaults=none"}
    check_flags(tmp_path, values)
    check_flags(tmp_path, values | {"jit_compile": f"--jit_compile={was}"})
    other = {"true": "false", "false": "true"}[was]
    with pytest.raises(RunDirectoryError, match=f"was --jit_compile={was}, now .*={other}"):
        check_flags(tmp_path, values | {"jit_compile": f"--jit_compile={other}"})


def test_epochs_may_only_grow(tmp_path):
    def with_epochs(epochs):
        return LINES | ({} if epochs is None else {"train_epochs": f"--train_epochs={epochs}"})

    for before, now, fits in (
        (5, 7.5, True),
        (5, None, True),  # the default is 90
        (None, 100, True),
        (7, 5, False),
        (None, 5, False),
        (100, None, False),
    ):
        write_flags(tmp_path, with_epochs(before))
        if fits:
            check_flags(tmp_path, with_epochs(now))
        else:
            with pytest.raises(RunDirectoryError, match="train_epochs"):
                check_flags(tmp_path, with_epochs(now))


# How an editor may write a file of a run.
SAVED = {
    "of Windows": lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
    "with a mark": lambda text: text.encode("utf-8-sig"),
    "with spaces": lambda text: text.replace("\n", "  \n\n").encode(),
}


@pytest.mark.parametrize("how", SAVED)
def test_flags_saved_by_an_editor_are_the_same_flags(tmp_path, how):
    write_flags(tmp_path, LINES)
    file = tmp_path / "flags.cfg"
    file.write_bytes(SAVED[how](file.read_text()))
    check_flags(tmp_path, LINES)
    with pytest.raises(RunDirectoryError, match="was --seed=3, now --seed=4"):
        check_flags(tmp_path, LINES | {"seed": "--seed=4"})
    assert directory.compiled_before(tmp_path) == "false"


def test_flags_that_are_no_text_are_named(tmp_path):
    (tmp_path / "flags.cfg").write_text("--seed=3\n", encoding="utf-16")
    with pytest.raises(OSError, match="UTF-8") as raised:
        check_flags(tmp_path, LINES)
    assert raised.value.filename == str(tmp_path / "flags.cfg")


COLUMNS = ("epoch", "global_step", "loss")


@pytest.mark.parametrize("how", ["of Windows", "with a mark"])
def test_a_table_saved_by_an_editor_is_the_same_table(tmp_path, how):
    file = tmp_path / "metrics.csv"
    Table(file, COLUMNS).append(rows(4, 6))
    before = Table(file, COLUMNS).rows
    file.write_bytes(SAVED[how](file.read_text()))
    assert Table(file, COLUMNS).rows == before


def rows(*steps):
    return [{"epoch": step / 4, "global_step": step, "loss": step / 3} for step in steps]


def test_table_keeps_every_digit_and_is_cut_to_a_step(tmp_path):
    path = tmp_path / "metrics.csv"
    Table(path, COLUMNS).append(rows(4, 6, 8))
    again = Table(path, COLUMNS)
    assert [float(row["loss"]) for row in again.rows] == [4 / 3, 2.0, 8 / 3]
    again.truncate(8, every=4)
    assert [row["global_step"] for row in again.rows] == ["4", "8"]
    again.truncate(4)
    again.append(rows(5))
    assert [row["global_step"] for row in Table(path, COLUMNS).rows] == ["4", "5"]


@pytest.mark.parametrize(
    ("step", "epochs", "ended"),
    [
        (126, 3.0, True),
        (126, 3.02, True),  # no whole step more
        (126, 3.03, False),
        (52, 1.25, True),  # 52.5 steps
        (51, 1.25, False),
        (105, 2.5, True),
        (84, 3.0, False),
        (1, 1e-6, True),
        (0, 3.0, False),
        (42, float("nan"), False),
    ],
)
def test_a_run_has_ended_with_its_last_whole_step(step, epochs, ended):
    assert has_ended({"epoch": step / 42, "global_step": step}, epochs) is ended
    assert has_ended({"epoch": repr(step / 42), "global_step": str(step)}, epochs) is ended


@pytest.mark.parametrize("steps", [1, 7, 42, 937, 5004])
@pytest.mark.parametrize("epochs", [0.1, 0.7, 1.25, 2.9, 13.33, 90.0])
def test_it_is_the_last_step_of_the_loop(steps, epochs):
    last = max(1, math.floor(epochs * steps + 1e-6))  # as the loop counts
    assert has_ended({"epoch": last / steps, "global_step": last}, epochs)
    before = {"epoch": (last - 1) / steps, "global_step": last - 1}
    assert last == 1 or not has_ended(before, epochs)


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n",
        "epoch,global_step,loss\n1,2.5,3\n",
        "epoch,global_step,loss\n1\n",
        "epoch,global_step,loss\n1,2",
        "epoch,global_step,loss\n1,2,3,4\n",
        "epoch,global_step,loss\nx,2,3\n",
    ],
)
def test_a_file_that_is_no_such_table(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(RunDirectoryError, match="Expected a table with the columns"):
        Table(tmp_path / "metrics.csv", COLUMNS)


def test_no_space_left(tmp_path, monkeypatch):
    path = tmp_path / "metrics.csv"
    table = Table(path, COLUMNS)
    table.append(rows(4))
    before = path.read_text()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(RunDirectoryError, match="metrics.csv: No space left.*Make space"):
        table.append(rows(8))
    assert path.read_text() == before


def test_two_processes_that_write_one_file_at_a_time(tmp_path, monkeypatch):
    path, sync = tmp_path / "table.csv", os.fsync

    def meanwhile(file):
        monkeypatch.setattr(atomic.os, "fsync", sync)
        monkeypatch.setattr(atomic.os, "getpid", lambda: 7)
        atomic.write_text(path, "of the other process", shared=True)
        assert path.read_text() == "of the other process"
        sync(file)

    monkeypatch.setattr(atomic.os, "fsync", meanwhile)
    atomic.write_text(path, "of this one", shared=True)
    assert path.read_text() == "of this one"
    assert os.listdir(tmp_path) == ["table.csv"]
