"""Times whole training steps of every rule on an accelerator, in the minutes that it is there.

    python benchmarks/gpu.py --minutes=5
    KERAS_BACKEND=jax python benchmarks/gpu.py --minutes=5 --networks=resnet50 --rules=mirror
    KERAS_BACKEND=tensorflow python benchmarks/gpu.py --modes=graph --modes=xla
    KERAS_BACKEND=jax python benchmarks/gpu.py --tiny        # a try, on a CPU

A step is forward, backward, weight decay, R and a Nesterov momentum update; the reference is the
same network of Keras's own layers. The steps of a network are compiled in threads, stock's first,
then they take turns; a ratio is taken within a round. The table is written after every round, so
that a run that is cut short leaves what it has measured; what did not fit, or had no time, has a
row with the reason. A table that is there already is not written over. On JAX it needs keras, jax,
numpy, h5py and absl, and no TensorFlow.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import importlib
import importlib.util
import os
import pathlib
import re
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from absl import app, flags

if TYPE_CHECKING:
    from benchmarks import contestants, networks
    from benchmarks.gpu_table import Table

FLAGS = flags.FLAGS

STOCK = "stock"
_LEAST = 5  # rounds
_NO_MEMORY = re.compile(
    r"RESOURCE_EXHAUSTED|ResourceExhausted|\bOOM\b|[Oo]ut of memory|OUT_OF_MEMORY|MemoryError"
)
# Rules by their names in step_time.py, what says most first: a run may be cut short.
RULES = (
    "feedback",
    "symmetric",
    "information",
    "activation",
    "mirror",
    "kolen_pollack",
    "mirror_noise",
    "product",
    "sign_symmetry",
    "sign_symmetry_batch",
    "information_noise",
    "activation_noise",
    "phaseless",
    "moving_average",
    "direct",
)


@dataclasses.dataclass(frozen=True)
class Work:
    """A network and how it is trained.

    Args:
        model: a name for `models.get`.
        input_shape: of one example.
        classes: number of logits.
        batch: examples of a step.
        policy: Keras's dtype policy.
        steps: of one call, on JAX.
        share: of the minutes.
        options: of the builder.
    """

    model: str
    input_shape: tuple[int, ...]
    classes: int
    batch: int
    policy: str
    steps: int
    share: float
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def tiny(self) -> Work:
        """The same on few pixels and examples."""
        shape = (32, 32, 3) if len(self.input_shape) == 3 else (64,)
        options = {"layers_list": (32,), "activation": "relu"} if self.model == "fc" else {}
        return dataclasses.replace(
            self, input_shape=shape, classes=10, batch=2, steps=1, options=options
        )

    def network(self) -> networks.Network:
        """What builds it."""
        from benchmarks import networks

        return networks.Network(self.model, self.input_shape, self.classes, self.options)


_MLP = {"layers_list": (512, 512), "activation": "relu"}
NETWORKS = {
    "mlp": Work("fc", (784,), 10, 64, "float32", 20, 0.08, _MLP),
    "resnet50": Work("resnet50", (224, 224, 3), 1000, 128, "mixed_bfloat16", 1, 0.5),
    "resnet20": Work("resnet20", (32, 32, 3), 10, 128, "float32", 4, 0.17),
    "resnet18": Work("resnet18", (224, 224, 3), 1000, 128, "mixed_bfloat16", 1, 0.25),
}


class Clock:
    """What is left of the minutes.

    Args:
        seconds: in all.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds left."""
        return self._end - time.monotonic()


def measure(name: str, work: Work, mode: str, seconds: float, table: Table) -> None:
    """Builds, compiles and times the steps of one network.

    Args:
        name: of the network.
        work: the network.
        mode: how a step is compiled.
        seconds: to take.
        table: to write to.
    """
    import keras

    from benchmarks import contestants

    clock = Clock(seconds)
    keras.config.set_dtype_policy(work.policy)
    backend = contestants.of_backend(mode)
    ready: dict[str, contestants.Contestant] = {}
    pending: dict[concurrent.futures.Future, str] = {}
    with contextlib.ExitStack() as stack:
        pool = concurrent.futures.ThreadPoolExecutor(FLAGS.threads)
        # Who interrupts the run does not want what has not begun.
        stack.callback(pool.shutdown, cancel_futures=True)
        for step in (STOCK, *FLAGS.rules):
            table.set(name, mode, step, batch=work.batch, dtype=work.policy)
            # The last third is for measuring, and the first step is what all are compared with.
            if clock.left() < (seconds / 3 if pending else 0.0):
                table.set(name, mode, step, note="not built: out of time")
                continue
            try:
                made = _build(work, step, table, name, mode)
                pending[pool.submit(_timed, backend, made, work)] = step
            except Exception as error:  # of any rule or library: the others are measured
                table.set(name, mode, step, note=_line("not built", error))
            table.write()
            if step == STOCK:
                # Alone: XLA tries ways to run each convolution, and remembers them for the others.
                concurrent.futures.wait(pending)
        concurrent.futures.wait(pending, timeout=max(clock.left() - seconds / 3, 0.0))
        for future, step in pending.items():
            if future.cancel():
                table.set(name, mode, step, note="not compiled: out of time")
                continue
            try:  # waits for one that has begun, as it cannot be stopped
                ready[step] = future.result()
                table.set(name, mode, step, compile_s=f"{ready[step].compile_seconds:.1f}")
                table.set(name, mode, step, mib=_rounded(ready[step].mebibytes))
            except Exception as error:
                table.set(name, mode, step, note=_line("not compiled", error))
            table.write()
    _race(name, mode, ready, clock, table)
    keras.backend.clear_session()


def _build(work: Work, step: str, table: Table, name: str, mode: str) -> Any:
    """The model of a step; its floor and multiplications go to the table."""
    from benchmarks import contestants, networks, step_time

    network = work.network()
    config = None if step == STOCK else step_time.RULES[step]
    with contestants.building():
        model = network.build(config)
        floor = networks.floor(model, work.batch)
        table.set(name, mode, step, floor=f"{floor:.2f}")
        if step == STOCK:
            model = networks.stock_twin(model)
    return model, floor * networks.backpropagation(model, work.batch)


def _timed(backend: Callable[..., Any], made: Any, work: Work) -> contestants.Contestant:
    model, multiplications = made
    contestant = backend(model, work)
    contestant.multiplications = multiplications
    return contestant


def _race(
    name: str,
    mode: str,
    ready: dict[str, contestants.Contestant],
    clock: Clock,
    table: Table,
) -> None:
    """Rounds in which every step has a turn, until the time is over."""
    from benchmarks import timing

    def run(step: str, calls: int = 1) -> float | None:
        """Seconds a call; where it fails, a note, and its memory is the others'."""
        try:
            return timing.interleave({step: ready[step].run}, 1, calls)[step][0]
        except Exception as error:  # out of memory, say
            del ready[step]
            table.set(name, mode, step, note=_line("not run", error))
            return None

    for step in sorted(ready, key=lambda one: one != STOCK):
        run(step, calls=2)  # to warm up
    seconds: dict[str, list[float]] = {}
    # Where compiling took the time, a few rounds are run all the same: they are the shorter part.
    for count in range(FLAGS.rounds):
        if STOCK not in ready or (clock.left() <= 0 and count >= _LEAST):
            break
        names = list(ready)
        for step in timing.turns(names, count):
            if (taken := run(step)) is not None:
                seconds.setdefault(step, []).append(taken)
        seconds = {step: seconds[step] for step in ready}
        if STOCK in ready:
            _set_times(name, mode, ready, seconds, table)
        table.write()
    if STOCK not in ready:
        for step in ready:
            table.set(name, mode, step, note="not compared: stock layers did not run")
    table.write()


def _set_times(
    name: str,
    mode: str,
    ready: dict[str, contestants.Contestant],
    seconds: dict[str, list[float]],
    table: Table,
) -> None:
    """The times so far and their ratios to stock's of the same round."""
    from benchmarks import timing

    ratios = timing.ratios(seconds, STOCK)
    for step, times in seconds.items():
        median = timing.Quartiles.of(times).median / ready[step].steps
        ratio, tflops = ratios[step], 2e-12 * ready[step].multiplications / median
        table.set(name, mode, step, ms=f"{1e3 * median:.3f}", tflops=f"{tflops:.3g}")
        table.set(name, mode, step, ratio=f"{ratio.median:.3f}", rounds=len(times))
        table.set(name, mode, step, lower=f"{ratio.lower:.3f}", upper=f"{ratio.upper:.3f}")
        table.set(name, mode, step, mib=_rounded(ready[step].mebibytes))


def _rounded(mebibytes: float | None) -> str:
    return "" if mebibytes is None else f"{mebibytes:.0f}"


def _line(what: str, error: Exception) -> str:
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    reason = "does not fit: " if _NO_MEMORY.search(text) else ""
    return f"{what}: {reason}{text[:220]}"


def _backend() -> str:
    """Keras's back end: the one asked for, or the one that is installed."""
    asked = os.environ.get("KERAS_BACKEND")
    has_tensorflow = importlib.util.find_spec("tensorflow") is not None
    return asked or ("tensorflow" if has_tensorflow else "jax")


def main(argv: list[str]) -> None:
    """Measures, network by network, and prints the table."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {' '.join(argv[1:])}")
    from neural_alignment import extras, messages  # from where this file is, installed or not

    backend = _backend()
    modes = FLAGS.modes or (["xla"] if backend == "jax" else ["graph", "xla"])
    if backend not in ("jax", "tensorflow") or (backend == "jax" and modes != ["xla"]):
        raise app.UsageError(
            "Expected KERAS_BACKEND=tensorflow, or jax with --modes=xla. "
            f"Received: KERAS_BACKEND={backend}, --modes={','.join(modes)}"
        )
    if extras.missing(backend):
        raise app.UsageError(extras.back_end_message(backend))
    path = _output(backend)
    os.environ["KERAS_BACKEND"] = backend
    clock = Clock(60.0 * FLAGS.minutes)
    from benchmarks import contestants
    from benchmarks.gpu_table import Table

    device, is_accelerator = contestants.device()
    if not (is_accelerator or FLAGS.tiny):
        raise app.UsageError(
            f"Expected an accelerator, or --tiny for a try without. Received: {device}. Install a "
            "build for this machine; benchmarks/step_time.py times rules on a CPU."
        )
    table = Table(path, device)
    try:  # so that a folder that may not be written to is told now
        path.parent.mkdir(parents=True, exist_ok=True)
        table.write()
    except OSError as error:
        raise app.UsageError(f"--output: {messages.of_system(error)}") from error
    ended = None
    try:
        _measure_all(modes, clock, table)
    except (KeyboardInterrupt, OSError) as error:  # the disk may be full
        ended = messages.of_system(error) if isinstance(error, OSError) else "interrupted"
    print(table.markdown())
    if ended is not None:
        sys.exit(f"gpu.py: {ended}; {path} has the rows up to there")


def _output(backend: str) -> pathlib.Path:
    """The file of the table, which is not there yet."""
    path = pathlib.Path(f"gpu_{backend}.csv" if FLAGS.output is None else FLAGS.output)
    if path.is_dir():
        raise app.UsageError(f"Expected a file as --output. Received: {path}, a folder")
    if path.exists():
        raise app.UsageError(
            f"Expected another --output than the table of an earlier run. Received: {path}, which "
            "is there. Move it, or give another name."
        )
    return path


def _measure_all(modes: list[str], clock: Clock, table: Table) -> None:
    """Network by network, each with its share of the time that is left."""
    shares = [NETWORKS[name].share for name in FLAGS.networks]
    for i, name in enumerate(FLAGS.networks):
        work = NETWORKS[name].tiny() if FLAGS.tiny else NETWORKS[name]
        work = dataclasses.replace(work, batch=FLAGS.batch or work.batch)
        seconds = max(clock.left(), 0.0) * shares[i] / sum(shares[i:]) / len(modes)
        for mode in modes:
            measure(name, work, mode, seconds, table)


def _define_flags() -> None:
    from benchmarks import step_time

    flags.DEFINE_float("minutes", 5.0, "to take, about", lower_bound=0.0)
    flags.DEFINE_multi_enum("networks", list(NETWORKS), list(NETWORKS), "to train, in this order")
    flags.DEFINE_multi_enum(
        "rules", list(RULES), list(step_time.RULES), "beside stock, in this order"
    )
    flags.DEFINE_multi_enum("modes", None, ["graph", "xla"], "TensorFlow's; default: both")
    flags.DEFINE_integer("batch", None, "examples of a step; default: by network", lower_bound=1)
    flags.DEFINE_integer("rounds", 15, "at most, of measurements", lower_bound=1)
    flags.DEFINE_integer("threads", 4, "that compile", lower_bound=1)
    flags.DEFINE_bool("tiny", False, "few pixels and examples: a try on a CPU")
    flags.DEFINE_string(
        "output", None, "table of all rows, written after every round; default: gpu_BACKEND.csv"
    )


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    _define_flags()
    app.run(main)
