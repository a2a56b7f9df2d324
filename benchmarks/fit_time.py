"""Times the step of a plain `fit` with each rule against stock Keras layers, on any back end."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from benchmarks import networks, timing
from neural_alignment import alignments

STOCK = "stock Keras layers"
_WARM_UP = 2


def compare_rules(
    model: str,
    rules: Mapping[str, Mapping[str, Any] | None],
    *,
    batch: int,
    rounds: int,
    calls: int,
) -> str:
    """Each rule with the same network of stock Keras layers, in `train_on_batch` with momentum.

    Args:
        model: a key of `networks.NETWORKS`.
        rules: name in the table to the rule's config.
        batch: examples of a step.
        rounds: measurements of each.
        calls: steps in a measurement.

    Returns:
        A Markdown table.
    """
    network = networks.NETWORKS[model]
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch, *network.input_shape)).astype("float32")
    labels = rng.integers(network.num_classes, size=batch)
    built = {STOCK: networks.stock_twin(network.build(None))}
    built |= {name: network.build(alignments.get(config)) for name, config in rules.items()}
    runs = {name: _step(one, images, labels) for name, one in built.items()}
    seconds = timing.interleave(runs, rounds, calls)
    ratios = timing.ratios(seconds, STOCK)
    head = (
        f"{model}, batch {batch}, plain fit, {rounds} rounds; {keras.backend.backend()}, "
        f"Keras {keras.__version__}, Python {platform.python_version()}\n\n"
        "| step | ms | ratio, median [quartiles] |\n|---|---|---|\n"
    )
    return head + "\n".join(
        f"| {name} | {1e3 * np.median(seconds[name]):.1f} "
        f"| {ratio.median:.3f} [{ratio.lower:.3f}, {ratio.upper:.3f}] |"
        for name, ratio in ratios.items()
    )


def _step(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), loss)

    def run() -> None:
        float(model.train_on_batch(images, labels))  # waits for the step

    for _ in range(_WARM_UP):
        run()
    return run
