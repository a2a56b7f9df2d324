"""A ResNet on JPEG TFRecords of the digits: top-1 and weight angle of each rule.

    python benchmarks/resnet_digits.py
    python benchmarks/resnet_digits.py --jpeg_size=64 --rules=backprop,symmetric
    python benchmarks/resnet_digits.py --image_size=64 --model=resnet18 --epochs=0.2

The data set is ImageNet's in format and preprocessing (distorted crops, flips), made on the spot;
each rule is one run of scripts/train.py. The same command again takes up runs that were stopped.
"""

from __future__ import annotations

import csv
import os
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent import futures

from absl import app, flags

from neural_alignment.config import options

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_BATCH = 16
# R by an optimizer of its own, faster than J, and alone at first (`_DELAY` of the epochs): kernels
# that are not aligned send errors back that make the weights grow, which takes epochs to undo.
_ALIGNED = (
    "--learning_rate=0.02",
    "--alignment_optimizer=adam",
    "--alignment_learning_rate=0.01",
)
_DELAY = 1 / 12
# Name in the table to the flags that it adds to all the runs' own.
RULES: dict[str, tuple[str, ...]] = {
    "backprop": (),
    "symmetric": ("--alignment=symmetric", *_ALIGNED),
    "activation": ("--alignment=activation", *_ALIGNED),
    # Both kernels must forget where they began within the few hundred steps that there are: a
    # weight decay 100 times that of a long run, the same on W and B (decay_coef = l2 / 2).
    "kolen_pollack": ("--alignment=kolen_pollack", "--l2=1e-2", "--decay_coef=5e-3"),
    "feedback": ("--alignment=feedback",),
}


def training_flags(
    rule: str, model: str, image_size: int, epochs: float, seed: int, data_dir: pathlib.Path
) -> list[str]:
    """The flags of scripts/train.py for a rule.

    Args:
        rule: a key of `RULES`.
        model: a name for `models.get`.
        image_size: pixels a side of the network's input.
        epochs: to train; the rates drop after three quarters of them.
        seed: of everything random.
        data_dir: TFRecords.

    Returns:
        The flags, the run directory aside.
    """
    own = list(RULES[rule])
    if "--alignment_optimizer=adam" in own:
        own.append(f"--delay_epochs={_DELAY * epochs:g}")
    return [
        "--dataset=imagenet",
        f"--data_dir={data_dir}",
        f"--image_size={image_size}",
        f"--model={model}",
        f"--train_batch_size={_BATCH}",
        "--eval_batch_size=150",
        f"--train_epochs={epochs:g}",
        "--learning_rate=0.05",
        "--constant_lr=false",
        f"--warmup_epochs={epochs / 8:g}",
        f"--drops={3 * epochs / 4:g}",
        f"--seed={seed}",
        *own,
    ]


def run(script: str, arguments: list[str], log: pathlib.Path) -> None:
    """Runs a script of this repository.

    Args:
        script: its name in scripts/.
        arguments: its command line.
        log: file for what it writes.

    Raises:
        RuntimeError: it failed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(_ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    with open(log, "w") as output:
        ended = subprocess.run(
            [sys.executable, str(_ROOT / "scripts" / script), *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            check=False,
        )
    if ended.returncode:
        tail = "\n".join(log.read_text().splitlines()[-5:])
        raise RuntimeError(f"{script} {' '.join(arguments)} ended with {ended.returncode}:\n{tail}")


def digits(folder: pathlib.Path, jpeg_size: int) -> pathlib.Path:
    """The data set, made if it is not there.

    Args:
        folder: holds the data sets.
        jpeg_size: pixels a side of the JPEGs.

    Returns:
        Its folder.
    """
    made = folder / f"digits{jpeg_size}"
    if not (made / "manifest.json").exists():
        arguments = [f"--output_dir={made}", f"--image_size={jpeg_size}"]
        run("make_digits_tfrecords.py", arguments, folder / f"digits{jpeg_size}.log")
    return made


def row(rule: str, workdirs: Sequence[pathlib.Path]) -> str:
    """A rule's row of the table, from what its runs wrote.

    Args:
        rule: its name.
        workdirs: run directories, one a seed.

    Returns:
        Rule, epochs, losses, top-1 in percent, mean and largest angle of the convolutions at the
        end, in degrees; means over the runs, top-1 with its standard deviation, the largest angle
        of all.
    """
    ends = [_end(workdir) for workdir in workdirs]
    angles = [angle for _, found in ends for angle in found]

    def mean(column: str, scale: float = 1.0) -> float:
        return scale * statistics.fmean(float(last[column]) for last, _ in ends)

    spread = ""
    if len(ends) > 1:
        spread = f" ± {100 * statistics.stdev(float(last['val_top1']) for last, _ in ends):.1f}"
    return (
        f"| {rule} | {mean('epoch'):g} | {mean('loss'):.2f} | {mean('val_loss'):.2f} "
        f"| {mean('val_top1', 100):.1f}{spread} | {statistics.fmean(angles):.1f} "
        f"| {max(angles):.1f} |"
    )


def _end(workdir: pathlib.Path) -> tuple[dict[str, str], list[float]]:
    """The last row of a run, and the angles of its convolutions there."""
    with open(workdir / "metrics.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    with open(workdir / "layers.csv", newline="") as file:
        angles = [
            float(line["weight_angle"])
            for line in csv.DictReader(file)
            if "conv" in line["layer"] and line["global_step"] == last["global_step"]
        ]
    return last, angles or [0.0]


_HEAD = (
    "| rule | epochs | training loss | validation loss | top-1 % | mean angle | largest angle |\n"
    "|---|---|---|---|---|---|---|"
)


def main(argv: list[str]) -> None:
    """Makes the data, trains each rule, prints a table."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {' '.join(argv[1:])}.")
    values = flags.FLAGS
    unknown = sorted(set(values.rules) - set(RULES))
    if unknown or not values.rules:
        raise app.UsageError(f"Expected rules: {', '.join(RULES)}. Received: {', '.join(unknown)}.")
    folder = pathlib.Path(values.folder)
    jpeg_size = values.jpeg_size or values.image_size
    data_dir = digits(folder, jpeg_size)

    def train(rule: str, seed: str) -> pathlib.Path:
        name = f"{values.model}-{jpeg_size}-{values.image_size}-{values.epochs:g}-{seed}"
        workdir = folder / name / rule
        arguments = training_flags(
            rule, values.model, values.image_size, values.epochs, int(seed), data_dir
        )
        run("train.py", [*arguments, f"--workdir={workdir}"], folder / name / f"{rule}.log")
        return workdir

    print(
        f"{values.model}, {values.image_size} px from JPEGs of {jpeg_size} px, batch {_BATCH}, "
        f"{values.epochs:g} epochs, seeds {', '.join(values.seeds)}\n\n{_HEAD}"
    )
    try:
        with futures.ThreadPoolExecutor(values.parallel) as pool:
            runs = {
                rule: [pool.submit(train, rule, s) for s in values.seeds] for rule in values.rules
            }
            for rule, of_seeds in runs.items():
                print(row(rule, [each.result() for each in of_seeds]), flush=True)
    except RuntimeError as error:
        sys.exit(f"resnet_digits.py: {error}")


if __name__ == "__main__":
    flags.DEFINE_list("rules", list(RULES), "rules to train, comma-separated")
    flags.DEFINE_string("model", "resnet20", "network to train")
    flags.DEFINE_integer("image_size", 32, "pixels a side of the network's input", lower_bound=8)
    flags.DEFINE_integer("jpeg_size", None, "of the JPEGs; as image_size by default", lower_bound=8)
    flags.DEFINE_float("epochs", 6.0, "to train", lower_bound=0.05)
    flags.DEFINE_list("seeds", ["0"], "a run for each; the table has their means")
    flags.DEFINE_integer("parallel", 1, "runs at a time", lower_bound=1)
    options.define_path("folder", "runs/resnet_digits", "for the data sets and the runs")
    app.run(main)
