"""Images per second of training on TFRecords, the share of a step spent waiting, peak memory.

    python benchmarks/training_speed.py --data_dir=FOLDER_OF_TFRECORDS
    python benchmarks/training_speed.py                 # on JPEGs made for it, of ImageNet's size
    python benchmarks/training_speed.py --rules=backprop --rules=symmetric --nospeed

A step is forward, backward, R and a momentum update (benchmarks/steps.py). Each rule is timed on
batches of the input pipeline and on one batch that stays in memory, by turns; in a process of its
own, a peak of memory is of the whole process. Where the pipeline runs on the cores that train, it
slows the step down as well as letting it wait: the last two columns are the share of the step spent
waiting for its batch, and the share that the input costs in all.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import multiprocessing
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from absl import app, flags

from neural_alignment.config import options

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """What is measured.

    Args:
        model: a name for `models.get`.
        image_size: pixels a side of the network's input.
        batch: examples of a step.
        num_classes: number of logits, where there are no data to say it.
        steps: timed in a measurement.
        warm_up: steps before each measurement.
        rounds: measurements of each kind; medians are reported.
    """

    model: str = "resnet18"
    image_size: int = 128
    batch: int = 16
    num_classes: int = 1000
    steps: int = 16
    warm_up: int = 2
    rounds: int = 3

    @property
    def images(self) -> int:
        """Examples that a measurement draws."""
        return self.batch * (self.warm_up + self.steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds a step.

    Args:
        pipeline: drawing a batch, with nothing that trains.
        memory: training on one batch that stays in memory.
        training: training on the pipeline's batches.
        blocked: of these, waiting for the batch to come.
    """

    pipeline: float
    memory: float
    training: float
    blocked: float

    @property
    def waiting(self) -> float:
        """Share of the step spent waiting for its batch, `blocked / training`."""
        return self.blocked / self.training

    @property
    def lost(self) -> float:
        """Share of the step that the input costs in all, `1 - memory / training`."""
        return max(0.0, 1.0 - self.memory / self.training)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """Peaks of a process's resident memory, in MiB.

    Args:
        imported: before there is a model.
        trained: after some steps.
    """

    imported: float
    trained: float


def in_new_process(function: Callable[..., T], *arguments: Any) -> T:
    """Calls a function in a process of its own, that has imported nothing.

    Args:
        function: of a module, not a nested one.
        *arguments: of the function.

    Returns:
        What it returns; what it raises is raised.
    """
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def make_images(folder: str, setup: Setup) -> None:
    """Writes JPEGs of ImageNet's size, as many as a measurement draws.

    Args:
        folder: to write to.
        setup: what is measured.
    """
    from benchmarks import input_pipeline

    input_pipeline.make(folder, setup.images)


def measure_speed(setup: Setup, rule: str, data_dir: str, images: int | None) -> Speed:
    """Times a rule's step on the pipeline's batches and on one in memory.

    Args:
        setup: what is measured.
        rule: a key of `step_time.RULES`.
        data_dir: TFRecords.
        images: examples there should be in each split; None: what the folder's manifest says.

    Returns:
        Medians over the rounds.

    Raises:
        ValueError: too few images, or data that are damaged.
    """
    from neural_alignment.data import imagenet

    data = imagenet.load(
        "imagenet",
        data_dir,
        image_size=setup.image_size,
        num_train=images,
        num_validation=images,
    )
    if data.num_train < setup.images:
        raise ValueError(
            f"Expected {setup.images} training images in {data_dir}, for {setup.warm_up} + "
            f"{setup.steps} batches of {setup.batch}. Received: {data.num_train}."
        )
    step = _step(setup, rule, data.num_classes)
    kept = next(iter(data.train(setup.batch, epoch=0, seed=0)))
    found: list[Speed] = []
    for epoch in range(setup.rounds):
        alone, _ = _time(setup, iter(data.train(setup.batch, epoch, 0)), None)
        memory, _ = _time(setup, _repeat(kept), step)
        training, blocked = _time(setup, iter(data.train(setup.batch, epoch, 0)), step)
        found.append(Speed(pipeline=alone, memory=memory, training=training, blocked=blocked))
    return Speed(
        **{
            field.name: statistics.median(getattr(each, field.name) for each in found)
            for field in dataclasses.fields(Speed)
        }
    )


def measure_memory(setup: Setup, rule: str) -> Memory:
    """Peak memory of this process, when it trains on a batch in memory.

    Call it through `in_new_process`, from a process that is small itself: a peak is of the whole
    life of a process, and the first thing in it is its parent's memory.

    Args:
        setup: what is measured.
        rule: a key of `step_time.RULES`.

    Returns:
        The peaks.
    """
    import numpy as np
    import tensorflow as tf

    import neural_alignment.layers
    import neural_alignment.optimizers  # noqa: F401  a package that TensorFlow came with

    tf.zeros([1]) + 1.0  # what TensorFlow keeps for itself
    imported = peak()
    step = _step(setup, rule, setup.num_classes)
    generator = np.random.default_rng(0)
    shape = (setup.batch, setup.image_size, setup.image_size, 3)
    images = tf.constant(generator.normal(size=shape).astype("float32"))
    labels = tf.constant(generator.integers(setup.num_classes, size=setup.batch), tf.int32)
    for _ in range(setup.warm_up + setup.steps):
        step(images, labels)[0].numpy()
    return Memory(imported=imported, trained=peak())


def peak() -> float:
    """Peak of this process's resident memory, in MiB."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _step(setup: Setup, rule: str, num_classes: int) -> Callable:
    from benchmarks import networks, step_time, steps
    from neural_alignment import alignments

    shape = (setup.image_size, setup.image_size, 3)
    network = networks.Network(setup.model, shape, num_classes)
    return steps.training_step(network.build(alignments.get(step_time.RULES[rule])))


def _repeat(batch: tuple[Any, Any]) -> Iterator[tuple[Any, Any]]:
    while True:
        yield batch


def _time(
    setup: Setup, batches: Iterator[tuple[Any, Any]], step: Callable | None
) -> tuple[float, float]:
    """Seconds a step, and of these waiting for the batch."""
    blocked = 0.0
    for number in range(setup.warm_up + setup.steps):
        if number == setup.warm_up:
            began, blocked = time.perf_counter(), 0.0
        asked = time.perf_counter()
        batch = next(batches)
        blocked += time.perf_counter() - asked
        if step is not None:
            step(*batch)[0].numpy()  # waits for the step
    return (time.perf_counter() - began) / setup.steps, blocked / setup.steps


def _print_speed(setup: Setup, rules: list[str], data_dir: str | None) -> None:
    with contextlib.ExitStack() as stack:
        folder, images = data_dir, None
        if folder is None:
            folder, images = stack.enter_context(tempfile.TemporaryDirectory()), setup.images
            in_new_process(make_images, folder, setup)
        print(
            "| rule | input alone, images/s | training on one batch in memory | training on the "
            "input | share waiting | share lost in all |\n|---|---|---|---|---|---|"
        )
        for rule in rules:
            speed = in_new_process(measure_speed, setup, rule, folder, images)
            rates = (setup.batch / each for each in (speed.pipeline, speed.memory, speed.training))
            shares = (speed.waiting, speed.lost)
            print(
                f"| {rule} | {' | '.join(f'{rate:.1f}' for rate in rates)} "
                f"| {' | '.join(f'{100 * share:.1f} %' for share in shares)} |",
                flush=True,
            )


def _print_memory(setup: Setup, rules: list[str]) -> None:
    print(
        "| rule | peak memory, MiB | of it before the model | ratio | ratio without that |\n"
        "|---|---|---|---|---|"
    )
    short = dataclasses.replace(setup, warm_up=1, steps=3)
    backprop = in_new_process(measure_memory, short, "backprop")
    for rule in ["backprop", *(rule for rule in rules if rule != "backprop")]:
        memory = backprop
        if rule != "backprop":
            memory = in_new_process(measure_memory, short, rule)
        own = (memory.trained - memory.imported) / (backprop.trained - backprop.imported)
        print(
            f"| {rule} | {memory.trained:.0f} | {memory.imported:.0f} "
            f"| {memory.trained / backprop.trained:.2f} | {own:.2f} |",
            flush=True,
        )


def main(argv: list[str]) -> None:
    """Reads the flags, measures each rule in processes of its own, prints tables."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {' '.join(argv[1:])}.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    values = flags.FLAGS
    setup = Setup(**{field.name: values[field.name].value for field in dataclasses.fields(Setup)})
    print(
        f"{setup.model}, {setup.image_size} px, batch {setup.batch}, {setup.rounds} rounds of "
        f"{setup.steps} steps, {os.cpu_count()} cores\n"
    )
    try:
        if values.speed:
            _print_speed(setup, values.rules, values.data_dir)
        if values.speed and values.memory:
            print()
        if values.memory:
            _print_memory(setup, values.rules)
    except (OSError, ValueError) as error:
        sys.exit(f"training_speed.py: {error}")


def _define_flags() -> None:
    from benchmarks import step_time

    options.define_path("data_dir", None, "folder of TFRecords; made for the run by default")
    flags.DEFINE_multi_enum(
        "rules",
        ["backprop", "feedback", "symmetric", "kolen_pollack", "activation"],
        list(step_time.RULES),
        "rules to measure; repeat for several",
    )
    flags.DEFINE_bool("speed", True, "measure images per second")
    flags.DEFINE_bool("memory", True, "measure peak memory")
    of = {
        "model": "network to train",
        "image_size": "pixels a side of the network's input",
        "batch": "examples of a step",
        "num_classes": "number of logits, for the memory",
        "steps": "timed in a measurement",
        "warm_up": "steps before each measurement",
        "rounds": "measurements of each kind; medians are printed",
    }
    for field in dataclasses.fields(Setup):
        if isinstance(field.default, str):
            flags.DEFINE_string(field.name, field.default, of[field.name])
        else:
            flags.DEFINE_integer(field.name, field.default, of[field.name], lower_bound=1)


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    _define_flags()
    app.run(main)
