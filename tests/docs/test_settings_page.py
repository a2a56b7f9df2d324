"""docs/settings.md: its recipes run and reach what they promise; its tables are true."""

import re

import keras
import pytest

from neural_alignment import alignments
from neural_alignment.metrics import kernel_metrics
from tests.docs.pages import ROOT, blocks, quoted, tables

PAGE = ROOT / "docs" / "settings.md"
BEGINNING, *RECIPES = blocks(PAGE, "python")
# A section's rule and a recipe's place in it.
SECTIONS = re.findall(r"^### (\w+)[^\n]*\n(.*?)(?=^##|\Z)", PAGE.read_text(), re.S | re.M)
RECIPE_IDS = [f"{rule}-{i}" for rule, body in SECTIONS for i in range(body.count("```python"))]
# Top-1 in percent that a recipe reaches at least, and the degrees that no layer ends above.
REACHES = {
    "feedback": (93.0, 180.0),
    "sign_symmetry": (95.0, 45.0),
    "symmetric": (95.0, 30.0),
    "mirror": (95.0, 30.0),
    "information": (95.0, 30.0),
    "activation-0": (95.0, 90.0),
    "activation-1": (95.0, 30.0),
    "direct": (93.0, 180.0),
    "frozen": (60.0, 180.0),
    "phaseless": (95.0, 20.0),
}
FAST = ("symmetric-0",)


def promised(recipe):
    return REACHES.get(recipe, REACHES.get(recipe.partition("-")[0], (95.0, 90.0)))


def test_the_recipes_are_those_of_rules():
    assert len(RECIPE_IDS) == len(RECIPES)
    with_recipe = {recipe.partition("-")[0] for recipe in RECIPE_IDS}
    assert with_recipe <= {"backprop", *alignments.names()}
    # Those of the papers; a rule of one's own needs none.
    assert with_recipe >= {
        "backprop", "symmetric", "activation", "mirror", "information", "kolen_pollack", "product",
        "feedback", "sign_symmetry",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "code"),
    [
        pytest.param(name, code, id=name, marks=() if name in FAST else pytest.mark.slow)
        for name, code in zip(RECIPE_IDS, RECIPES, strict=True)
    ],
)
def test_a_recipe_reaches_what_it_promises(recipe, code, capsys):
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    names = {}
    exec(compile(BEGINNING + code, str(PAGE), "exec"), names)
    top1, degrees = promised(recipe)
    _, accuracy = names["model"].evaluate(*names["held_out"], verbose=0)
    assert 100.0 * accuracy >= top1
    if recipe.partition("-")[0] in alignments.names():
        angles = [m["weight_angle"] for m in kernel_metrics(names["model"]).values()]
        assert max(angles, default=0.0) <= degrees


def test_the_table_has_every_rule_that_the_recipes_have_and_every_seed():
    head = "| rule | fc, 64-64-10: top-1 | angles | lenet5, 16 pixels: top-1 | angles |"
    rows = {quoted(name)[0]: (fc, lenet5) for name, fc, _, lenet5, _ in tables(PAGE)[head]}
    assert set(rows) >= {recipe.partition("-")[0] for recipe in RECIPE_IDS}
    for rule, columns in rows.items():
        for runs in columns:
            top1 = [float(run) for run in runs.split(", ")]
            assert len(top1) == 3
            least = {"feedback": 93.0, "frozen": 60.0}.get(rule, 95.0)
            assert min(top1) >= least, rule
