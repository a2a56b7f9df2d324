"""Trains every rule with nothing but `--alignment`, and writes the table of docs/settings.md.

    python benchmarks/defaults.py --outdir=runs/defaults
    python benchmarks/defaults.py --outdir=runs/defaults --models=lenet5 --rules=mirror --seeds=0

A run is `scripts/train.py --alignment=RULE --model=MODEL --seed=SEED` in a run directory of its
own, OUTDIR/MODEL-RULE-SEED. Runs that are there already are taken as they are, so that the same
command goes on where it was stopped; one from before a change of the defaults keeps what it
recorded.
"""

from __future__ import annotations

import csv
import dataclasses
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence

from absl import app, flags

from neural_alignment import alignments, config

MODELS = ("fc", "lenet5")
FLAGS = flags.FLAGS


def define_flags() -> None:
    """Declares the flags of the comparison."""
    flags.DEFINE_string("outdir", None, "folder of the run directories", required=True)
    flags.DEFINE_list("models", list(MODELS), "networks")
    flags.DEFINE_list("rules", ["backprop", *alignments.names()], "learning rules")
    flags.DEFINE_list("seeds", ["0", "1", "2"], "a run for each")


@dataclasses.dataclass(frozen=True)
class Run:
    """How a run ended: top-1 in percent, and each layer's angle between W and B in degrees."""

    top1: float
    angles: tuple[float, ...]


def settings_of(model: str, rule: str, seed: int, workdir: pathlib.Path | str) -> config.Settings:
    """What `scripts/train.py --alignment=RULE --model=MODEL --seed=SEED` trains with.

    Args:
        model: its name.
        rule: its name, or "backprop".
        seed: of the run.
        workdir: its run directory.

    Returns:
        The settings, filled in and checked.
    """
    given = {"alignment": rule, "model": model, "seed": seed, "workdir": workdir}
    argv = ["train.py", *(f"--{name}={value}" for name, value in given.items())]
    return config.validate(config.filled(argv))


def train(settings: config.Settings) -> Run:
    """Trains, or finds the run already trained.

    Args:
        settings: of the run.

    Returns:
        How it ended.
    """
    import keras

    from neural_alignment.training import job

    keras.backend.clear_session()
    row = job.train(settings)
    with open(pathlib.Path(settings.run.workdir) / "layers.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    angles = tuple(float(r["weight_angle"]) for r in rows if r["epoch"] == rows[-1]["epoch"])
    return Run(100.0 * row["val_top1"], angles)


def table(runs: Mapping[str, Mapping[str, Sequence[Run]]]) -> str:
    """The results in Markdown.

    Args:
        runs: rule to model to its runs.

    Returns:
        A row for each rule: top-1 of every run, and the mean angle of each layer from input to
        output, by model.
    """
    models = list(next(iter(runs.values())))
    columns = " | ".join(f"{model}: top-1 % | angles" for model in models)
    head = f"| rule | {columns} |\n|{'---|' * (1 + 2 * len(models))}"
    return "\n".join([head, *(_row(rule, by_model) for rule, by_model in runs.items())])


def _row(rule: str, by_model: Mapping[str, Sequence[Run]]) -> str:
    cells = []
    for runs in by_model.values():
        layers = zip(*(run.angles for run in runs), strict=True)
        cells.append(", ".join(f"{run.top1:.1f}" for run in runs))
        cells.append(", ".join(f"{statistics.fmean(layer):.0f}" for layer in layers) or "–")
    return f"| `{rule}` | {' | '.join(cells)} |"


def main(argv: list[str]) -> None:
    """Trains and prints."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {' '.join(argv[1:])}")
    import tensorflow as tf

    # Networks this small gain nothing from more.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    outdir = pathlib.Path(FLAGS.outdir)
    runs = {
        rule: {
            model: [
                train(settings_of(model, rule, int(seed), outdir / f"{model}-{rule}-{seed}"))
                for seed in FLAGS.seeds
            ]
            for model in FLAGS.models
        }
        for rule in FLAGS.rules
    }
    sys.stdout.write(table(runs) + "\n")


if __name__ == "__main__":
    define_flags()
    app.run(main)
