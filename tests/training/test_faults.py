"""What goes wrong in a run, from outside: exit codes, messages, and what is left of the run."""

import dataclasses
import pathlib
import re
import resource
import shutil

import pytest

from neural_alignment import config
from neural_alignment.runs import checkpoints
from neural_alignment.runs.checkpoints import Checkpoints
from neural_alignment.training import job
from tests.training import children
from tests.training.conftest import FLAGS, STEPS


@pytest.fixture
def copy(straight, tmp_path) -> pathlib.Path:
    """A copy of the undisturbed run, to damage."""
    shutil.copytree(straight, tmp_path / "run")
    return tmp_path / "run"


def train(workdir: pathlib.Path, *more: str, prepare=None) -> children.Ended:
    flags_ = [*FLAGS, f"--workdir={workdir}", *more]
    return children.run(workdir.with_name("output"), "train.py", flags_, prepare)


def assert_failed(ended: children.Ended, *said: str) -> None:
    assert ended.code == 1, ended
    assert "Traceback" not in ended.errors
    assert "error: " in ended.errors
    for words in said:
        assert words in ended.errors


def newest(workdir: pathlib.Path) -> pathlib.Path:
    made = Checkpoints(f"{workdir}/checkpoints")
    return pathlib.Path(f"{made.prefix(made.steps()[-1])}.data-00000-of-00001")


def flip(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(copy, straight):
    flip(newest(copy))
    ended = train(copy)
    assert ended.code == 0, ended.errors
    assert f"the checkpoint of step {STEPS} is damaged" in ended.errors
    assert "checksum" in ended.errors
    assert "resumed at step 60" in ended.output
    for table in ("metrics.csv", "layers.csv"):
        assert (copy / table).read_text() == (straight / table).read_text()
    prefixes = [Checkpoints(f"{run}/checkpoints").prefix(STEPS) for run in (copy, straight)]
    assert checkpoints.differences(*prefixes) == []


def test_no_whole_checkpoint_is_no_fresh_start(copy):
    for path in (copy / "checkpoints").glob("*.data*"):
        path.write_bytes(path.read_bytes()[:-1])
    before = (copy / "metrics.csv").read_text()
    assert_failed(train(copy), "every checkpoint", f"step {STEPS}", "bytes, not")
    assert (copy / "metrics.csv").read_text() == before


def test_lost_checkpoints_are_no_fresh_start(copy):
    shutil.rmtree(copy / "checkpoints")
    assert_failed(train(copy), f"rows up to step {STEPS}", "no checkpoint")


@dataclasses.dataclass(frozen=True)
class FileSizes:
    """A limit that files cannot grow beyond, as if the disk were full."""

    most: int

    def limit(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.most, self.most))


@pytest.mark.parametrize(("most", "what"), [(30_000, "the checkpoint of step"), (200, "flags.cfg")])
def test_no_space_left(copy, straight, most, what):
    for path in (copy / "checkpoints").glob(f"step-{STEPS:09d}.*"):
        path.unlink()
    before = {path.name: path.read_bytes() for path in (copy / "checkpoints").iterdir()}
    assert_failed(train(copy, prepare=FileSizes(most).limit), "could not write", what, "space")
    assert before == {path.name: path.read_bytes() for path in (copy / "checkpoints").iterdir()}
    if "checkpoint" in what:
        assert train(copy).code == 0
        assert (copy / "metrics.csv").read_text() == (straight / "metrics.csv").read_text()


def test_a_loss_that_is_not_finite(tmp_path):
    workdir = tmp_path / "run"
    diverging = ["--learning_rate=1e12", "--epochs_per_checkpoint=0.01"]
    ended = train(workdir, *diverging)
    assert_failed(ended, "NaN or infinite between step", "last finite checkpoint is of step")
    assert re.search(r": (loss|alignment_loss), .*(hidden|output)", ended.errors)
    made = Checkpoints(f"{workdir}/checkpoints")
    kept = made.newest_whole()
    assert kept is not None and f"of step {kept}" in ended.errors
    reader = checkpoints.tf.train.load_checkpoint(made.prefix(kept))
    values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    assert checkpoints.not_finite(values) == []


def test_changed_flags_are_refused(copy):
    ended = train(copy, "--learning_rate=0.5", "--seed=1", "--checkpoint_max=3")
    assert_failed(ended, "was --seed=0, now --seed=1", "now --learning_rate=0.5")
    assert "checkpoint_max" not in ended.errors


def test_weights_of_another_run(copy, straight, tmp_path):
    last = (straight / "metrics.csv").read_text().splitlines()[-1].split(",")
    other = tmp_path / "other"
    more = [f"--load_checkpoint={straight}", "--validate_first", "--train_epochs=0.05"]
    ended = train(other, *more)
    assert ended.code == 0, ended.errors
    assert f"weights from {straight}/checkpoints/step-{STEPS:09d}" in ended.output
    assert f"'val_loss': {last[4]}" in ended.errors
    assert "resumed" not in ended.output

    assert_failed(train(tmp_path / "third", f"--load_checkpoint={tmp_path}/nothing"), "nothing")


def test_a_model_that_does_not_fit(copy, tmp_path):
    model = ["--alignment=kolen_pollack", "--model=fc", "--layers_list=64"]
    flags_ = [f"--load_checkpoint={copy}", *model]
    ended = children.run(tmp_path / "out", "train.py", [*flags_, f"--workdir={tmp_path}/new"])
    assert_failed(ended, "does not fit this run", "it lacks model/dense0/kernel", "too many")


def test_evaluate_gives_the_numbers_of_the_row(straight, tmp_path):
    row = dict(
        zip(
            *((straight / "metrics.csv").read_text().splitlines()[i].split(",") for i in (0, -1)),
            strict=True,
        )
    )
    for argument in ([f"--load_checkpoint={straight}"], ["--load_checkpoint", str(straight)]):
        ended = children.run(tmp_path, "evaluate.py", argument)
        assert ended.code == 0, ended.errors
        assert f"step {STEPS}" in ended.output
        assert f"top-1 {float(row['val_top1']):.2%}" in ended.output
        shown = " ".join(ended.output.split())  # a title is broken where its table ends
        assert f"validation loss {float(row['val_loss']):.4f}" in shown

    children.register_models()
    fv = config.parsed(config.with_flags_of_run(["evaluate.py", f"--load_checkpoint={straight}"]))
    measured = job.evaluate(fv)
    assert {name: repr(value) for name, value in measured.items()} == {
        name: row[name] for name in measured
    }


def test_evaluate_what_is_not_there(tmp_path, copy):
    ended = children.run(tmp_path / "out", "evaluate.py", [f"--load_checkpoint={tmp_path}/no"])
    assert_failed(ended, "no checkpoint at")
    flip(newest(copy))
    prefix = str(newest(copy)).partition(".")[0]
    ended = children.run(tmp_path / "out", "evaluate.py", [f"--load_checkpoint={prefix}"])
    assert_failed(ended, "is damaged")


def test_a_workdir_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    assert_failed(train(tmp_path / "file"), "file")


def test_stale_lock_is_taken_over(copy):
    (copy / "lock").write_text("1\n")
    assert train(copy).code == 0
