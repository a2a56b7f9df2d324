"""The program with its commands: `neural-alignment train`, `python -m neural_alignment train`."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import neural_alignment
from neural_alignment.cli import main
from neural_alignment.config import flags
from neural_alignment.search import flags as search_flags

ROOT = Path(__file__).resolve().parents[2]


def run(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "neural_alignment", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_the_program_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"neural-alignment": "neural_alignment.cli.main:main"}


@pytest.mark.parametrize("command", main.COMMANDS)
def test_every_command_has_help(command, capsys):
    assert main.main(["neural-alignment", command, "--help"]) == 0
    assert "usage:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "sections"), [("train", flags.sections), ("search", search_flags.sections)]
)
def test_help_has_every_number_that_is_a_default(command, sections, capsys):
    assert main.main(["neural-alignment", command, "--helpfull"]) == 0
    entries = {}
    for entry in capsys.readouterr().out.split("\n  --")[1:]:
        entries[re.match(r"(?:\[no\])?(\w+)", entry)[1]] = " ".join(entry.split())
    settings = [setting for _, of_it in sections() for setting in of_it]
    numbers = [s for s in settings if type(s.default) in (int, float) and "default" not in s.help]
    assert 0 in {setting.default for setting in numbers}
    for setting in numbers:
        assert f"(default: {setting.default:g})" in entries[setting.flag]


@pytest.mark.parametrize("asked", ["-h", "--help", "help"])
def test_help_lists_the_commands(asked, capsys):
    assert main.main(["neural-alignment", asked]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in main.COMMANDS)


@pytest.mark.parametrize("asked", ["--version", "version"])
def test_the_version(asked, capsys):
    assert main.main(["neural-alignment", asked]) == 0
    assert capsys.readouterr().out == f"neural-alignment {neural_alignment.__version__}\n"


def test_without_a_command_the_usage_is_shown(capsys):
    assert main.main(["neural-alignment"]) == 2
    assert "COMMAND" in capsys.readouterr().out


def test_an_unknown_command_is_refused(capsys):
    assert main.main(["neural-alignment", "trian"]) == 2
    assert "Received: 'trian' (did you mean 'train'?)" in capsys.readouterr().err


def test_it_trains_from_any_folder_whatever_lies_there(tmp_path):
    (tmp_path / "train.py").write_text("raise SystemExit('not this one')")
    result = run(tmp_path, "train", "--train_epochs=1", "--workdir=out")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "metrics.csv").is_file()
    searched = run(tmp_path, "search", "--space=wm_ad_digits", "--trials=1", "--searchdir=found",
                   "--max_epochs=1")  # fmt: skip
    assert searched.returncode == 0, searched.stdout + searched.stderr
    assert (tmp_path / "found" / "best.cfg").is_file()
