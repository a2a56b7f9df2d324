"""Where a job runs: one device, several, several machines, or a TPU."""

from __future__ import annotations

import importlib.metadata
import json
import os
from typing import Any

import tensorflow as tf


class DeviceError(RuntimeError):
    """Devices that were asked for and are not there."""


def make_strategy(
    name: str = "auto",
    *,
    gpu: str | None = None,
    tpu_name: str | None = None,
    tpu_zone: str | None = None,
    gcp_project: str | None = None,
) -> tf.distribute.Strategy:
    """The strategy of that name.

    Args:
        name: "one_device", "mirrored" (every device here), "multi_worker" (by TF_CONFIG), "tpu",
            or "auto": tpu with a tpu_name, multi_worker with TF_CONFIG, mirrored with more than
            one GPU, else one_device.
        gpu: indices of the GPUs to use, comma-separated; None is all.
        tpu_name: name of the TPU, or "local" for one attached to this machine.
        tpu_zone: its zone.
        gcp_project: its project.

    Returns:
        The strategy; model and optimizers are made in its scope.

    Raises:
        DeviceError: says what is missing, and what to do.
    """
    _choose_gpus(gpu)
    if name == "auto":
        name = _automatic(tpu_name)
    if name == "tpu":
        return _tpu(tpu_name, tpu_zone, gcp_project)
    if name == "multi_worker":
        _check_cluster()
        return tf.distribute.MultiWorkerMirroredStrategy()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if name == "mirrored":
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.OneDeviceStrategy(devices[0].name)


def _choose_gpus(indices: str | None) -> None:
    if indices is None:
        return
    here = tf.config.list_physical_devices("GPU")
    try:
        tf.config.set_visible_devices([here[int(i)] for i in indices.split(",")], "GPU")
    except (ValueError, IndexError) as error:
        raise DeviceError(
            f"Expected --gpu to be indices of the {len(here)} GPUs here, comma-separated. "
            f"Received: {indices!r}"
        ) from error


def _automatic(tpu_name: str | None) -> str:
    if tpu_name is not None:
        return "tpu"
    if "TF_CONFIG" in os.environ:
        return "multi_worker"
    return "mirrored" if len(tf.config.list_logical_devices("GPU")) > 1 else "one_device"


def _check_cluster() -> None:
    try:
        cluster = json.loads(os.environ["TF_CONFIG"])
        workers, task = cluster["cluster"]["worker"], cluster["task"]
        whole = 0 <= int(task["index"]) < len(workers)
    except (KeyError, TypeError, ValueError) as error:
        raise DeviceError(
            "Expected the environment variable TF_CONFIG, such as "
            '{"cluster": {"worker": ["host0:port", "host1:port"]}, '
            '"task": {"type": "worker", "index": 0}}, for --strategy=multi_worker. '
            f"Received: {os.environ.get('TF_CONFIG', 'none')} ({type(error).__name__})"
        ) from error
    if not whole:
        raise DeviceError(f"Expected TF_CONFIG's task index below {len(workers)}. Received: {task}")


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _tpu(name: str | None, zone: str | None, project: str | None) -> tf.distribute.Strategy:
    if _installed("tensorflow-tpu") and (
        _installed("tensorflow") or _installed("tensorflow-cpu")
    ):
        raise DeviceError(
            "two builds of TensorFlow are installed, and the TPU needs its own alone: "
            'pip uninstall tensorflow tensorflow-cpu tensorflow-tpu; pip install -e ".[tpu]"'
        )
    if (name or "local") == "local" and not _installed("tensorflow-tpu"):
        raise DeviceError(
            'an attached TPU needs the TPU build of TensorFlow: pip install -e ".[tpu]" in an '
            "environment without another build"
        )
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            tpu=name or "local", zone=zone, project=project
        )
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
        raise DeviceError(
            f"could not reach the TPU {name or 'local'!r} (zone {zone}, project {project}): "
            f"{_first_line(error)}. Check that it runs and that --tpu_name, --tpu_zone and "
            "--gcp_project are right."
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def _first_line(error: Any) -> str:
    return str(getattr(error, "message", None) or error).strip().splitlines()[0][:300]
