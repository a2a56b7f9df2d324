"""Every path of every script: the home folder, empty texts, and folders of something else."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import pytest
from absl import flags

from neural_alignment import config
from neural_alignment.cli import evaluate, prepare, search, train
from neural_alignment.config.flags import sections
from neural_alignment.config.options import (
    PathText,
    UsageError,
    define_path,
    expand_path,
    settings_of,
)
from neural_alignment.runs import folders
from neural_alignment.search import flags as search_flags
from tests.training import children

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = {
    "train.py": (train.main, [s for _, section in sections() for s in section]),
    "evaluate.py": (evaluate.main, [s for _, section in sections() for s in section]),
    "search.py": (search.main, settings_of(search_flags.Search)),
    "prepare_imagenet.py": (prepare.main, settings_of(prepare.Preparation)),
}
JOB = {"workdir", "data_dir", "load_checkpoint"}
# Whoever adds a flag that is a path adds it here.
PATHS = {
    "train.py": JOB,
    "evaluate.py": JOB,
    "search.py": {"space", "searchdir", "train_script"},
    "prepare_imagenet.py": {"train", "validation", "validation_labels", "output_dir"},
}
EVERY = [(script, flag) for script, names in PATHS.items() for flag in sorted(names)]


def parser_of(script, flag):
    return next(s.parser for s in SCRIPTS[script][1] if s.flag == flag)


@pytest.mark.parametrize("script", SCRIPTS)
def test_paths_are_declared_as_paths(script):
    declared = {s.flag for s in SCRIPTS[script][1] if s.parser.kind is PathText}
    assert declared == PATHS[script]
    suspicious = ("dir", "path", "folder", "file", "checkpoint_", "script")
    for setting in SCRIPTS[script][1]:
        if setting.parser.kind is str:
            assert not any(word in setting.flag for word in suspicious), setting.flag


@pytest.mark.parametrize(("script", "flag"), EVERY)
def test_the_home_folder(script, flag, monkeypatch):
    monkeypatch.setenv("HOME", "/Users/somebody")
    parse = parser_of(script, flag).parse
    assert parse("~/x/y") == "/Users/somebody/x/y"
    assert parse("~") == "/Users/somebody"
    assert parse("a/~/b") == "a/~/b" and parse("/a~") == "/a~"
    assert parse("gs://bucket/x") == "gs://bucket/x"
    with pytest.raises(ValueError, match="there is no home folder"):
        parse("~nobody_of_this_name/x")


@pytest.mark.parametrize(("script", "flag"), EVERY)
def test_variables_of_the_environment(script, flag, monkeypatch):
    monkeypatch.setenv("SCRATCH", "/scratch")
    monkeypatch.delenv("NOT_SET", raising=False)
    parse = parser_of(script, flag).parse
    assert parse("$SCRATCH/x") == parse("${SCRATCH}/x") == "/scratch/x"
    assert parse("a$/b") == "a$/b"
    with pytest.raises(ValueError, match=r"\$NOT_SET is not set"):
        parse("$NOT_SET/x")


@pytest.mark.parametrize(("script", "flag"), EVERY)
def test_bytes_that_are_no_utf_8(script, flag):
    parse = parser_of(script, flag).parse
    assert parse("/daten/süß 犬") == "/daten/süß 犬"
    with pytest.raises(ValueError, match="a path in UTF-8"):
        parse(os.fsdecode(b"/daten/s\xfc\xdf"))


def test_a_name_with_a_dollar_in_it(monkeypatch, tmp_path):
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(ValueError, match=r"\$NOT_SET is not set"):
        expand_path(f"{tmp_path}/$NOT_SET")
    (tmp_path / "$NOT_SET").mkdir()
    assert expand_path(f"{tmp_path}/$NOT_SET") == f"{tmp_path}/$NOT_SET"


@pytest.mark.parametrize("text", ["", "   "])
@pytest.mark.parametrize(("script", "flag"), EVERY)
def test_an_empty_path_is_an_error(script, flag, text, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert SCRIPTS[script][0]([script, f"--{flag}={text}"]) == 2
    errors = capsys.readouterr().err
    assert f"--{flag}" in errors and "expected a path" in errors and "Traceback" not in errors
    assert not list(tmp_path.iterdir())


def test_a_path_of_a_training_flag_in_a_search(monkeypatch):
    monkeypatch.setenv("HOME", "/Users/somebody")
    given = search_flags._assignments(["data_dir=~/data", "model=fc"], own_script=False)
    assert given == {"data_dir": "/Users/somebody/data", "model": "fc"}
    with pytest.raises(UsageError, match="--data_dir: expected a path"):
        search_flags._assignments(["data_dir="], own_script=False)


def test_a_path_of_a_program_with_flags_of_its_own(monkeypatch):
    monkeypatch.setenv("HOME", "/Users/somebody")
    fv = flags.FlagValues()
    define_path("folder", "here", "a folder", fv)
    fv(["x"])
    assert fv.folder == "here"
    fv(["x", "--folder=~/y"])
    assert fv.folder == "/Users/somebody/y"
    with pytest.raises(flags.IllegalFlagValueError, match="expected a path"):
        fv(["x", "--folder="])


@pytest.mark.parametrize(
    "arguments",
    [
        ["scripts/make_digits_tfrecords.py", "--output_dir="],
        ["scripts/kill_test.py", "--folder="],
        ["benchmarks/digits.py", "--outdir="],
        ["benchmarks/resnet_digits.py", "--folder="],
        ["benchmarks/input_pipeline.py", "--data_dir="],
        ["benchmarks/training_speed.py", "--data_dir="],
    ],
    ids=lambda arguments: arguments[0],
)
def test_empty_paths_of_the_other_programs(arguments, tmp_path):
    ended = subprocess.run(
        [sys.executable, str(ROOT / arguments[0]), arguments[1]],
        cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert ended.returncode != 0 and "Traceback" not in ended.stderr
    assert arguments[1].strip("=") in ended.stderr and not list(tmp_path.iterdir())


@dataclasses.dataclass(frozen=True)
class Home:
    """A home folder, and a working directory, for a script's process."""

    home: str
    here: str

    def enter(self) -> None:
        os.environ["HOME"] = self.home
        os.chdir(self.here)


def test_runs_at_home(tmp_path):
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    enter = Home(str(home), str(here)).enter
    short = ["--workdir=~/run", "--layers_list=4", "--train_epochs=1", "--alignment=feedback"]
    ended = children.run(tmp_path / "a", "train.py", short, enter)
    assert ended.code == 0, ended.errors
    assert (home / "run" / "metrics.csv").exists()
    ended = children.run(tmp_path / "b", "evaluate.py", ["--load_checkpoint=~/run"], enter)
    assert ended.code == 0, ended.errors
    ended = children.run(tmp_path / "c", "search.py", ["report", "~/none"], enter)
    assert ended.code == 1 and f"{home}/none holds no search" in ended.errors
    assert not list(here.iterdir())


# Folders by what is in them, and what each may be taken for.
RUN = ("lock", "flags.cfg", "metrics.csv", "layers.csv", "events/", "checkpoints/")
SEARCH = ("search.lock", "search.json", "trials.jsonl", "trials/", "reserve")
FOLDERS = {
    (): ("run", "search"),
    RUN: ("run",),
    (*RUN, "notes.txt", "figures/"): ("run",),
    ("lock",): ("run",),
    ("lock", "flags.cfg"): ("run",),
    ("flags.cfg",): ("run",),
    ("flags.cfg", "metrics.csv", "checkpoints/"): ("run",),
    ("metrics.csv", "layers.csv", "checkpoints/"): ("run",),
    SEARCH: ("search",),
    (*SEARCH, "best.cfg", "report/", "preload.log", "best/"): ("search",),
    ("trials/", "reserve"): ("search",),
    ("search.lock", "trials/", "reserve"): ("search",),
    ("search.json",): ("search",),
    (*RUN, *SEARCH): (),
    ("flags.cfg", "search.json"): (),
    ("photo.jpg",): (),
    ("README.md", "flags.cfg"): (),
    ("checkpoints/",): (),
    ("metrics.csv",): (),
    ("events/",): (),
    ("a_run/",): (),
    (".git/", "setup.py"): (),
    ("trials/", "results.csv"): (),
    (".hidden",): (),
}


def fill(folder, names):
    folder.mkdir()
    for name in names:
        if name.endswith("/"):
            (folder / name).mkdir()
        else:
            (folder / name).write_text("")
    return folder


@pytest.mark.parametrize("names", FOLDERS, ids=lambda names: " ".join(names) or "empty")
@pytest.mark.parametrize("kind", ["run", "search"])
def test_what_a_folder_is_taken_for(tmp_path, names, kind):
    folder = fill(tmp_path / "it", names)
    check = folders.check_run if kind == "run" else folders.check_search
    if kind in FOLDERS[names]:
        check(folder)
    else:
        flag = "--workdir" if kind == "run" else "--searchdir"
        with pytest.raises(folders.FolderError, match=f"{flag}: expected .* Received: .*Give"):
            check(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(n.strip("/") for n in names)


def test_a_new_folder_and_a_file(tmp_path):
    folders.check_run(tmp_path / "new")
    folders.check_search(tmp_path / "new")
    (tmp_path / "file").write_text("")
    for check in (folders.check_run, folders.check_search):
        with pytest.raises(folders.FolderError, match="a file"):
            check(tmp_path / "file")


def test_scripts_leave_folders_of_something_else_alone(tmp_path):
    other = fill(tmp_path / "other", ["photo.jpg"])
    a_run, a_search = fill(tmp_path / "run", RUN), fill(tmp_path / "search", SEARCH)
    for place, flags_ in (
        (other, ["--layers_list=4"]),
        (a_search, ["--layers_list=4"]),
    ):
        ended = children.run(tmp_path / "o", "train.py", [f"--workdir={place}", *flags_])
        assert ended.code == 1 and "--workdir: expected a new or an empty folder" in ended.errors
        assert "Traceback" not in ended.errors
    for place in (other, a_run):
        flags_ = ["--space=wm_digits", f"--searchdir={place}", "--trials=1"]
        ended = children.run(tmp_path / "o", "search.py", flags_)
        assert ended.code == 1 and "--searchdir: expected a new or an empty folder" in ended.errors
        assert "Traceback" not in ended.errors
    assert [path.name for path in other.iterdir()] == ["photo.jpg"]
    assert len(list(a_run.iterdir())) == len(RUN) and len(list(a_search.iterdir())) == len(SEARCH)


def test_output_that_goes_into_the_run_directory(tmp_path):
    """`train.py --workdir=RUN > RUN/log.txt`: the folder is empty but for that."""
    folder = tmp_path / "stdout_and_more"
    ended = children.run(folder, "train.py", [f"--workdir={folder}", "--layers_list=4",
                                              "--train_epochs=1"])  # fmt: skip
    assert ended.code == 0, ended.errors
    assert (folder / "metrics.csv").exists() and (folder / "stdout").exists()


def test_settings_have_the_expanded_path(monkeypatch):
    monkeypatch.setenv("HOME", "/Users/somebody")
    fv = config.parsed(["train.py", "--workdir=~/x"])
    assert config.read(fv).run.workdir == "/Users/somebody/x"
