"""From JPEG TFRecords to a trained ResNet by the scripts, with ImageNet's preprocessing."""

import csv
import math
import signal
import subprocess
import sys

import pytest
import tensorflow as tf

from neural_alignment.runs import checkpoints
from neural_alignment.runs.checkpoints import Checkpoints
from tests.data import jpegs
from tests.training import children
from tests.training.children import Signal

STEPS = 6
BATCH = 16


@pytest.fixture(scope="module")
def digits32(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits") / "32"
    assert jpegs.make(folder, image_size=32)["train"] == STEPS * BATCH
    return folder


def _flags(data_dir, workdir):
    return [
        "--dataset=imagenet",
        f"--data_dir={data_dir}",
        "--image_size=32",
        "--model=resnet20",
        "--alignment=symmetric",
        "--alignment_optimizer=adam",
        "--alignment_learning_rate=0.01",
        "--learning_rate=0.05",
        f"--train_batch_size={BATCH}",
        "--eval_batch_size=36",
        "--train_epochs=1",
        "--iterations_per_loop=1",  # a signal in the third step stops there, however fast they are
        f"--workdir={workdir}",
    ]


def _rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_resnet_trains_stops_and_goes_on(digits32, tmp_path):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    ended = children.run(tmp_path, "train.py", _flags(digits32, straight))
    assert ended.code == 0, ended.errors

    flags = _flags(digits32, stopped)
    ended = children.run(tmp_path, "train.py", flags, Signal(signal.SIGTERM, "steps", nth=3).arm)
    assert ended.code == 75, ended.errors
    saved = Checkpoints(f"{stopped}/checkpoints").newest_whole()
    assert 0 < saved < STEPS  # in mid-epoch: records are skipped undecoded
    ended = children.run(tmp_path, "train.py", flags)
    assert ended.code == 0, ended.errors
    assert f"resumed at step {saved}" in ended.output

    for table in ("metrics.csv", "layers.csv"):
        assert (stopped / table).read_text() == (straight / table).read_text()
    prefixes = [Checkpoints(f"{each}/checkpoints").prefix(STEPS) for each in (straight, stopped)]
    assert checkpoints.differences(*prefixes) == []

    (row,) = _rows(straight / "metrics.csv")
    assert row["global_step"] == str(STEPS)
    assert float(row["alignment_loss"]) != 0.0
    layers = _rows(straight / "layers.csv")
    assert sum("conv" in each["layer"] for each in layers) == 19
    angles = [float(each["weight_angle"]) for each in layers]
    assert 0.0 < sum(angles) / len(angles) < 80.0  # 90 at the start, and Adam's steps are of 1e-2


def test_a_wrong_count_is_found_before_anything_is_written(digits32, tmp_path):
    ended = children.run(
        tmp_path, "train.py", [*_flags(digits32, tmp_path / "run"), "--num_train=97"]
    )
    assert ended.code == 2
    assert "Expected 97 train records" in ended.errors
    assert "Traceback" not in ended.errors
    assert not (tmp_path / "run").exists()


def _digits_benchmark(folder, *flags):
    ended = subprocess.run(
        [
            sys.executable,
            str(children.ROOT / "benchmarks/resnet_digits.py"),
            f"--folder={folder}",
            *flags,
        ],
        capture_output=True,
        text=True,
        timeout=3000,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    lines = [line for line in ended.stdout.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: dict(zip(cells[0], row, strict=True)) for row in cells[2:]}


@pytest.mark.slow
def test_rules_follow_backprop_and_feedback_does_not(tmp_path):
    found = _digits_benchmark(tmp_path, "--image_size=16", "--jpeg_size=32", "--parallel=2")
    top1 = {rule: float(row["top-1 %"]) for rule, row in found.items()}
    assert top1["backprop"] > 80.0
    for rule in ("symmetric", "activation", "kolen_pollack"):
        assert top1[rule] > top1["backprop"] - 15.0
        assert top1[rule] > top1["feedback"]
        assert float(found[rule]["mean angle"]) < 40.0
    assert float(found["feedback"]["mean angle"]) > 60.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule", ["backprop", "symmetric", "activation", "kolen_pollack", "feedback"]
)
def test_resnet18_takes_steps_at_64_pixels(tmp_path, rule):
    flags = ["--model=resnet18", "--image_size=64", "--epochs=0.1", f"--rules={rule}"]
    found = _digits_benchmark(tmp_path, *flags)
    # The training loss has the weight decay in it; 8 steps leave the network near chance.
    assert float(found[rule]["validation loss"]) < math.log(10.0) + 0.5
    (kept,) = tmp_path.glob(f"resnet18-*/{rule}/checkpoints")
    prefix = Checkpoints(str(kept)).prefix(8)
    reader = tf.train.load_checkpoint(prefix)
    shifts = [name for name in reader.get_variable_to_shape_map() if name.endswith("/beta")]
    assert shifts and all(reader.get_tensor(name).any() for name in shifts)  # they begin at 0
