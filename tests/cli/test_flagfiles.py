"""Presets and flagfiles: in their places wherever they stand, refused where they are wrong."""

import pytest

from neural_alignment import config
from neural_alignment.cli import evaluate, search, train
from neural_alignment.cli.parse import parse as parse_for
from neural_alignment.config import UsageError
from tests.training import children

MAINS = {"train.py": train.main, "evaluate.py": evaluate.main, "search.py": search.main}
PRESET = "digits_symmetric"  # rate 0.02, 60 epochs, batches of 32


def parse(script, *arguments):
    """The flags of train.py or evaluate.py."""
    expand = config.with_flags_of_run if script == "evaluate.py" else config.expand
    fv = config.parsed(expand([script, *arguments]))
    config.validate(fv)
    return fv


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def ways(folder, home):
    """Ways to say a preset: what stands on the command line."""
    plain = write(folder / "plain.cfg", f"--preset={PRESET}")
    write(home / "at_home.cfg", f"--preset={PRESET}")
    return {
        "flag": [f"--preset={PRESET}"],
        "one dash": [f"-preset={PRESET}"],
        "two words": ["--preset", PRESET],
        "file": [f"--flagfile={plain}"],
        "file, two words": ["--flagfile", str(plain)],
        "file, one dash": [f"-flagfile={plain}"],
        "file at home": ["--flagfile=~/at_home.cfg"],
        "two lines": [f"--flagfile={write(folder / 'two.cfg', '--preset', PRESET)}"],
        "one dash in a file": [f"--flagfile={write(folder / 'dash.cfg', f'-preset={PRESET}')}"],
        "nested": [f"--flagfile={write(folder / 'nested.cfg', f'--flagfile={plain}')}"],
        "nested twice": [
            f"--flagfile={write(folder / 'more.cfg', f'--flagfile={folder}/nested.cfg')}"
        ],
        "comments and spaces": [
            "--flagfile="
            + str(write(folder / "c.cfg", "# a", "", "// b", f"  --preset={PRESET} ", "#x"))
        ],
        "named as a run's": [f"--flagfile={write(folder / 'flags.cfg', f'--preset={PRESET}')}"],
        "of Windows": [
            f"--flagfile={write(folder / 'w.cfg', chr(0xFEFF) + f'--preset={PRESET}' + chr(13))}"
        ],
    }


WAYS = (
    "flag", "one dash", "two words", "file", "file, two words", "file, one dash", "file at home",
    "two lines", "one dash in a file", "nested", "nested twice", "comments and spaces",
    "named as a run's", "of Windows",
)  # fmt: skip


@pytest.fixture
def said(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return ways(tmp_path, home)


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
@pytest.mark.parametrize("way", WAYS)
def test_a_preset_works_at_its_place(said, way, script):
    assert set(said) == set(WAYS)
    before = ["--learning_rate=0.5", "--train_epochs=3"]
    after = ["--train_epochs=7", "--seed=2"]
    fv = parse(script, *before, *said[way], *after)
    assert fv["alignment"].value == "symmetric" and fv["train_batch_size"].value == 32
    assert fv["learning_rate"].value == 0.02  # the preset came after
    assert fv["train_epochs"].value == 7.0  # this came after the preset
    assert fv["preset"].value == PRESET


def test_within_a_file_the_order_counts_too(tmp_path):
    file = write(tmp_path / "f", "--learning_rate=0.5", f"--preset={PRESET}", "--train_epochs=7")
    fv = parse("train.py", f"--flagfile={file}")
    assert (fv["learning_rate"].value, fv["train_epochs"].value) == (0.02, 7.0)
    two = write(tmp_path / "g", "--train_epochs=1", f"--flagfile={file}", "--learning_rate=0.1")
    fv = parse("train.py", f"--flagfile={two}")
    assert (fv["learning_rate"].value, fv["train_epochs"].value) == (0.1, 7.0)


@pytest.mark.parametrize("script", ["train.py", "evaluate.py", "search.py"])
@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["--preset=digits_symetric"], "preset"),
        (["--preset="], "preset"),
        (["--preset"], "preset"),
        (["--flagfile=nowhere.cfg"], "nowhere.cfg"),
        (["--flagfile="], "--flagfile: expected a path"),
        (["--flagfile=."], "expected a file of flags"),
        (["digits_symmetric"], "expected a flag a line"),
        (["--learning_rate 0.5"], "learning_rate 0.5"),
        (["--no_such_flag=1"], "no_such_flag"),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_what_is_wrong_in_a_file_is_refused(
    tmp_path, monkeypatch, capsys, script, lines, message, nested
):
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path / "mine.cfg", *lines)
    if nested:
        file = write(tmp_path / "outer.cfg", f"--flagfile={file}")
    assert MAINS[script]([script, f"--flagfile={file}", "--workdir=run"]) == 2
    errors = capsys.readouterr().err
    assert message in errors and "Traceback" not in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("script", MAINS)
@pytest.mark.parametrize(
    "argument", ["\N{EM DASH}seed=3", "\N{EN DASH}\N{EN DASH}seed=3", "-\N{MINUS SIGN}seed=3"]
)
def test_another_dash_than_the_hyphen_is_told(script, argument, capsys):
    assert MAINS[script]([script, "--workdir=run", argument]) == 2
    errors = capsys.readouterr().err
    assert "two hyphens, --seed=3. Received: " + argument in errors and "another dash" in errors
    assert MAINS[script]([script, "--no_such_flag=\N{EM DASH}"]) == 2  # in values it is free
    assert "no_such_flag" in capsys.readouterr().err


def test_files_that_name_each_other(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    write(one, f"--flagfile={two}")
    write(two, "--seed=1", f"--flagfile={one}")
    with pytest.raises(UsageError, match="do not name each other"):
        config.expand(["train.py", f"--flagfile={one}"])
    again = write(tmp_path / "again", "--seed=1")  # twice in a row is no circle
    expanded = config.expand(["train.py", f"--flagfile={again}", f"--flagfile={again}"])
    assert expanded == ["train.py", "--seed=1", "--seed=1"]


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "b").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="it is no text"):
        config.expand(["train.py", f"--flagfile={tmp_path / 'b'}"])


def test_nothing_is_expanded_after_two_dashes():
    argv = ["train.py", "--seed=1", "--", "--preset=none", "--flagfile=none"]
    assert config.expand(argv) == argv


RUN_FLAGS = ("--alignment=feedback", "--layers_list=7", "--seed=3", "--load_step=4")


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    write(folder / "flags.cfg", *RUN_FLAGS)
    return folder


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize("what", ["{}", "{}/checkpoints", "{}/checkpoints/step-000000005"])
@pytest.mark.parametrize("words", [1, 2])
def test_a_run_is_read_wherever_it_is_named(run, tmp_path, in_file, what, words):
    path = what.format(run)
    named = [f"--load_checkpoint={path}"] if words == 1 else ["--load_checkpoint", path]
    if in_file:
        named = [f"--flagfile={write(tmp_path / 'mine.cfg', *named, '--seed=5')}"]
    fv = parse("evaluate.py", *named, *([] if in_file else ["--seed=5"]))
    assert (fv["alignment"].value, fv["layers_list"].value) == ("feedback", ["7"])
    assert fv["seed"].value == 5 and fv["load_step"].value is None


def test_the_last_run_that_is_named_counts(run, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    write(other / "flags.cfg", "--alignment=symmetric")
    given = [f"--load_checkpoint={run}", f"--load_checkpoint={other}"]
    assert parse("evaluate.py", *given)["alignment"].value == "symmetric"


def test_a_run_at_home(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse("evaluate.py", "--load_checkpoint=~/run")["alignment"].value == "feedback"


@pytest.mark.parametrize("flagfile", [False, True])
def test_a_run_of_0_1_repeats_what_it_was_and_not_its_preset(run, flagfile):
    """Its flags.cfg has the preset beside the flags that won, sorted by name."""
    lines = ("--alignment=symmetric", "--learning_rate=0.3", f"--preset={PRESET}")
    write(run / "flags.cfg", *lines)
    given = f"--flagfile={run}/flags.cfg" if flagfile else f"--load_checkpoint={run}"
    fv = parse("train.py" if flagfile else "evaluate.py", given)
    assert fv["learning_rate"].value == 0.3 and fv["train_batch_size"].value == 256


def test_a_run_trained_by_a_file_with_a_preset(tmp_path):
    """It trains what the preset says, and its flags.cfg repeats it."""
    file = write(tmp_path / "mine.cfg", f"--preset={PRESET}", "--layers_list=8")
    workdir, again = tmp_path / "run", tmp_path / "again"
    short = ["--train_epochs=60", "--max_epochs=0.1"]
    ended = children.run(
        tmp_path / "a", "train.py", [f"--flagfile={file}", *short, f"--workdir={workdir}"]
    )
    assert ended.code == 0, ended.errors
    assert "rule symmetric, optimized by momentum and adam" in ended.output
    lines = (workdir / "flags.cfg").read_text().splitlines()
    assert "--alignment=symmetric" in lines and "--layers_list=8" in lines
    assert not [line for line in lines if line.startswith("--preset")]
    repeated = [f"--flagfile={workdir}/flags.cfg", f"--workdir={again}"]
    ended = children.run(tmp_path / "b", "train.py", repeated)
    assert ended.code == 0, ended.errors
    assert (again / "flags.cfg").read_text().splitlines()[-3:] == lines[-3:]
    assert (again / "metrics.csv").read_text() == (workdir / "metrics.csv").read_text()
    file = write(tmp_path / "e", f"--load_checkpoint={workdir}")
    ended = children.run(tmp_path / "c", "evaluate.py", [f"--flagfile={file}"])
    assert ended.code == 0, ended.errors
    top1 = float((workdir / "metrics.csv").read_text().splitlines()[-1].split(",")[5])
    assert f"top-1 {top1:.2%}" in ended.output


def test_a_search_reads_files_in_their_places(tmp_path):
    inner = write(tmp_path / "inner", "--trials=5", "--seed=3")
    file = write(tmp_path / "f", "--space=wm_digits", f"--flagfile={inner}", "--trials=6")
    argv = ["search.py", "--trials=1", f"--flagfile={file}", "--searchdir=~/x"]
    fv, rest = parse_for(search._PROGRAM, config.expand(argv, presets=False))
    assert not rest and (fv["trials"].value, fv["seed"].value) == (6, 3)
    assert fv["space"].value == "wm_digits" and "~" not in fv["searchdir"].value
