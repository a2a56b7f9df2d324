"""What a job says and how it ends: a closed stdout, hang-ups, epochs, NaN, modules, two calls."""

import csv
import dataclasses
import os
import pathlib
import signal
import sys

import pytest
import tensorflow as tf

from neural_alignment.cli import evaluate, search, train
from neural_alignment.messages import of_system, one_line
from neural_alignment.runs.checkpoints import Checkpoints
from neural_alignment.runs.directory import RunDirectoryError
from neural_alignment.training.events import TensorBoardScalars
from tests.training import children

SHORT = ["--layers_list=4", "--train_batch_size=64", "--alignment=symmetric"]


def run(folder, *flags, script="train.py", prepare=None):
    return children.run(folder / "said", script, [*SHORT, *flags], prepare)


def close_stdout():
    os.close(1)


def nobody_reads():
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)


def full_disk():
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


@pytest.mark.parametrize(
    "lost", [close_stdout, pytest.param(nobody_reads, marks=pytest.mark.slow), full_disk]
)
def test_a_run_goes_on_without_stdout_and_says_so(tmp_path, lost):
    ended = run(tmp_path, f"--workdir={tmp_path}/run", "--train_epochs=2", prepare=lost)
    assert ended.code == 0, ended
    assert "stdout cannot be written to" in ended.errors and ended.errors.count("\n") == 1
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 3
    told = run(tmp_path, f"--load_checkpoint={tmp_path}/run", script="evaluate.py", prepare=lost)
    assert told.code == 1  # its result went nowhere
    assert "stdout cannot be written to" in told.errors and "Traceback" not in told.errors


def ignore_hang_ups():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@dataclasses.dataclass(frozen=True)
class HangUp:
    """SIGHUP in mid-training; ignored, as by nohup, or not; the terminal gone with it, or not."""

    ignored: bool = False
    closed: bool = False

    def arm(self) -> None:
        if self.ignored:
            ignore_hang_ups()
        if self.closed:
            nobody_reads()
        children.Signal(signal.SIGHUP, "steps", nth=4).arm()


@pytest.mark.parametrize("closed", [False, True])
def test_a_hang_up_saves(tmp_path, closed):
    flags = [f"--workdir={tmp_path}/run", "--train_epochs=3", "--iterations_per_loop=5"]
    flags.append("--epochs_per_checkpoint=50")
    ended = run(tmp_path, *flags, prepare=HangUp(closed=closed).arm)
    assert ended.code == 75 and "SIGHUP came" in ended.errors, ended
    saved = Checkpoints(f"{tmp_path}/run/checkpoints").steps()
    assert len(saved) == 1 and 0 < saved[0] < 63
    again = run(tmp_path, *flags)
    assert again.code == 0 and f"resumed at step {saved[0]}" in again.output


def latin_stdout():
    sys.stdout.reconfigure(encoding="ascii", errors="strict")


def test_a_stdout_of_another_encoding_has_escapes(tmp_path):
    workdir = tmp_path / "größe 犬"
    ended = run(tmp_path, f"--workdir={workdir}", "--train_epochs=1", prepare=latin_stdout)
    assert ended.code == 0 and ended.errors == ""
    assert "gr\\xf6\\xdfe \\u72ac" in ended.output and "epoch 1/1" in ended.output
    assert "dense0" in ended.output.splitlines()[-3]  # the last table is there


def test_under_nohup_a_hang_up_is_nothing(tmp_path):
    flags = [f"--workdir={tmp_path}/run", "--train_epochs=1", "--iterations_per_loop=2"]
    ended = run(tmp_path, *flags, prepare=HangUp(ignored=True).arm)
    assert ended.code == 0, ended


def events(folder):
    """(tag, step) of every scalar in a run's events, with repetitions."""
    found = []
    for path in sorted((folder / "events").iterdir()):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            found += [(value.tag, event.step) for value in event.summary.value]
    return found


@pytest.mark.parametrize("nth", [3, pytest.param(5, marks=pytest.mark.slow)])
def test_a_run_that_was_killed_has_every_event_once(tmp_path, nth):
    """The checkpoint is behind the events; those after it are written again, and once."""
    flags = [f"--workdir={tmp_path}/run", "--train_epochs=6", "--epochs_per_checkpoint=2"]
    kill = children.Signal(signal.SIGKILL, "validation", nth)
    assert run(tmp_path, *flags, prepare=kill.arm).code == -signal.SIGKILL
    assert run(tmp_path, *flags).code == 0
    straight = [f"--workdir={tmp_path}/straight", "--train_epochs=6"]
    assert run(tmp_path, *straight).code == 0
    found = events(tmp_path / "run")
    assert len(found) == len(set(found))
    assert sorted(found) == sorted(events(tmp_path / "straight"))
    assert run(tmp_path, *flags).code == 0  # finished: shown again, nothing is added
    assert events(tmp_path / "run") == found


def test_events_cut_short_and_of_a_part_of_an_epoch(tmp_path):
    """A kill in mid-write leaves half an event; the row of half an epoch goes when it is whole."""
    flags = [f"--workdir={tmp_path}/run", "--train_epochs=4"]
    assert run(tmp_path, *flags, "--max_epochs=1.5").code == 0
    [file] = (tmp_path / "run" / "events").iterdir()
    file.write_bytes(file.read_bytes() + b"\x10\x00\x00\x00half of one")
    assert run(tmp_path, *flags).code == 0
    steps = {step for _, step in events(tmp_path / "run")}
    assert steps == {21, 42, 63, 84}
    assert len(events(tmp_path / "run")) == len(set(events(tmp_path / "run")))


@pytest.mark.parametrize(
    ("flags", "lines"),
    [
        (["--train_epochs=2.5"], ["1/2.5", "2/2.5", "2.5/2.5"]),
        (["--train_epochs=2"], ["1/2", "2/2"]),
        (["--train_epochs=0.5"], ["0.5/0.5"]),
        (["--train_epochs=90", "--max_epochs=1.25"], ["1/1.25", "1.25/1.25"]),
    ],
)
def test_epochs_are_counted_as_they_were_asked_for(tmp_path, flags, lines):
    ended = run(tmp_path, f"--workdir={tmp_path}/run", *flags)
    assert ended.code == 0, ended.errors
    shown = [line.split("loss")[0] for line in ended.output.splitlines() if line[:6] == "epoch "]
    assert ["".join(each.removeprefix("epoch").split()) for each in shown] == lines


DIVERGE = ["--learning_rate=1e15", "--train_epochs=3", "--activation=relu"]


@pytest.mark.parametrize(
    ("flags", "advice", "never"),
    [
        (["--alignment=backprop"], "Lower --learning_rate, or clip", "alignment"),
        (["--alignment=feedback"], "Lower --learning_rate, or clip", "alignment"),
        (["--alignment=backprop", "--grad_clip"], "Lower --learning_rate.", "clip"),
        (
            ["--alignment=symmetric", "--alignment_optimizer=adam"],
            "--learning_rate against --alignment_learning_rate",
            "of its own",
        ),
        (["--alignment=symmetric"], "an optimizer of its own", "against"),
    ],
)
def test_advice_on_nan_fits_the_job(tmp_path, flags, advice, never):
    job = ["--layers_list=4,4", "--train_batch_size=64", *DIVERGE, *flags]
    ended = children.run(tmp_path / "said", "train.py", [*job, f"--workdir={tmp_path}/run"])
    if ended.code == 0 and "--grad_clip" in flags:
        pytest.skip("clipping kept it finite")
    assert ended.code == 1 and "NaN or infinite" in ended.errors, ended
    told = ended.errors.partition("NaN or infinite")[2].partition("step")[2]
    assert advice in told
    assert never not in told[told.index("Lower") if "Lower" in told else 0 :]


RULE = """
import dataclasses
from neural_alignment import alignments
from neural_alignment.alignments import Alignment

@alignments.register("{name}")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule(Alignment):
    '''Feedback alignment by another name.'''
"""


@dataclasses.dataclass(frozen=True)
class Here:
    """A working directory, which is the home folder too."""

    path: str

    def enter(self) -> None:
        os.environ["HOME"] = self.path
        os.chdir(self.path)


@pytest.mark.parametrize(
    "what",
    ["mine_{}", "~/mine_{}.py"]
    + [pytest.param(path, marks=pytest.mark.slow) for path in ("{}/mine_{}.py", "mine_{}.py")],
)
def test_a_module_of_one_s_own(tmp_path, what):
    name = f"r{abs(hash(what)) % 10**8}"
    (tmp_path / f"mine_{name}.py").write_text(RULE.format(name=name))
    module = what.format(*[tmp_path, name][-what.count("{}") :])
    here = Here(str(tmp_path)).enter
    flags = [f"--import={module}", f"--alignment={name}", f"--workdir={tmp_path}/run"]
    job = ["--layers_list=4", "--train_epochs=1", *flags]
    ended = children.run(tmp_path / "a", "train.py", job, here)
    assert ended.code == 0, ended.errors
    assert f"rule {name}" in ended.output
    told = children.run(tmp_path / "b", "evaluate.py", [f"--load_checkpoint={tmp_path}/run"], here)
    assert told.code == 0, told.errors
    help_ = children.run(tmp_path / "c", "train.py", [f"--import={module}", "--helpfull"], here)
    assert help_.code == 0 and name in help_.output


@pytest.mark.parametrize("main", [train.main, evaluate.main, search.main])
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("no_such_module_here", "No module named"),
        ("nowhere/mine.py", "nowhere/mine.py"),
        ("{}/broken.py", "a mistake of mine"),
    ],
)
def test_modules_that_cannot_be_imported(main, text, why, tmp_path, capsys):
    (tmp_path / "broken.py").write_text("raise RuntimeError('a mistake of mine')")
    assert main(["x", f"--import={text.format(tmp_path)}"]) == 2
    errors = capsys.readouterr().err
    assert "--import" in errors and why in errors and "Traceback" not in errors


@pytest.mark.slow
def test_a_search_with_a_module_of_one_s_own(tmp_path):
    (tmp_path / "mine_of_a_search.py").write_text(RULE.format(name="of_a_search"))
    (tmp_path / "space.toml").write_text(
        'name = "mine"\nschedule_epochs = 1\nmax_epochs = 1\n'
        '[flags]\nalignment = "of_a_search"\nlayers_list = "4"\n'
        '[[parameters]]\nname = "rate"\ndistribution = "uniform"\nflag = "learning_rate"\n'
        "low = 0.01\nhigh = 0.1\n"
    )
    flags = [f"--space={tmp_path}/space.toml", f"--searchdir={tmp_path}/s", "--trials=1",
             "--import=mine_of_a_search", "--nopreload"]  # fmt: skip
    ended = children.run(tmp_path / "o", "search.py", flags, Here(str(tmp_path)).enter)
    assert ended.code == 0, ended.output + ended.errors
    assert "--import=mine_of_a_search" in (tmp_path / "s" / "best.cfg").read_text()


def test_twice_in_one_process(tmp_path, capsys):
    for n in range(2):
        assert (
            train.main(["train.py", *SHORT, "--train_epochs=1", f"--workdir={tmp_path}/{n}"]) == 0
        )
        assert evaluate.main(["evaluate.py", f"--load_checkpoint={tmp_path}/{n}"]) == 0
        assert train.main(["train.py", "--preset=none"]) == 2
        assert search.main(["search.py", "--help"]) == 0
        assert search.main(["search.py", "--space=none", f"--searchdir={tmp_path}/s"]) == 2
    tables = [(tmp_path / f"{n}" / "metrics.csv").read_text() for n in range(2)]
    assert tables[0] == tables[1]
    assert capsys.readouterr().out.count("epoch 1/1") == 2
    assert signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, signal.default_int_handler)


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
def test_the_script_twice_in_one_process(script):
    import runpy

    path = str(pathlib.Path(__file__).parents[2] / "scripts" / script)
    for _ in range(2):
        assert "script" in runpy.run_path(path)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{{function_node __wrapped__X}} corrupted record at 12 [Op:IteratorGetNext] name: ",
         "corrupted record at 12"),
        ("Graph execution error:\n\nDetected at node A\nOOM when allocating [[{{node A}}]]",
         "OOM when allocating"),
        ("", "DataLossError"),
    ],
)  # fmt: skip
def test_no_node_of_a_graph_in_a_message(text, line):
    assert one_line(tf.errors.DataLossError(None, None, text)) == line


def test_an_error_of_the_system_has_its_path():
    error = OSError(13, "Permission denied", "/data/x")
    assert one_line(error) == of_system(error) == "/data/x: Permission denied"
    assert of_system(OSError("Expected a disk. Received: none.")).endswith("none.")
    assert of_system(FileExistsError(17, "File exists", "/x")).endswith(
        "It is a file: give a folder"
    )
    assert of_system(OSError(30, "Read-only file system", "runs")) == (
        f"{os.getcwd()}/runs: Read-only file system. Give a folder that may be written"
    )


@pytest.mark.parametrize("name", ["file/run", "x" * 300])
def test_a_run_directory_that_cannot_be_made(tmp_path, name):
    (tmp_path / "file").write_text("")
    ended = run(tmp_path, f"--workdir={tmp_path}/{name}", "--train_epochs=1")
    assert ended.code == 1 and "Traceback" not in ended.errors and "Errno" not in ended.errors
    assert f"{tmp_path}/{name[:4]}" in ended.errors


def test_events_that_cannot_be_written_are_named(tmp_path):
    events = TensorBoardScalars(str(tmp_path / "file"), {}, lambda: 3)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match=f"could not write .* in {tmp_path}/file: Not a"):
        events.on_epoch_end(0, {"loss": 1.0})


def test_the_tables_are_read_as_before(tmp_path):
    assert run(tmp_path, f"--workdir={tmp_path}/run", "--train_epochs=1.5").code == 0
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", repr(31 / 21)]
