"""Where the time of a training step goes, by kind of operation, as TensorFlow's profiler has it."""

from __future__ import annotations

import collections
import pathlib
import re
import tempfile
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

# A column of the table, and the types of TensorFlow's operations in it; XLA's are fusions.
KINDS = {
    "products": r"MatMul|Conv[1-3]D",
    "momentum": r"ResourceApply",
    "multiples": r"Mul$",
    "sums of two": r"Add|Sub$",
    "sums over all": r"L2Loss|Square|Sum|Mean|Tile",
    "noise": r"Random|fusion|Shift|Log|Sin|Cos|Sqrt|Concat|Sign|Abs|Cast",
    "rest": r"",
}


def measure(run: Callable[[], None], steps: int) -> dict[str, float]:
    """Times every operation of a step.

    Args:
        run: one step, to its end; compiled and warm.
        steps: how many to measure.

    Returns:
        Each operation, a name that ends in its type, to the median of its microseconds.
    """
    from tensorflow.tsl.profiler.protobuf import xplane_pb2  # no public name reads a profile

    with tempfile.TemporaryDirectory() as directory:
        options = tf.profiler.experimental.ProfilerOptions(python_tracer_level=0)
        tf.profiler.experimental.start(directory, options)
        try:
            for _ in range(steps):
                run()
        finally:
            tf.profiler.experimental.stop()
        (file,) = pathlib.Path(directory).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(file.read_bytes())
    times = collections.defaultdict(list)
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                times[name].append(event.duration_ps / 1e6)
    return {
        name: float(np.median(each))
        for name, each in times.items()
        if len(each) == steps and _is_operation(name)
    }


def _is_operation(name: str) -> bool:
    """Whether an event is an operation: of TensorFlow `name:type`, of XLA a fusion."""
    return bool(re.fullmatch(r"[^: ]+:\w+|[\w.]*fusion[\w.]*", name))


def by_kind(times: Mapping[str, float]) -> dict[str, float]:
    """What `measure` found, summed by `KINDS`.

    Args:
        times: microseconds by operation.

    Returns:
        Microseconds by kind, with a "total".
    """
    sums = dict.fromkeys(KINDS, 0.0)
    for name, microseconds in times.items():
        kind = name.rpartition(":")[2]
        sums[next(k for k, types in KINDS.items() if re.search(types, kind))] += microseconds
    return sums | {"total": sum(times.values())}
