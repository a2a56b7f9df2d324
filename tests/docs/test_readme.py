"""The README: its code runs, its commands are known."""

import os
import re
import subprocess
import sys
import tomllib

import pytest

from neural_alignment.cli.main import COMMANDS
from tests.docs.pages import README, ROOT, blocks, commands
from tests.presets.support import parse

# The page's rule may be a file of the package by now.
BEFORE = """
import keras
from neural_alignment.alignments import registry

keras.utils.set_random_seed(0)
registry._RULES.pop("cosine", None)
"""
# After the page's own code: its last model has the rule that it defines, and learned to align.
CHECKS = """
from neural_alignment.metrics import kernel_metrics

angles = [measured["weight_angle"] for measured in kernel_metrics(model).values()]
assert len(angles) == 2 and max(angles) < 60.0, angles
assert alignments.get("cosine") == Cosine()
assert len(resnet.layers) > 20
print("CHECKED")
"""


@pytest.mark.backend
def test_python_code_runs_and_learns():
    code = "\n".join([BEFORE, *blocks(README, "python"), CHECKS])
    result = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.endswith("CHECKED\n")
    last = re.findall(r"Epoch (\d+)/\1\n[^\n]* - accuracy: ([\d.]+)", result.stdout)
    assert len(last) == 4
    assert min(float(accuracy) for _, accuracy in last) > 0.6


def test_bash_code_is_known():
    """What the tests of commands and of make targets do not look at."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    checked = {command.script for command in commands(README)}
    code = re.sub(r"\\\n\s*", "", "".join(blocks(README, "bash")))
    for line in code.splitlines():
        script = re.match(r"python ([\w/]+\.py)", line)
        command = re.match(r"neural-alignment ([\w-]+) (.*)", line)
        install = re.fullmatch(r'pip install -e "\.\[([\w,]+)\]"', line)
        if script:
            assert script[1] in checked
        elif command:
            assert command[1] in COMMANDS
            if command[1] == "train" and "--flagfile" not in line:  # of a search to come
                parse(*command[2].split())
        elif install:
            assert set(install[1].split(",")) <= set(extras)
        else:
            assert re.fullmatch(r"make [a-z0-9-]+", line), line


def test_two_commands_come_first():
    assert blocks(README, "bash")[0] == "make train\nmake test\n"


def test_every_extra_is_named():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra in project["optional-dependencies"]:
        assert f"[{extra}]" in README.read_text()
