"""Every digits preset through the real job, a few steps each, in one process."""

import csv
import math
import re

import keras
import pytest

from benchmarks import digits
from neural_alignment import config
from neural_alignment.training import job
from tests.presets.support import parse

DIGITS = tuple(name for name in config.preset_names() if name.startswith("digits_"))


@pytest.fixture(autouse=True)
def _fresh_keras():
    keras.backend.clear_session()


def shortened(name, workdir, steps=3):
    """A preset whose delay ends after the first of a few steps of 64 examples."""
    fv = parse(
        f"--preset={name}", f"--workdir={workdir}", "--train_batch_size=64", "--layers_list=16"
    )
    epochs = steps / (1347 // 64)
    more = [f"--max_epochs={epochs}"]
    if fv["delay_epochs"].value:
        more.append(f"--delay_epochs={epochs / steps}")
    fv(["train.py", *more])
    config.validate(fv)
    return fv


# One of every kind is quick; all of them are slow tests.
QUICK = ("digits_wm", "digits_direct", "digits_mixed")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in DIGITS]
)
def test_a_few_steps(name, tmp_path):
    row = job.train(shortened(name, tmp_path / "run"))
    assert all(math.isfinite(value) for value in row.values())
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        (line,) = csv.DictReader(file)
    assert line["global_step"] == "3"
    given = (tmp_path / "run" / "flags.cfg").read_text()
    if name != "digits_backprop":
        rule = parse(f"--preset={name}")["alignment"].value
        assert f"--alignment={rule}\n" in given


def test_the_benchmark_takes_runs_that_are_there(tmp_path):
    short = ("--train_epochs=1", "--train_batch_size=128")
    fv = digits.job_flags("digits_symmetric", 3, tmp_path / "run", "fc", *short)
    first = digits.train(fv)
    assert list(first.angles) == ["dense0", "dense1", "dense2", "dense_output"]
    assert digits.train(fv) == first


def test_the_benchmark_s_settings_and_table():
    settings = digits.settings_of("digits_symmetric")
    assert settings["alignment"] == "symmetric" and settings["self_coef"] == "0.002"
    assert "layers_list" not in settings and "seed" not in settings
    runs = {
        "digits_backprop": [digits.Run(98.0, {}), digits.Run(97.0, {})],
        "digits_symmetric": [
            digits.Run(96.0, {"a": 1.0, "b": 9.0}),
            digits.Run(98.0, {"a": 2.0, "b": 11.0}),
        ],
    }
    rows = digits.table(runs, "fc").splitlines()
    assert rows[-2] == "| digits_backprop |  | 97.5 ± 0.7 | 0 |"
    assert rows[-1].endswith("| 97.0 ± 1.4 | 2, 10 |")


def test_the_benchmark_s_convolutional_net():
    fv = digits.job_flags("digits_symmetric", 0, "", "lenet5")
    assert (fv["model"].value, fv["image_size"].value) == ("lenet5", 32)
    assert (fv["train_epochs"].value, fv["delay_epochs"].value) == (22.0, 2.0)
    assert fv["layers_list"].value is None
    assert fv["learning_rate"].value == 0.01 and fv["grad_clip"].value


# A preset of every rule; noisy updates and other searched settings are no other rules.
BFLOAT16 = [name for name in DIGITS if not re.search("noisy|wm_tpe|sign_symmetry_", name)]


@pytest.mark.slow
@pytest.mark.parametrize("name", BFLOAT16)
def test_bfloat16_ends_where_float32_does(name, tmp_path):
    """R and the layers in bfloat16: the same accuracy, and the same angles between W and B."""
    ends = {}
    for dtype in ("float32", "bfloat16"):
        keras.backend.clear_session()
        fv = parse(f"--preset={name}", f"--dtype={dtype}", f"--workdir={tmp_path / dtype}")
        row = job.train(fv)
        with open(tmp_path / dtype / "layers.csv", newline="") as file:
            rows = [r for r in csv.DictReader(file) if r.get("weight_angle")]
        angles = [float(r["weight_angle"]) for r in rows if r["epoch"] == rows[-1]["epoch"]]
        ends[dtype] = row["val_top1"], max(angles, default=0.0)
    assert ends["bfloat16"][0] == pytest.approx(ends["float32"][0], abs=0.02)
    assert ends["bfloat16"][1] == pytest.approx(ends["float32"][1], abs=4.0)
