"""Runs a comparison and writes its table."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks import networks, operations, step_profile, steps, timing
from neural_alignment import alignments

STOCK = "stock Keras layers"
_WARM_UP = 2
_HEAD = (
    "| step | ms | ratio, median [quartiles] | floor | convolutions | matmuls |\n"
    "|---|---|---|---|---|---|"
)


class _Contestants:
    """Steps to time, their operation counts and floors."""

    def __init__(self, network: networks.Network, batch: int, jit: bool) -> None:
        rng = np.random.default_rng(0)
        images = rng.normal(size=(batch, *network.input_shape)).astype("float32")
        self._batch = (
            tf.constant(images),
            tf.constant(rng.integers(network.num_classes, size=batch).astype("int32")),
        )
        self._jit = jit
        self.runs: dict[str, Callable[[], None]] = {}
        self.counts: dict[str, operations.Counts] = {}
        self.floors: dict[str, float] = {}

    def add(self, name: str, model: keras.Model, floor: float, split: bool = False) -> None:
        step = steps.training_step(model, jit=self._jit, split=split)
        count = operations.count_xla if self._jit else operations.count_graph
        self.counts[name] = count(step, *self._batch)
        self.floors[name] = floor

        def run() -> None:
            step(*self._batch)[0].numpy()  # waits for the step

        for _ in range(_WARM_UP):
            run()
        self.runs[name] = run


def compare_rules(
    model: str,
    rules: Mapping[str, Mapping[str, Any] | None],
    *,
    batch: int,
    rounds: int,
    calls: int,
    jit: bool,
    clock: Callable[[], float] = time.perf_counter,
) -> str:
    """Each rule with the same network of stock Keras layers.

    Args:
        model: a key of `networks.NETWORKS`.
        rules: name in the table to the rule's config.
        batch: examples of a step.
        rounds: measurements of each.
        calls: steps in a measurement.
        jit: compile with XLA.
        clock: seconds.

    Returns:
        A Markdown table.
    """
    contestants = _with_stock(model, rules, batch, jit)
    seconds = timing.interleave(contestants.runs, rounds, calls, clock)
    return _title(model, batch, rounds, jit) + _rows(contestants, seconds, STOCK, list(seconds))


def compare_operations(
    model: str, rules: Mapping[str, Mapping[str, Any] | None], *, batch: int, steps: int
) -> str:
    """Where the time of a step of each rule goes, and of stock Keras layers.

    Args:
        model: a key of `networks.NETWORKS`.
        rules: name in the table to the rule's config.
        batch: examples of a step.
        steps: to take the median of.

    Returns:
        A Markdown table of milliseconds.
    """
    contestants = _with_stock(model, rules, batch, jit=False)
    kinds = [*step_profile.KINDS, "total"]
    head = f"| step | {' | '.join(kinds)} |\n|{'---|' * (len(kinds) + 1)}\n"
    rows = []
    for name, run in contestants.runs.items():
        times = step_profile.by_kind(step_profile.measure(run, steps))
        rows.append(f"| {name} | " + " | ".join(f"{times[k] / 1e3:.2f}" for k in kinds) + " |")
    return _about(model, batch, f"median of {steps} steps") + head + "\n".join(rows)


def _with_stock(
    model: str, rules: Mapping[str, Mapping[str, Any] | None], batch: int, jit: bool
) -> _Contestants:
    network = networks.NETWORKS[model]
    contestants = _Contestants(network, batch, jit)
    contestants.add(STOCK, networks.stock_twin(network.build(None)), 1.0)
    for name, config in rules.items():
        built = network.build(alignments.get(config))
        contestants.add(name, built, networks.floor(built, batch))
    return contestants


def compare_losses(
    model: str,
    rules: Mapping[str, Mapping[str, Any] | None],
    *,
    batch: int,
    rounds: int,
    calls: int,
    jit: bool,
    clock: Callable[[], float] = time.perf_counter,
) -> str:
    """An optimizer for J and one for R, with one optimizer on the total.

    Args:
        model: a key of `networks.NETWORKS`.
        rules: name in the table to the rule's config; those without an R are left out.
        batch: examples of a step.
        rounds: measurements of each.
        calls: steps in a measurement.
        jit: compile with XLA.
        clock: seconds.

    Returns:
        A Markdown table; the ratio is to the same rule's row above.

    Raises:
        ValueError: no rule with an R.
    """
    network = networks.NETWORKS[model]
    contestants = _Contestants(network, batch, jit)
    pairs = []
    for name, config in rules.items():
        rule = alignments.get(config)
        if rule is None or not rule.has_loss:
            continue
        pairs.append((f"{name}, one optimizer", f"{name}, two optimizers"))
        for label, split in zip(pairs[-1], (False, True), strict=True):
            contestants.add(label, network.build(rule), 1.0, split)
    if not pairs:
        raise ValueError(f"Expected a rule with an alignment loss. Received: {', '.join(rules)}")
    seconds = timing.interleave(contestants.runs, rounds, calls, clock)
    return _title(model, batch, rounds, jit) + "\n".join(
        _rows(contestants, seconds, pair[0], list(pair)) for pair in pairs
    )


def _title(model: str, batch: int, rounds: int, jit: bool) -> str:
    return _about(model, batch, f"{'XLA' if jit else 'graph'}, {rounds} rounds") + f"{_HEAD}\n"


def _about(model: str, batch: int, how: str) -> str:
    threads = tf.config.threading.get_intra_op_parallelism_threads() or os.cpu_count()
    return (
        f"{model}, batch {batch}, {how}; {threads} threads, load {os.getloadavg()[0]:.1f}; "
        f"TensorFlow {tf.__version__}, Keras {keras.__version__}, "
        f"Python {platform.python_version()}\n\n"
    )


def _rows(
    contestants: _Contestants,
    seconds: Mapping[str, list[float]],
    baseline: str,
    names: list[str],
) -> str:
    ratios = timing.ratios({name: seconds[name] for name in names}, baseline)
    rows = []
    for name in names:
        ratio, counts = ratios[name], contestants.counts[name]
        rows.append(
            f"| {name} | {1e3 * np.median(seconds[name]):.1f} "
            f"| {ratio.median:.3f} [{ratio.lower:.3f}, {ratio.upper:.3f}] "
            f"| {contestants.floors[name]:.2f} | {counts.convolutions} | {counts.matmuls} |"
        )
    return "\n".join(rows)
