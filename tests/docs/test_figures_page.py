"""The page of the figures: its commands are ones that the program takes."""

import re
import shlex
import textwrap

import keras
import numpy
import pytest
from absl import flags

from neural_alignment.cli.figures import Drawing
from neural_alignment.config.options import define_group
from neural_alignment.figures.assembly import read_features
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
    pages = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    shown = set(re.findall(r"!\[[^\]]*\]\((figures/[\w.-]+)\)", pages))
    there = {f"figures/{path.name}" for path in (ROOT / "docs" / "figures").iterdir()}
    assert shown == there
    assert all((ROOT / "docs" / name).stat().st_size < 150_000 for name in shown)


def test_features_of_a_keras_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layers = [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3, name="fc")]
    names = {"keras": keras, "numpy": numpy, "model": keras.Sequential(layers)}
    code = re.search(r"From a Keras model:\n\n((?: {4}.*\n)+)", PAGE)[1]
    exec(textwrap.dedent(code), {**names, "images": numpy.ones((5, 4, 4, 1), "float32")})
    found = read_features("features.npz", 5)
    assert [values.shape for values in found.values()] == [(5, 16), (5, 3)]
    assert list(found)[1] == "fc"
