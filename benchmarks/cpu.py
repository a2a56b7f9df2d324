"""Times a training step on the CPU beside PyTorch's own of the same network, in one run.

    python benchmarks/cpu.py                       # this package on TensorFlow, beside PyTorch
    python benchmarks/cpu.py --networks=mlp --rounds=31
    python benchmarks/cpu.py --threads=1 --cpu_time   # on a machine that does other things, too

Stock Keras layers and two rules on TensorFlow (a graph, as the package's trainer runs it) take
turns with PyTorch's net (torch.nn, torch.optim, eager, channels last); a ratio is taken within a
round, to PyTorch. docs/cost.md has the table and what follows for the choice of a back end.
"""

from __future__ import annotations

import os
import pathlib
import sys
import time
from collections.abc import Callable

from absl import app, flags

FLAGS = flags.FLAGS

# Batch and steps of one measurement.
NETWORKS = {"mlp": (64, 20), "lenet5": (64, 10), "resnet20": (64, 1), "resnet18": (16, 1)}
RULES = ("feedback", "symmetric")
PYTORCH, STOCK = "PyTorch", "stock Keras layers"


def compare(
    name: str,
    batch: int,
    calls: int,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> str:
    """The rows of one network.

    Args:
        name: of the network.
        batch: examples of a step.
        calls: steps in a measurement.
        rounds: measurements of each.
        clock: seconds.

    Returns:
        Lines of a Markdown table.
    """
    import numpy as np
    import tensorflow as tf

    from benchmarks import networks, pytorch_nets, steps, timing
    from neural_alignment import alignments

    network = networks.NETWORKS[name]
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch, *network.input_shape)).astype("float32")
    labels = rng.integers(network.num_classes, size=batch).astype("int32")
    models = {STOCK: networks.stock_twin(network.build(None))}
    models |= {rule: network.build(alignments.get(rule)) for rule in RULES}
    runs = {PYTORCH: pytorch_nets.training_step(name, images, labels)}
    for label, model in models.items():
        step, data = steps.training_step(model), (tf.constant(images), tf.constant(labels))
        runs[label] = lambda step=step, data=data: step(*data)[0].numpy()
    for run in runs.values():
        run()
        run()
    seconds = timing.interleave(runs, rounds, calls, clock)
    ratios = timing.ratios(seconds, PYTORCH)
    return "".join(
        f"| {name}, batch {batch} | {label} | {1e3 * np.median(times):.2f} "
        f"| {ratios[label].median:.2f} [{ratios[label].lower:.2f}, {ratios[label].upper:.2f}] |\n"
        for label, times in seconds.items()
    )


def main(argv: list[str]) -> None:
    """Measures and prints."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {' '.join(argv[1:])}")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import tensorflow as tf
    import torch

    if FLAGS.threads:
        torch.set_num_threads(FLAGS.threads)
        tf.config.threading.set_intra_op_parallelism_threads(FLAGS.threads)
        tf.config.threading.set_inter_op_parallelism_threads(FLAGS.threads)
    clock = time.process_time if FLAGS.cpu_time else time.perf_counter
    print(
        f"TensorFlow {tf.__version__}, PyTorch {torch.__version__}, {torch.get_num_threads()} "
        f"threads, {'CPU' if FLAGS.cpu_time else 'wall'} time; load {os.getloadavg()[0]:.1f}\n\n"
        "| network | step | ms | ratio to PyTorch, median [quartiles] |\n|---|---|---|---|"
    )
    for name in FLAGS.networks:
        batch, calls = NETWORKS[name]
        table = compare(name, FLAGS.batch or batch, FLAGS.calls or calls, FLAGS.rounds, clock)
        print(table, end="", flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    flags.DEFINE_multi_enum("networks", list(NETWORKS), list(NETWORKS), "to train")
    flags.DEFINE_integer("batch", None, "examples of a step; default: by network", lower_bound=1)
    flags.DEFINE_integer("calls", None, "steps in one measurement; default: by network", 1)
    flags.DEFINE_integer("rounds", 15, "measurements of each", lower_bound=1)
    flags.DEFINE_integer("threads", None, "of both; default: every core", lower_bound=1)
    flags.DEFINE_bool("cpu_time", False, "seconds of CPU time, not of the clock on the wall")
    app.run(main)
