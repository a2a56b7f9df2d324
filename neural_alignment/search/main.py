"""scripts/search.py: a search from its flags, or the report of one."""

import importlib.util
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from absl import app, flags

from neural_alignment.lock import FileLock, LockedError
from neural_alignment.search import devices
from neural_alignment.search import flags as search_flags
from neural_alignment.search import plan as plans
from neural_alignment.search.forkserver import ForkServer
from neural_alignment.search.plan import Plan
from neural_alignment.search.processes import Launcher, ScriptLauncher
from neural_alignment.search.store import Store, StoreError
from neural_alignment.search.trial import Interrupted

# All that a training job imports; none of it starts TensorFlow's runtime, which does not survive a
# fork.
_PRELOADED = ("neural_alignment.training.job",)


def parse(argv: Sequence[str]) -> list[str]:
    """Parses and checks the command line; ends the program with a usage error if it is wrong.

    Returns:
        The arguments that are not flags.
    """
    rest = app.parse_flags_with_usage(list(argv))
    try:
        if rest[1:2] == ["report"]:
            if len(rest) != 3:
                raise flags.Error("Expected one directory: search.py report DIR.")
        elif len(rest) > 1:
            raise flags.Error(f"Expected flags, or report DIR. Received {' '.join(rest[1:])!r}.")
        else:
            plan = search_flags.plan_from(flags.FLAGS)
            search_flags.check_trials(plan, own_script=flags.FLAGS.train_script is not None)
    except flags.Error as error:
        sys.stderr.write(f"FATAL Flags parsing error: {error}\nPass --help to see the flags.\n")
        sys.exit(1)
    return rest


def main(argv: Sequence[str]) -> int:
    """Runs what the parsed command line asks for.

    Returns:
        The exit code: 0; 1 for an error or a search without a score; 128 + the signal's number
        for a search that was told to stop.
    """
    try:
        if argv[1:2] == ["report"]:
            return _report(Path(argv[2]))
        return _search(search_flags.plan_from(flags.FLAGS))
    except Interrupted as interrupted:
        sys.stderr.write(f"{interrupted}\n")
        return 128 + interrupted.number
    except KeyboardInterrupt:  # before or after the trials
        sys.stderr.write(f"{Interrupted(signal.SIGINT)}\n")
        return 128 + signal.SIGINT
    except (LockedError, StoreError, RuntimeError, OSError) as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1


def _search(plan: Plan) -> int:
    from rich.console import Console

    from neural_alignment.search import report
    from neural_alignment.search.table import SearchTable

    fv = flags.FLAGS
    if fv.spark and importlib.util.find_spec("pyspark") is None:
        raise RuntimeError(
            f"Expected pyspark for --spark={fv.spark}. Received: it is not installed. Install it "
            'with pip install "neural-alignment[spark]".'
        )
    console = Console()
    store = Store(Path(fv.searchdir))
    plans.check(store, plan)
    store.create()
    with FileLock(store.directory / "search.lock", "searchdir") as lock:
        if lock.dead_holder:
            console.print(f"Taking over from a search that died (pid {lock.dead_holder}).")
        store.read()
        if store.damage:
            console.print(f"{store.damage} Its trial is recovered from its own file.")
        parallel = search_flags.parallel(fv)
        with SearchTable(plan.space, fv.trials, parallel, console) as table:
            run = _runner(plan, store, table.update)
            run(fv.trials)
        best = report.write_best(plan, store)
        report.show(plan, store, console)
    if best is None:
        console.print(f"No trial succeeded; the trials' output is in {store.trials_directory}.")
        return 1
    console.print(f"Best settings: {best} (scripts/train.py --flagfile={best})", soft_wrap=True)
    return 0


def _runner(plan: Plan, store: Store, display: Callable) -> Callable[[int], None]:
    """What runs the trials: this machine, or a Spark cluster."""
    fv = flags.FLAGS
    script = Path(fv.train_script or Path(sys.argv[0]).with_name("train.py")).resolve()
    parallel = search_flags.parallel(fv)
    if fv.spark:
        from neural_alignment.search.spark import SparkRunner

        return SparkRunner(store, plan, script, fv.spark, parallel, fv.time_limit, display).run
    slots = devices.assign(fv.devices, fv.tpu_names, parallel)
    # Its imports go on while this process imports hyperopt.
    launcher = _launcher(store, devices.thread_share(parallel))
    from neural_alignment.search.runner import Runner

    return Runner(store, plan, script, launcher, slots, fv.time_limit, display).run


def _launcher(store: Store, environment: Mapping[str, str]) -> Launcher:
    fv = flags.FLAGS
    preload = fv.preload
    if preload is None:
        # A fork cannot use CUDA that its parent has begun to use; where there is a GPU or a TPU, a
        # trial takes so long that seconds do not matter.
        uses_gpu = devices.has_gpu() and set(fv.devices) != {"cpu"}
        preload = not (uses_gpu or fv.tpu_names or fv.train_script)
    if not preload:
        return ScriptLauncher()
    return ForkServer(_PRELOADED, environment, store.directory / "preload.log")


def _report(directory: Path) -> int:
    from rich.console import Console

    from neural_alignment.search import report

    console = Console()
    store = Store(directory)
    plan = plans.load(store)
    store.read()
    report.show(plan, store, console)
    for path in report.plot(plan, store):
        console.print(str(path), soft_wrap=True, highlight=False)
    return 0
