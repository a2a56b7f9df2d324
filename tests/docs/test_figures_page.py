"""The page of the figures: its commands are ones that the program takes."""

import re
import shlex

import pytest
from absl import flags

from neural_alignment.cli.figures import Drawing
from neural_alignment.config.options import define_group
from neural_alignment.figures.registry import KINDS
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "figures.md").read_text()
COMMANDS = sorted(set(re.findall(r"neural-alignment figures\b([^`\n]*)", PAGE)))


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_command_is_taken(arguments):
    fv = flags.FlagValues()
    define_group(Drawing, fv)
    rest = fv(["figures", *shlex.split(arguments)])[1:]
    assert all(re.fullmatch(r"RUNS|SEARCH|runs/[\w/-]+", folder) for folder in rest)


def test_every_figure_is_on_the_page():
    assert len(COMMANDS) >= len(KINDS)
    assert all(f"--figure={name}`" in PAGE for name in KINDS)


def test_pictures_are_shown_and_small():
    shown = re.findall(r"!\[[^\]]+\]\((figures/[\w.]+)\)", PAGE)
    there = sorted(path.name for path in (ROOT / "docs" / "figures").glob("*"))
    assert sorted(name.removeprefix("figures/") for name in shown) == there
    assert all((ROOT / "docs" / name).stat().st_size < 80_000 for name in shown)
