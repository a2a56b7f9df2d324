"""Where a job runs: one device, several, several machines, or a TPU."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from neural_alignment.messages import one_line
from neural_alignment.training import workers
from neural_alignment.training.workers import DeviceError

# Lookups retry without end where there is no network: nothing is waited for longer than this.
_FIND_SECONDS = 45.0
# A large slice takes minutes to initialise.
_INITIALISE_SECONDS = 300.0
# Workers may be started one after the other.
_JOIN_SECONDS = 300.0


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
        name: "one_device", "mirrored" (every GPU here; the CPU's logical devices where it was
            split, or without a GPU), "multi_worker" (by TF_CONFIG), "tpu", or "auto": tpu with a
            tpu_name, multi_worker with TF_CONFIG, mirrored with more than one GPU, else
            one_device.
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
        return _multi_worker()
    cpus = tf.config.list_logical_devices("CPU")
    devices = tf.config.list_logical_devices("GPU") or cpus
    if name == "mirrored":
        # Nobody splits a CPU but to train on its parts.
        devices = cpus if len(cpus) > 1 else devices
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.OneDeviceStrategy(devices[0].name)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the run directory: the first worker, or the only process."""
    return strategy.extended.should_checkpoint


def has_workers(strategy: tf.distribute.Strategy) -> bool:
    """Whether several processes run the same program."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def compiles_itself(strategy: tf.distribute.Strategy) -> bool:
    """Whether every step is compiled with XLA anyway."""
    return isinstance(strategy, tf.distribute.TPUStrategy)


def mean_over_workers(
    strategy: tf.distribute.Strategy, values: Sequence[float]
) -> tuple[float, ...]:
    """The mean over processes of numbers that each knows for itself: the same in every process.

    What decides how many steps follow must come from here, or workers would wait for each other
    for ever.

    Args:
        strategy: the devices.
        values: of this process; every process gives as many.

    Returns:
        Their means; the values themselves in a single process.
    """
    if not has_workers(strategy):
        return tuple(float(value) for value in values)
    return tuple(_mean(strategy, tf.constant(values, "float64")).numpy().tolist())


@tf.function
def _mean(strategy: tf.distribute.Strategy, values: tf.Tensor) -> tf.Tensor:
    per_replica = strategy.run(tf.identity, args=(values,))
    return strategy.reduce(tf.distribute.ReduceOp.MEAN, per_replica, axis=None)


@contextlib.contextmanager
def worker_errors(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Says that a worker was lost where TensorFlow says that a collective operation failed.

    Args:
        strategy: the devices.

    Raises:
        DeviceError: another worker ended or cannot be reached.
    """
    try:
        yield
    except (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
        tf.errors.FailedPreconditionError,
    ) as error:
        if not has_workers(strategy):
            raise
        raise DeviceError(
            f"another worker ended or cannot be reached ({type(error).__name__}). See what it "
            "said, then start the same command on every worker again: the run goes on from its "
            "newest checkpoint."
        ) from error


def _choose_gpus(indices: str | None) -> None:
    if indices is None:
        return
    here = dict(enumerate(tf.config.list_physical_devices("GPU")))  # no index below 0
    try:
        chosen = [int(index) for index in indices.split(",")]
        if len(set(chosen)) < len(chosen):
            raise ValueError("one GPU twice")
        gpus = [here[index] for index in chosen]
        if set(gpus) != set(tf.config.get_visible_devices("GPU")):
            tf.config.set_visible_devices(gpus, "GPU")
    except RuntimeError as error:  # TensorFlow has begun, in an earlier call of this process
        raise DeviceError(
            "Expected --gpu to be what this process has chosen: TensorFlow changes its GPUs before "
            f"their first use alone. Received: {indices!r}. Start a new process."
        ) from error
    except (ValueError, KeyError) as error:
        raise DeviceError(
            f"Expected --gpu to be indices of the {len(here)} GPUs here, comma-separated, each "
            f"once. Received: {indices!r}"
        ) from error


def _automatic(tpu_name: str | None) -> str:
    if tpu_name is not None:
        return "tpu"
    if workers.has_cluster():
        return "multi_worker"
    return "mirrored" if len(tf.config.list_logical_devices("GPU")) > 1 else "one_device"


def _multi_worker() -> tf.distribute.Strategy:
    addresses, index = workers.cluster()
    try:
        workers.meet(addresses, index, _JOIN_SECONDS)
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, ValueError, OSError, tf.errors.OpError) as error:
        raise DeviceError(
            f"could not join the workers of TF_CONFIG: {one_line(error)}. Check that each of "
            "them was started, with its own index, and that their ports are free and reachable."
        ) from error
    # Every worker knows how many batches there are, all of a static shape: no need to ask the
    # others whether they have one more.
    strategy.extended.experimental_enable_get_next_as_optional = False
    return strategy


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _has_tpu_client() -> bool:
    """Whether TensorFlow can ask Google Cloud where a TPU is."""
    return all(importlib.util.find_spec(name) for name in ("googleapiclient", "oauth2client"))


def _tpu(name: str | None, zone: str | None, project: str | None) -> tf.distribute.Strategy:
    if _installed("tensorflow-tpu") and (_installed("tensorflow") or _installed("tensorflow-cpu")):
        raise DeviceError(
            "two builds of TensorFlow are installed, and the TPU needs its own alone: "
            'pip uninstall tensorflow tensorflow-cpu tensorflow-tpu; pip install -e ".[tpu]"'
        )
    if (name or "local") == "local" and not _installed("tensorflow-tpu"):
        raise DeviceError(
            'an attached TPU needs the TPU build of TensorFlow: pip install -e ".[tpu]" in an '
            "environment without another build"
        )
    name = name or "local"
    if name != "local" and not name.startswith("grpc://") and not _has_tpu_client():
        raise DeviceError(
            f"Expected the client of Google Cloud, to look up the TPU {name!r}. Received: not "
            'both of googleapiclient and oauth2client. pip install -e ".[tpu]", or beside another '
            "build of TensorFlow: pip install google-api-python-client oauth2client"
        )

    def connect() -> Any:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
            tpu=name, zone=zone, project=project
        )
        tf.config.experimental_connect_to_cluster(resolver)
        return resolver

    try:
        resolver = _within(_FIND_SECONDS, connect)
        _within(
            _FIND_SECONDS if name == "local" else _INITIALISE_SECONDS,
            lambda: tf.tpu.experimental.initialize_tpu_system(resolver),
        )
    except Exception as error:  # the clients of Google Cloud have errors of their own
        raise DeviceError(
            f"could not reach the TPU {name!r} (zone {zone}, project {project}): "
            f"{one_line(error)}. Check that it runs, that --tpu_name, --tpu_zone and "
            "--gcp_project are right, and that there are credentials (gcloud auth "
            "application-default login)."
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """What the call returns or raises; it is left to itself where it takes too long."""
    results: queue.Queue[tuple[Any, Exception | None]] = queue.Queue()

    def work() -> None:
        try:
            results.put((call(), None))
        except Exception as error:
            results.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        result, error = results.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:.0f} seconds") from None
    if error is not None:
        raise error
    return result
