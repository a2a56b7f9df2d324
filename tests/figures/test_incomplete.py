"""Folders that may not be read, and runs without their last angles: named, beside what is drawn."""

import errno
import os
import pathlib
import re

import pytest

from neural_alignment.figures import draw
from neural_alignment.figures.drawing import write
from neural_alignment.figures.material import Drawn
from neural_alignment.figures.reader import RunReadError, read
from neural_alignment.reproduce import leaderboard
from tests.figures.made_runs import make_run, read_table

# What a run's files hold instead, and what is said of it: a refusal, or a note.
ODD = {
    "flags.cfg": [
        (lambda text: "", "has no flags: the run is taken for one of all defaults, backprop"),
        (lambda text: "# --preset=none\n", "has no flags: the run is taken for"),
        (lambda text: text.replace("=", " "), "Expected lines --FLAG=VALUE in .*'--alignment sym"),
    ],
    "metrics.csv": [
        (lambda text: text.replace(",0.9,", ",90.0,"), "Expected fractions .* Received: 0.3 to 90"),
        (lambda text: text.replace(",0.9,", ",-0.1,"), "Expected fractions .* Received: -0.1 to "),
        (lambda text: text.replace(",0.9,", ",1.0,"), None),
    ],
}


@pytest.mark.parametrize(
    ("name", "number"), [(name, i) for name, cases in ODD.items() for i in range(len(cases))]
)
def test_what_says_something_else_than_a_run_does(name, number, tmp_path):
    change, said = ODD[name][number]
    run = make_run(tmp_path / "run")
    (run / name).write_text(change((run / name).read_text()))
    if said is not None and said.startswith("Expected"):
        with pytest.raises(RunReadError, match=said):
            read([run])
        return
    notes = read([run]).notes
    assert len(notes) == (said is not None) and all(said in note for note in notes)
    if name == "flags.cfg":
        _, left_out = leaderboard.rows([run])
        assert any("does not say how many train_epochs" in note for note in left_out)


def shut(monkeypatch, *names):
    """Folders of these names cannot be looked into, as another user's: tests may run as root."""
    look = os.scandir

    def scandir(path="."):
        if os.path.basename(os.fspath(path)) in names:
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return look(path)

    monkeypatch.setattr(os, "scandir", scandir)


@pytest.mark.parametrize("place", ["of_another/b", "of_another", "x/y/of_another/b"])
def test_a_folder_that_may_not_be_read_is_named(place, tmp_path, monkeypatch):
    make_run(tmp_path / "runs/a")
    make_run(tmp_path / "runs" / place, seed=1)
    shut(monkeypatch, "of_another")
    found = read([tmp_path / "runs"])
    assert [run.folder.name for run in found.runs] == ["a"]
    hidden = (tmp_path / "runs" / place.partition("/b")[0],)
    assert found.notes == (*[f"{path} is left out: it cannot be read, Permission denied"
                             for path in hidden],)  # fmt: skip
    with pytest.raises(PermissionError, match="of_another"):
        read(hidden)
    if place.startswith("x"):
        with pytest.raises(RunReadError, match="which holds none .*of_another is left out"):
            read([tmp_path / "runs/x"])


def test_a_run_whose_files_may_not_be_looked_at_is_named(tmp_path, monkeypatch):
    make_run(tmp_path / "a")
    closed = make_run(tmp_path / "b", seed=1)
    look = pathlib.Path.is_file

    def is_file(path):
        if path.parent == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return look(path)

    monkeypatch.setattr(pathlib.Path, "is_file", is_file)
    found = read([tmp_path])
    assert [run.folder.name for run in found.runs] == ["a"]
    assert str(closed) in found.notes[0] and "left out: it cannot be read" in found.notes[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda cells: None,  # the run, or its copy, ended between the two tables
        lambda cells: [*cells[:3], "nan", "nan", "nan"],
        lambda cells: [cells[0], "125", *cells[2:]],
    ],
)
def test_angles_of_earlier_epochs_alone(change, tmp_path):
    run = make_run(tmp_path / "run")
    head, *rows = (run / "layers.csv").read_text().splitlines()
    cells = [row.split(",") for row in rows]
    kept = [change(row) if row[0] == "3" else row for row in cells]
    (run / "layers.csv").write_text("\n".join([head, *(",".join(r) for r in kept if r)]) + "\n")
    written = draw([run], tmp_path / "out", formats=["svg"])
    assert {path.stem for path in written.files} >= {"curves", "angles"}
    assert re.search(r"angles of the last epoch .*run without", written.not_drawn["depth"])
    beside = make_run(tmp_path / "beside", seed=1)
    drawn = draw([run, beside], tmp_path / "out", ["depth"], formats=["svg"])
    assert {row["runs"] for row in read_table(drawn.files[-1])} == {"1"}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.png.part"), "device: '{}'"),
        (OSError("encoder error -2"), "encoder error -2"),
    ],
)
def test_a_figure_that_cannot_be_written_says_why(error, said, tmp_path):
    class Full:
        def savefig(self, part, **options):
            raise error

    with pytest.raises(OSError) as told:
        write(Drawn(Full(), [{"epoch": 1}]), tmp_path / "a", ["png"])
    assert str(told.value).endswith(said.format(tmp_path / "a.png"))
    assert not list(tmp_path.iterdir())
