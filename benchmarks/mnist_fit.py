"""The presets of MNIST by plain `compile` and `fit`, on any back end: a GPU under JAX, say.

    KERAS_BACKEND=jax python benchmarks/mnist_fit.py --data_dir=DATA --outdir=runs/mnist_fit \
        --presets=mnist_bp,mnist_fa --seeds=0,1,2,3,4 --processes=5

A run is written to OUTDIR/PRESET-SEED.csv when it is done, a row an epoch: losses, accuracies in
percent, and each layer's angles in degrees. Runs that are there are not run again. `--table` prints
what is there. The same presets run by `neural-alignment train` with the trainer's two-loss step.
"""

from __future__ import annotations

import csv
import multiprocessing
import pathlib
import statistics
import sys
import time
from typing import Any

from absl import app, flags

FLAGS = flags.FLAGS
BATCH = 64


def define_flags() -> None:
    """Declares the flags."""
    flags.DEFINE_string("data_dir", None, "folder of MNIST's files")
    flags.DEFINE_string("outdir", None, "folder of the runs", required=True)
    flags.DEFINE_list("presets", ["mnist_bp"], "presets, one run for each and seed")
    flags.DEFINE_list("seeds", ["0"], "a run for each")
    flags.DEFINE_list("options", [], "NAME=VALUE of the rule, in place of the preset's")
    flags.DEFINE_integer("processes", 1, "runs at a time", lower_bound=1)
    flags.DEFINE_integer("epochs", None, "in place of the preset's", lower_bound=1)
    flags.DEFINE_bool("table", False, "print the table of the runs that are there, and run none")


def train(
    preset: str,
    seed: int,
    options: dict[str, float],
    data_dir: str,
    epochs: int | None,
    file: pathlib.Path,
) -> None:
    """Trains once and writes the epochs' rows.

    Args:
        preset: its name.
        seed: of weights and order.
        options: of the rule, in place of the preset's.
        data_dir: of the data set.
        epochs: in place of the preset's.
        file: to write.
    """
    import keras

    import neural_alignment
    from neural_alignment import callbacks, data, models

    if keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(1)
    keras.utils.set_random_seed(seed)
    mnist = data.get("mnist", data_dir=data_dir)
    made = neural_alignment.from_preset(preset, len(mnist.train_images) // BATCH)
    rule = made.alignment if not options else made.alignment.replace(**options)
    net = models.get(
        "fc",
        input_shape=mnist.image_shape,
        num_classes=10,
        alignment=rule,
        layers_list=(512, 512),
        activation="relu",
    )
    clock = callbacks.GlobalStep()
    _decay(net, made.weight_decay)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(made.optimizer, loss, metrics=["accuracy"])
    x, y = _pixels(mnist.train_images), mnist.train_labels
    held_out = _pixels(mnist.validation_images), mnist.validation_labels
    few = held_out[0][:512], held_out[1][:512]
    started = time.monotonic()
    history = net.fit(
        *_whole_batches(x, y),
        batch_size=BATCH,
        epochs=epochs or int(made.epochs),
        validation_data=held_out,
        validation_batch_size=1000,
        callbacks=[callbacks.AlignmentMetrics(*few), clock],
        verbose=0,
    ).history
    history["seconds"] = [time.monotonic() - started] * len(history["loss"])
    _write(file, history)


def _pixels(images: Any) -> Any:
    return (images.astype("float32") / 255.0 - 0.1307) / 0.3081


def _whole_batches(x: Any, y: Any) -> tuple[Any, Any]:
    """The examples of whole batches: 32 of 60,000 are left out, where the trainer draws anew."""
    whole = len(x) // BATCH * BATCH
    return x[:whole], y[:whole]


def _decay(net: Any, decay: Any) -> None:
    """Makes every weight but the rule's decay, as the trainer does."""
    import keras

    from neural_alignment.layers.aligned import aligned_layers

    if decay is None:
        return
    layer = next(iter(aligned_layers(net)), None)

    class Decay(keras.regularizers.Regularizer):
        def __call__(self, weight: Any) -> Any:
            rate = decay
            if callable(decay):
                try:
                    rate = decay(layer.global_step())
                except ValueError:  # validation has no step
                    rate = 0.0
            return 0.5 * rate * keras.ops.sum(keras.ops.square(weight))

    rules = {id(v) for one in aligned_layers(net) for s in one.sites for v in s.variables.values()}
    for weight in net.trainable_variables:
        if id(weight) not in rules:
            weight.regularizer = Decay()


def _write(file: pathlib.Path, history: dict[str, list[float]]) -> None:
    part = file.with_suffix(".part")
    with open(part, "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["epoch", *history])
        writer.writerows([i + 1, *row] for i, row in enumerate(zip(*history.values(), strict=True)))
    part.replace(file)


def table(folder: pathlib.Path) -> str:
    """The runs that are there, in Markdown: a row for each preset.

    Args:
        folder: of the runs.

    Returns:
        Test accuracy after the first and the last epoch, mean and sample standard deviation over
        seeds, and the mean final angle of each layer, from the input on.
    """
    lines = [
        "| preset | seeds | after epoch 1 | last epoch | weight angles | error angles | s |",
        "|---|---|---|---|---|---|---|",
    ]
    by_preset: dict[str, list[list[dict[str, str]]]] = {}
    for file in sorted(folder.glob("*.csv")):
        with open(file, newline="") as stream:
            by_preset.setdefault(file.stem.rsplit("-", 1)[0], []).append(
                list(csv.DictReader(stream))
            )
    for preset, runs in by_preset.items():
        first = _spread([100 * float(run[0]["val_accuracy"]) for run in runs])
        last = _spread([100 * float(run[-1]["val_accuracy"]) for run in runs])
        seconds = statistics.fmean(float(run[-1]["seconds"]) for run in runs)
        angles = [_angles(runs, kind) for kind in ("weight_angle", "error_angle")]
        cells = [preset, len(runs), first, last, *angles, f"{seconds:.0f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{deviation}"


def _angles(runs: list[list[dict[str, str]]], kind: str) -> str:
    names = [name for name in runs[0][-1] if name.startswith(f"{kind}/")]
    means = [statistics.fmean(float(run[-1][name]) for run in runs) for name in names]
    return ", ".join(f"{mean:.1f}" for mean in means) or "–"


def _jobs(folder: pathlib.Path) -> list[tuple[Any, ...]]:
    options = dict(option.split("=", 1) for option in FLAGS.options)
    suffix = "".join(f"-{name}={value}" for name, value in options.items())
    values = {name: float(value) for name, value in options.items()}
    files = {
        (preset, int(seed)): folder / f"{preset}{suffix}-{seed}.csv"
        for seed in FLAGS.seeds
        for preset in FLAGS.presets
    }
    return [
        (preset, seed, values, FLAGS.data_dir, FLAGS.epochs, file)
        for (preset, seed), file in files.items()
        if not file.exists()
    ]


def main(argv: list[str]) -> None:
    """Trains and prints."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {' '.join(argv[1:])}")
    folder = pathlib.Path(FLAGS.outdir)
    folder.mkdir(parents=True, exist_ok=True)
    if not FLAGS.table:
        # A process a run: what Keras keeps of a run goes with it.
        context = multiprocessing.get_context("spawn")
        with context.Pool(FLAGS.processes, maxtasksperchild=1) as pool:
            pool.starmap(train, _jobs(folder), chunksize=1)
    sys.stdout.write(table(folder) + "\n")


if __name__ == "__main__":
    define_flags()
    app.run(main)
