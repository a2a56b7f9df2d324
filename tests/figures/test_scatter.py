"""The scatter of W against B: B is the rule's own, from what checkpoints keep."""

import re

import numpy as np
import pytest

from neural_alignment.figures import draw, scatter, style
from neural_alignment.figures.material import Choices, Material, NotDrawn
from neural_alignment.figures.reader import read
from neural_alignment.runs.checkpoints import Checkpoints
from tests.figures.made_runs import make_run, read_table

SHAPE = (6, 4)
GENERATOR = np.random.default_rng(0)
W, B, R, Q = (
    GENERATOR.standard_normal(shape).astype("float32") for shape in (SHAPE, SHAPE, (6, 8), (8, 4))
)
MASK = (GENERATOR.random(SHAPE) < 0.5).astype("float32")
GLOROT = (2.0 / sum(SHAPE)) ** 0.5
# Rule, its options as flags.cfg has them, the variables kept, and B.
RULES = {
    "feedback": ("feedback", {}, {"kernel": B}, B),
    "sparse": ("feedback", {"density": 0.5}, {"kernel": B, "mask": MASK}, B * MASK),
    "product": ("product", {"expansion": 2.0}, {"kernel_r": R, "kernel_q": Q}, R @ Q),
    "composite": ("product", {"factored": "false"}, {"kernel_rq": B, "kernel_g": Q[:4]}, B),
    "sign": ("sign_symmetry", {"magnitude": "uniform"}, {}, np.sign(W) * GLOROT),
}


def make(folder, name, steps=(0, 84, 126), layers=("a", "b"), **more):
    rule, options, variables, _ = RULES[name]
    make_run(folder, rule=rule, layers=layers, **options, **more)
    kept = Checkpoints(f"{folder}/checkpoints")
    for step in steps:
        tensors = {"global_step": np.int64(step)}
        for layer in layers:
            tensors[f"model/{layer}/kernel"] = W + step
            for variable, value in variables.items():
                tensors[f"model/{layer}/backward_{variable}"] = value
        kept.save(step, tensors)
    return folder


@pytest.mark.parametrize("name", RULES)
def test_b_is_the_rules_own(name, tmp_path):
    run = make(tmp_path / "run", name, steps=(0,), layers=("a",))
    draw([run], tmp_path / "out", ["scatter"], ["svg"])
    rows = read_table(tmp_path / "out" / "scatter.csv")
    drawn = np.array([[float(row["W"]), float(row["B"])] for row in rows])
    assert drawn[:, 0] == pytest.approx(W.ravel(), abs=1e-6)
    assert drawn[:, 1] == pytest.approx(RULES[name][3].ravel(), abs=1e-5)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    make(folder / "fa", "feedback")
    make(folder / "pfa", "product", steps=(84, 126))
    return folder


def test_axes_are_named(runs):
    material = Material(read([runs]).runs)
    with style.context():
        panels = np.reshape(scatter.draw(material).figure.axes, (2, 2))
    assert [[p.get_xlabel() for p in row] for row in panels] == [["", ""], ["W", "W"]]
    assert [row[0].get_ylabel() for row in panels] == ["feedback\nb\nB", "product\nb\nB"]


def places(out):
    rows = read_table(out / "scatter.csv")
    return list(dict.fromkeys((r["group"], r["layer"], float(r["epoch"])) for r in rows))


def test_layers_of_one_run_and_one_layer_of_several(runs, tmp_path):
    draw([runs / "fa"], tmp_path / "one", ["scatter"], ["svg"])
    assert places(tmp_path / "one") == [
        ("feedback", layer, epoch) for layer in "ab" for epoch in (0.0, 2.0, 3.0)
    ]
    draw([runs], tmp_path / "two", ["scatter"], ["svg"])
    assert places(tmp_path / "two") == [
        (rule, "b", epoch) for rule in ("feedback", "product") for epoch in (2.0, 3.0)
    ]


def test_layers_and_epochs_of_the_users_choice(runs, tmp_path):
    draw([runs / "fa"], tmp_path, ["scatter"], ["svg"], Choices(("b",), (2.0, 0.0)))
    assert places(tmp_path) == [("feedback", "b", 2.0), ("feedback", "b", 0.0)]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (Choices(("c",)), r"layers of .*: a, b\. Received: 'c'"),
        (Choices(epochs=(1.0,)), r"checkpoint of: 0, 2, 3\. Received: 1\. .*--keep_epochs=1"),
    ],
)
def test_what_was_not_kept_is_refused(runs, tmp_path, choices, message):
    with pytest.raises(NotDrawn, match=message):
        draw([runs / "fa"], tmp_path, ["scatter"], choices=choices)


def test_no_common_checkpoint_and_an_unknown_rule(tmp_path):
    make(tmp_path / "fa", "feedback", steps=(0,))
    make(tmp_path / "pfa", "product", steps=(84,))
    with pytest.raises(NotDrawn, match="an epoch that all runs kept"):
        draw([tmp_path], tmp_path / "out", ["scatter"])
    cfg = tmp_path / "fa" / "flags.cfg"
    cfg.write_text(cfg.read_text().replace("feedback", "of_my_own"))
    with pytest.raises(NotDrawn, match="a rule of this package.*of_my_own"):
        draw([tmp_path / "fa"], tmp_path / "out", ["scatter"])


# What was done to the files of the checkpoints, and the epochs that are drawn, or why none is.
PRUNED = {
    "data of one": (lambda path: path.name == "step-000000084.data-00000-of-00001", [0.0, 3.0]),
    "the index of one": (lambda path: path.name == "step-000000126.index", [0.0, 2.0]),
    "data of all": (lambda path: ".data-" in path.name, "Expected checkpoints with W and B"),
    "one cut short": (lambda path: path.name.startswith("step-000000084.data"),
                      "whole checkpoint of step 84.*damaged.*--epochs=0,3$"),
}  # fmt: skip


@pytest.mark.parametrize("case", PRUNED)
def test_checkpoints_that_are_not_whole(case, tmp_path):
    gone, drawn = PRUNED[case]
    run = make(tmp_path / "run", "feedback", layers=("a",))
    for path in filter(gone, (run / "checkpoints").iterdir()):
        path.write_bytes(path.read_bytes()[:20]) if "cut" in case else path.unlink()
    written = draw([run], tmp_path, formats=["svg"])
    assert tmp_path / "curves.svg" in written.files
    if isinstance(drawn, str):
        assert re.search(drawn, written.not_drawn["scatter"])
    else:
        assert [epoch for _, _, epoch in places(tmp_path)] == drawn


@pytest.mark.parametrize(
    ("w", "b", "said"),
    [
        ([1.0, 2.0, 3.0], [2.0, 4.0, 6.0], "0°, r = 1.00"),
        ([1e-30, 2e-30, 4e-30], [-1.0, -2.0, -4.0], "180°, r = -1.00"),
        ([0.1, 0.1, 0.1], [1.0, 2.0, 3.0], "22°, r = –"),
        ([0.0, 0.0, 0.0], [1.0, 2.0, 3.0], "90°, r = –"),
        ([1.0, np.nan, 3.0], [1.0, 2.0, 3.0], "not finite"),
        ([1.0, 2.0, 3.0], [1.0, np.inf, 3.0], "not finite"),
    ],
)
@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_the_numbers_over_a_panel(w, b, said, kind):
    assert scatter._numbers(np.array(w, kind), np.array(b, kind)) == said
