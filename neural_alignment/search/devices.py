"""Where trials run: a device for each that runs at a time, and its share of the threads."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from neural_alignment.config.options import refuse
from neural_alignment.search.space import FlagValue


@dataclass(frozen=True, kw_only=True)
class Device:
    """Where a trial runs.

    Args:
        name: What tables call it.
        flags: Training flags that choose it.
        environment: Environment variables that choose it.
    """

    name: str = "default"
    flags: Mapping[str, FlagValue] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def assign(names: Sequence[str], tpu_names: Sequence[str], parallel: int) -> list[Device]:
    """A device for each of the trials that run at a time; used in turn if there are fewer.

    Args:
        names: CUDA device ids, or "cpu"; empty to leave the choice to TensorFlow.
        tpu_names: TPU names; they take the place of `names`.
        parallel: Trials at a time.

    Returns:
        `parallel` devices, each with its share of this machine's threads.
    """
    threads = thread_share(parallel)
    if tpu_names:
        pool = [
            Device(name=name, flags={"strategy": "tpu", "tpu_name": name}, environment=threads)
            for name in tpu_names
        ]
    else:
        pool = [
            Device(
                name=name if name == "cpu" else f"gpu {name}",
                environment={"CUDA_VISIBLE_DEVICES": "-1" if name == "cpu" else name, **threads},
            )
            for name in names
        ] or [Device(environment=threads)]
    return [pool[slot % len(pool)] for slot in range(parallel)]


def has_gpu() -> bool:
    """Whether TensorFlow would find an NVIDIA GPU here; without importing it."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return Path("/dev/nvidiactl").exists() and not hidden


def check_names(names: Sequence[str]) -> None:
    """Refuses what is no device.

    Args:
        names: as `assign` takes them.

    Raises:
        UsageError: names it.
    """
    for name in names:
        if name != "cpu" and not name.isdigit():
            refuse("devices", "CUDA device ids, or cpu", name)


def uses_gpu(names: Sequence[str]) -> bool:
    """Whether processes on these devices find a GPU.

    Args:
        names: as `assign` takes them.
    """
    return has_gpu() and set(names) != {"cpu"}


def thread_share(parallel: int) -> Mapping[str, str]:
    """Environment variables that give each of `parallel` trials its share of the cores.

    A variable that the user has set stays as it is; one trial at a time has all cores.
    """
    if parallel == 1:
        return {}
    share = str(max(1, _cores() // parallel))
    variables = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    return {name: share for name in variables if name not in os.environ}


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1
