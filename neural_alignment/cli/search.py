"""`neural-alignment search`: a search from its flags, or the report of one."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from neural_alignment import config
from neural_alignment.cli import environment
from neural_alignment.cli.parse import Program, help_text, parse, wants_help
from neural_alignment.cli.running import run, to_stdout
from neural_alignment.config.modules import import_modules
from neural_alignment.config.options import UsageError, path_of
from neural_alignment.config.presets import values
from neural_alignment.exits import DONE, Interrupted
from neural_alignment.lock import FileLock, LockedError
from neural_alignment.runs import folders
from neural_alignment.runs.folders import FolderError
from neural_alignment.search import devices, forkserver
from neural_alignment.search import flags as search_flags
from neural_alignment.search import plan as plans
from neural_alignment.search.flags import Search
from neural_alignment.search.forkserver import ForkServer
from neural_alignment.search.objectives import LABELS
from neural_alignment.search.plan import Plan
from neural_alignment.search.processes import Launcher, ScriptLauncher
from neural_alignment.search.store import Store, StoreError

_PROGRAM = Program(
    usage="usage: neural-alignment search --space=SPACE --searchdir=DIR [--FLAG=VALUE ...]\n"
    "       neural-alignment search report DIR",
    about="Searches training settings, trial by trial, as Kunin et al. 2020 did (appendix B.1), or "
    "reports on a search.",
    define=search_flags.define_flags,
    sections=search_flags.sections,
    page="docs/search.md",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what a command line asks for; may be called again in the same process.

    Args:
        argv: the command line, the script's name first; None: this process's.

    Returns:
        The exit code: 0; 1 for an error or a search without a score; 2 for wrong usage; 128 + the
        signal's number for a search that was told to stop.
    """
    errors = (FolderError, LockedError, StoreError, RuntimeError)
    return run(_main, argv, errors, stopped=Interrupted(signal.SIGINT))


def _main(argv: Sequence[str]) -> int:
    expanded = config.expand(argv, presets=False)
    if modules := values(expanded, "import"):
        environment.prepare("search")
        environment.import_tensorflow()
        import_modules(modules)
    if asked := wants_help(argv):
        sys.stdout.write(help_text(_PROGRAM, full=asked == "full"))
        return DONE
    fv, rest = parse(_PROGRAM, expanded)
    if rest[:1] == ["report"]:
        if len(rest) != 2:
            raise UsageError(f"expected one directory: report DIR. Received: {len(rest) - 1}")
        return _report(Path(path_of("report", rest[1])))
    if rest:
        raise UsageError(f"expected flags, or report DIR. Received: {' '.join(rest)!r}")
    search = search_flags.read(fv)
    plan = search_flags.plan_from(search)
    search_flags.check_trials(plan, own_script=search.train_script is not None)
    for_spark = ["pyspark"] if search.spark else []
    if search.train_script is None:
        environment.prepare("search", *for_spark)
    else:
        environment.require("search", "rich", "hyperopt", *for_spark)
    return _search(search, plan)


def _search(search: Search, plan: Plan) -> int:
    from neural_alignment.search import report
    from neural_alignment.search.table import SearchTable

    console = to_stdout()
    store = Store(Path(search.searchdir))
    folders.check_search(store.directory)
    plans.check(store, plan)
    store.create()
    with FileLock(store.directory / "search.lock", "searchdir") as lock:
        if lock.dead_holder:
            console.print(f"Taking over from a search that died (pid {lock.dead_holder}).")
        store.read()
        if store.damage:
            console.print(f"{store.damage} Its trial is recovered from its own file.")
        console.print(_outlook(search, plan), highlight=False, soft_wrap=True)
        parallel = search.at_a_time
        with SearchTable(plan.space, search.trials, parallel, console) as table:
            run = _runner(search, plan, store, table.update)
            run(search.trials)
        best = report.write_best(plan, store)
        report.show(plan, store, console)
    if best is None:
        console.print(f"No trial succeeded; the trials' output is in {store.trials_directory}.")
        return 1
    console.print(
        f"Best settings: {best} (neural-alignment train --flagfile={best})", soft_wrap=True
    )
    return 0


def _outlook(search: Search, plan: Plan) -> str:
    """How the trials will be chosen: with few of them TPE has little to go by."""
    what = f"{search.trials} trials of {plan.space.name}, {LABELS[plan.objective]}"
    if plan.algorithm == "random":
        return f"{what}: all drawn at random"
    if plan.startup_trials >= search.trials:
        return (
            f"{what}: all drawn at random, since TPE begins after --startup_trials="
            f"{plan.startup_trials}"
        )
    return f"{what}: {plan.startup_trials} drawn at random, then by TPE"


def _runner(search: Search, plan: Plan, store: Store, display: Callable) -> Callable[[int], None]:
    """What runs the trials: this machine, or a Spark cluster."""
    script = None if search.train_script is None else Path(search.train_script).resolve()
    parallel = search.at_a_time
    if search.spark:
        from neural_alignment.search.spark import SparkRunner

        return SparkRunner(
            store, plan, script, search.spark, parallel, search.time_limit, display
        ).run
    slots = devices.assign(search.devices, search.tpu_names, parallel)
    # Its imports go on while this process imports hyperopt.
    launcher = _launcher(search, store, devices.thread_share(parallel))
    from neural_alignment.search.runner import Runner

    return Runner(store, plan, script, launcher, slots, search.time_limit, display).run


def _launcher(search: Search, store: Store, variables: Mapping[str, str]) -> Launcher:
    preload = search.preload
    if preload is None:
        # A fork cannot use CUDA that its parent has begun to use; where there is a GPU or a TPU, a
        # trial takes so long that seconds do not matter.
        uses_gpu = devices.uses_gpu(search.devices)
        preload = not (uses_gpu or search.tpu_names or search.train_script)
    if preload:
        log = store.directory / "preload.log"
        return ForkServer(forkserver.TRAINING, variables, log, "with --nopreload")
    if search.train_script is None:
        environment.check_import()
    return ScriptLauncher()


def _report(directory: Path) -> int:
    environment.require("search report", "rich", "matplotlib")
    from neural_alignment.search import report

    console = to_stdout()
    store = Store(directory)
    plan = plans.load(store)
    store.read()
    report.show(plan, store, console)
    for path in report.plot(plan, store):
        console.print(str(path), soft_wrap=True, highlight=False)
    return 0
