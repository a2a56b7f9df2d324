"""Trains every rule on the digits, several seeds each, and writes the table of docs/results.md.

    python benchmarks/digits.py --outdir=runs/digits
    python benchmarks/digits.py --outdir=runs/digits --model=lenet5
    python benchmarks/digits.py --outdir=runs/digits --trials=0.5,1,2

With `--trials` the rate of J is chosen for each preset first: the best of these multiples of the
preset's. A trial is a run for each of `--trial_seeds`, none of the table's; the worst top-1 counts.

A run is a preset in a run directory of its own, OUTDIR/MODEL/PRESET-SEED. Runs that are there
already are taken as they are, so that the same command goes on where it was stopped.
"""

from __future__ import annotations

import csv
import dataclasses
import pathlib
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence

from absl import app, flags

from neural_alignment import config
from neural_alignment.config import options

# One preset or more for each rule, in the table's order. The first is what the others are
# compared with.
PRESETS = (
    "digits_backprop",
    "digits_symmetric",
    "digits_activation",
    "digits_kolen_pollack",
    "digits_product",
    "digits_product_orthogonal",
    "digits_sign_symmetry",
    "digits_sign_symmetry_batch",
    "digits_sign_symmetry_fixed",
    "digits_wm",
    "digits_wm_tpe",
    "digits_wm_tpe_ad",
    "digits_wm_tpe_ad_ops",
    "digits_information_tpe",
    "digits_moving_average",
    "digits_phaseless",
    "digits_mixed",
    "digits_feedback",
    "digits_direct",
    "digits_frozen",
)
# LeNet-5 trains for a third of the presets' epochs; J's rate is lower and warms up, as gradients of
# the first convolution are sums over positions, and outrun B otherwise.
_LENET5 = ("--model=lenet5", "--image_size=32", "--warmup_epochs=2")
_ALONE = ("--learning_rate=0.005", "--train_epochs=20", "--drops=13.3")
# R has an optimizer of its own: B first, for two epochs, then J at a higher rate, as its gradients
# are clipped. Adam does not see that R's are as well.
_ADAM = (
    "--learning_rate=0.01", "--train_epochs=22", "--drops=13.3", "--delay_epochs=2", "--grad_clip",
)  # fmt: skip
_ALTERNATING = ("--train_epochs=32", "--drops=10")
# Both kernels decay more, to meet in a third of the time. Mirrors get twice the amp: B of W's size
# behind a ReLU.
_LENET5_FLAGS: dict[str, tuple[str, ...]] = {
    "digits_symmetric": _ADAM,
    "digits_activation": _ADAM,
    "digits_kolen_pollack": (*_ALONE, "--decay_coef=1e-2", "--learning_rate=0.0025"),
    "digits_product": (*_ALONE, "--decay_coef=2e-2", "--learning_rate=0.0025"),
    "digits_product_orthogonal": (*_ALONE, "--decay_coef=1e-2", "--learning_rate=0.0025"),
    "digits_mixed": (
        *_ALONE,
        "--fractions=product(decay_coef=0.01,factored=false):0.6,feedback:0.2,"
        "kolen_pollack(decay_coef=0.01):0.2",
        "--learning_rate=0.0025",
    ),
    "digits_direct": (*_ALONE, "--projection=full", "--learning_rate=0.0025"),
    "digits_moving_average": (*_ALONE, "--learning_rate=0.00125"),
    "digits_phaseless": (*_ALONE, "--learning_rate=0.0025"),
    "digits_wm": (*_ALONE, "--train_epochs=22", "--learning_rate=0.0035", "--amp_coef=1"),
    "digits_wm_tpe": (*_ALONE, *_ALTERNATING, "--learning_rate=0.0025", "--amp_coef=0.016"),
    "digits_wm_tpe_ad": (*_ADAM, *_ALTERNATING, "--amp_coef=0.04"),
    "digits_wm_tpe_ad_ops": (*_ADAM, *_ALTERNATING, "--amp_coef=25"),
    "digits_information_tpe": (*_ADAM, *_ALTERNATING),
}  # fmt: skip

# Of the runs that choose a rate.
TRIAL_SEEDS = (100,)

# What the table says of a preset's settings; the rest is in its file.
_SHOWN = (
    "alignment", "fractions", "projection", "magnitude", "feedback", "tau",
    "decay_coef", "self_coef", "sparse_coef", "amp_coef",
    "null_coef", "input_stddev", "noise_stddev", "learning_rate", "l2", "alignment_optimizer",
    "alignment_learning_rate", "delay_epochs", "alternate_step_freq", "train_epochs", "grad_clip",
)  # fmt: skip

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Declares the flags of the comparison."""
    options.define_path("outdir", None, "folder of the run directories", required=True)
    flags.DEFINE_enum("model", "fc", ["fc", "lenet5"], "network; lenet5 sees 32-pixel images")
    flags.DEFINE_list("presets", list(PRESETS), "presets to run")
    flags.DEFINE_list("seeds", ["0", "1", "2"], "a run for each")
    flags.DEFINE_list("trials", [], "multiples of each preset's rate of J to choose from")
    flags.DEFINE_list(
        "trial_seeds", list(map(str, TRIAL_SEEDS)), "a run for each in a trial, none of --seeds"
    )


@dataclasses.dataclass(frozen=True)
class Run:
    """How a run ended: top-1 in percent, and each layer's angle between W and B in degrees."""

    top1: float
    angles: Mapping[str, float]


def job_flags(
    preset: str, seed: int, workdir: pathlib.Path | str, model: str = "fc", *more: str
) -> flags.FlagValues:
    """The flags of one run, parsed and checked.

    Args:
        preset: its name.
        seed: of the run.
        workdir: its run directory; empty: none is made.
        model: "fc" as in the preset, or "lenet5" on the digits at 32 pixels.
        *more: flags after the preset's, which win.

    Returns:
        The flags of a training job.
    """
    given = [f"--preset={preset}", f"--seed={seed}"]
    if workdir:
        given.append(f"--workdir={workdir}")
    fv = config.parsed(config.expand(["digits", *given]))
    if model == "lenet5":
        fv["layers_list"].unparse()
        more = (*_LENET5, *_LENET5_FLAGS.get(preset, _ALONE), *more)
    fv(["digits", *more])
    config.validate(fv)
    return fv


def train(fv: flags.FlagValues) -> Run:
    """Trains, or finds the run already trained.

    Args:
        fv: flags of the run.

    Returns:
        How it ended.
    """
    import keras

    from neural_alignment.training import job

    keras.backend.clear_session()
    row = job.train(fv)
    with open(pathlib.Path(fv["workdir"].value) / "layers.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    last = [layer for layer in rows if layer["epoch"] == rows[-1]["epoch"]]  # none of some rules
    angles = {layer["layer"]: float(layer["weight_angle"]) for layer in last}
    return Run(100.0 * row["val_top1"], angles)


def table(
    runs: Mapping[str, Sequence[Run]], model: str, chosen: Mapping[str, str] | None = None
) -> str:
    """The results in Markdown.

    Args:
        runs: preset to its runs.
        model: what was trained.
        chosen: preset to a flag that was chosen by trials.

    Returns:
        A row for each preset: settings beyond those of backprop, top-1 with its standard
        deviation over the runs, and the mean angle of each layer from input to output.
    """
    count = len(next(iter(runs.values())))
    head = (
        f"{model}, {count} seeds\n\n"
        "| preset | settings beyond backprop's | top-1 % | angles, input to output |\n"
        "|---|---|---|---|"
    )
    rows = (_row(preset, done, model, chosen or {}) for preset, done in runs.items())
    return "\n".join([head, *rows])


def _row(preset: str, runs: Sequence[Run], model: str, chosen: Mapping[str, str]) -> str:
    top1 = [run.top1 for run in runs]
    spread = statistics.stdev(top1) if len(top1) > 1 else 0.0
    mean = [statistics.fmean(run.angles[layer] for run in runs) for layer in runs[0].angles]
    angles = ", ".join(f"{angle:.0f}" for angle in mean) or ("0" if preset == PRESETS[0] else "–")
    of = settings_of(preset, model, chosen)
    settings = ", ".join(f"{name} {value}" for name, value in of.items())
    return f"| {preset} | {settings} | {statistics.fmean(top1):.1f} ± {spread:.1f} | {angles} |"


def settings_of(
    preset: str, model: str = "fc", chosen: Mapping[str, str] | None = None
) -> dict[str, str]:
    """A preset's main settings, where they are not those of digits_backprop.

    Args:
        preset: its name.
        model: "fc" or "lenet5".
        chosen: preset to a flag that was chosen by trials.

    Returns:
        Flag to value, as the table shows them.
    """
    given, base = (
        job_flags(each, 0, "", model, *filter(None, [(chosen or {}).get(each)]))
        for each in (preset, PRESETS[0])
    )
    values = {name: given[name].value for name in _SHOWN}
    return {
        name: f"{value:g}" if isinstance(value, float) else f"{value}"
        for name, value in values.items()
        if value is not None and value != base[name].value
    }


def choose(
    preset: str,
    factors: Sequence[float],
    folder: pathlib.Path,
    model: str,
    seeds: Sequence[int] = TRIAL_SEEDS,
) -> str:
    """The flag of J's rate with the best trial.

    Args:
        preset: its name.
        factors: multiples of its rate.
        folder: of the run directories.
        model: "fc" or "lenet5".
        seeds: a run for each in a trial; the worst top-1 counts.

    Returns:
        `--learning_rate=...`; the lowest of equals.
    """
    rate = job_flags(preset, 0, "", model)["learning_rate"].value
    best, flag = -1.0, ""
    for factor in sorted(factors):
        given = f"--learning_rate={factor * rate:g}"
        top1 = min(_trial(preset, seed, folder, model, given, factor) for seed in seeds)
        if top1 > best:
            best, flag = top1, given
    return flag


def _trial(
    preset: str, seed: int, folder: pathlib.Path, model: str, given: str, factor: float
) -> float:
    from neural_alignment.training.divergence import DivergenceError

    workdir = folder / f"trial-{preset}-{factor:g}-{seed}"
    try:
        return train(job_flags(preset, seed, workdir, model, given)).top1
    except DivergenceError:
        return 0.0


def run_all(
    presets: Iterable[str],
    seeds: Iterable[int],
    outdir: str,
    model: str,
    factors: Sequence[float] = (),
    trial_seeds: Sequence[int] = TRIAL_SEEDS,
) -> str:
    """Every preset with every seed.

    Args:
        presets: their names.
        seeds: of the runs.
        outdir: folder of the run directories.
        model: "fc" or "lenet5".
        factors: multiples of J's rate to choose from by trials; none leaves it.
        trial_seeds: a run for each in a trial.

    Returns:
        The table.
    """
    folder, seeds = pathlib.Path(outdir) / model, tuple(seeds)
    chosen, runs = {}, {}
    for preset in presets:
        if factors:
            chosen[preset] = choose(preset, factors, folder, model, trial_seeds)
        more = [chosen[preset]] if preset in chosen else []
        runs[preset] = [
            train(job_flags(preset, seed, folder / f"{preset}-{seed}", model, *more))
            for seed in seeds
        ]
    return table(runs, model, chosen)


def main(argv: list[str]) -> None:
    """Trains and prints."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {' '.join(argv[1:])}")
    factors, trial_seeds = tuple(map(float, FLAGS.trials)), tuple(map(int, FLAGS.trial_seeds))
    seeds = tuple(map(int, FLAGS.seeds))
    if factors and set(seeds) & set(trial_seeds):
        raise app.UsageError("--trial_seeds: expected none of --seeds, whose runs the table shows")
    made = run_all(FLAGS.presets, seeds, FLAGS.outdir, FLAGS.model, factors, trial_seeds)
    sys.stdout.write(made + "\n")


if __name__ == "__main__":
    define_flags()
    app.run(main)
