"""`neural-alignment reproduce NAME`: the runs of a published figure or table, and what came out."""

from __future__ import annotations

import dataclasses
import pathlib
import signal
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from neural_alignment import atomic, config, reproduce
from neural_alignment.cli import environment
from neural_alignment.cli.parse import Program, check_given, help_text, parse, wants_help
from neural_alignment.cli.running import run, table, to_stdout
from neural_alignment.config.options import (
    PathText,
    UsageError,
    define_group,
    option,
    read_group,
    refuse,
    settings_of,
)
from neural_alignment.exits import DONE, FAILED, Interrupted
from neural_alignment.figures.tables import RunReadError
from neural_alignment.reproduce import results
from neural_alignment.reproduce.jobs import Job, folder_of, jobs, seeds_there
from neural_alignment.reproduce.runner import Missed, Runner, log_of
from neural_alignment.runs.directory import RunDirectoryError
from neural_alignment.search import devices, forkserver
from neural_alignment.search.forkserver import ForkServer
from neural_alignment.search.processes import Launcher, ScriptLauncher

if TYPE_CHECKING:
    from rich.console import Console

# Flags that say something of runs alone.
_OF_RUNS = ("seeds", "only", "scale", "parallel", "devices", "train")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reproduction:
    """What is run, and how much of it."""

    listed: bool = option(
        False, "list what can be reproduced, and what it takes", flag="list", main=True
    )
    seeds: int | None = option(
        None, "runs of each setting, with seeds 0, 1, ... (default: the recipe's)", low=1, main=True
    )
    only: tuple[str, ...] = option((), "some of its lines or columns, comma-separated", main=True)
    scale: float = option(
        1.0,
        "factor of every run's length; all schedules move with it, and the runs have folders of "
        "their own",
        above=0,
        main=True,
    )
    parallel: int = option(1, "runs at a time", low=1, main=True)
    devices: tuple[str, ...] = option((), "CUDA device ids, or cpu: runs on each in turn")
    data_dir: PathText | None = option(None, "folder of the data", main=True)
    outdir: PathText = option(
        "runs/reproduce", "folder for the runs, the tables and the figures", main=True
    )
    train: bool = option(True, "run what is missing; else tabulate and draw what is there")
    draw: bool = option(True, "draw the figures")


_PROGRAM = Program(
    usage="usage: neural-alignment reproduce NAME [--data_dir=DIR] [--FLAG=VALUE ...]\n"
    "       neural-alignment reproduce --list",
    about="Runs what a published figure or table needs, draws it, and prints what was published "
    "beside what came out. Runs that are there are not run again; the same command goes on.",
    define=lambda fv: define_group(Reproduction, fv),
    sections=lambda: [("Reproduction", settings_of(Reproduction))],
    page="docs/reproduction.md",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Reproduces what a command line names; may be called again in the same process.

    Args:
        argv: the command line, the program's name first; None: this process's.

    Returns:
        The exit code: 0; 1 for an error or a run that failed; 2 for wrong usage; 128 + the signal's
        number where it was told to stop.
    """
    errors = (RunDirectoryError, RunReadError, RuntimeError)
    return run(_main, argv, errors, stopped=Interrupted(signal.SIGINT))


def _main(argv: Sequence[str]) -> int:
    if wants_help(argv):
        sys.stdout.write(help_text(_PROGRAM, full=True))
        return DONE
    fv, rest = parse(_PROGRAM, config.expand(argv, presets=False))
    check_given(fv, "only", "devices")
    given = read_group(Reproduction, fv)
    if given.listed:
        return _list()
    if len(rest) != 1:
        raise UsageError(
            f"expected one of {', '.join(reproduce.names())}. Received: {' '.join(rest) or 'none'}."
            " --list says what each is"
        )
    try:
        recipe = reproduce.get(rest[0])
    except ValueError as error:
        raise UsageError(str(error)) from error
    _check(recipe, given, [name for name in _OF_RUNS if fv[name].present])
    return _reproduce(recipe, given)


def _check(recipe: reproduce.Recipe, given: Reproduction, of_runs: Sequence[str]) -> None:
    """Refuses what the recipe does not take, before anything is written or run."""
    if recipe.data is None and given.data_dir is not None:
        refuse("data_dir", f"none, as {recipe.name} needs no files", given.data_dir)
    if given.data_dir is not None and "://" not in given.data_dir:
        if not pathlib.Path(given.data_dir).exists():
            refuse("data_dir", f"a folder with {recipe.data}", f"{given.data_dir}, no such folder")
    if of_runs and not recipe.count:
        refuse(of_runs[0], f"none, as {recipe.name} has no runs: it is drawn from theory", "one")
    devices.check_names(given.devices)
    if set(given.devices) - {"cpu"} and not devices.has_gpu():
        refuse("devices", "cpu, as there is no NVIDIA GPU here", ",".join(given.devices))


def _list() -> int:
    environment.require("reproduce", "rich")
    # No table: six columns would leave a terminal of 80 too few for names that are to be typed.
    console = to_stdout()
    for recipe in map(reproduce.get, reproduce.names()):
        needs = f"--data_dir: {recipe.data}" if recipe.data else "no files"
        each = f"{recipe.count * recipe.seeds} runs, {recipe.count} a seed; each: "
        about = (
            recipe.title,
            f"published in: {recipe.source}",
            f"needs {needs}; {each if recipe.count else ''}{recipe.cost}",
        )
        console.print(recipe.name, style="bold", highlight=False, soft_wrap=True)
        for text in about:
            lines = textwrap.fill(text, max(40, console.width - 4))
            console.print(textwrap.indent(lines, "    "), markup=False, soft_wrap=True)
    return DONE


def _reproduce(recipe: reproduce.Recipe, given: Reproduction) -> int:
    if recipe.count and given.train:
        environment.prepare("reproduce")
    else:  # what is there, or theory, takes no TensorFlow
        environment.require("reproduce", "rich", *(["matplotlib"] if given.draw else []))
    console = to_stdout()
    more = {} if given.data_dir is None else {"data_dir": given.data_dir}
    outdir = pathlib.Path(given.outdir)
    planned = list(
        jobs(
            recipe, outdir, seeds=given.seeds, scale=given.scale, only=given.only, more=more
        )
    )  # fmt: skip
    folder = folder_of(recipe, outdir, given.scale)
    missing = [job for job in planned if not job.is_done()]
    _announce(console, recipe, given, len(planned), len(missing))
    failed: Sequence[Missed] = ()
    if missing and given.train:
        failed = _run(console, missing, given, folder)
    done = _there(recipe, outdir, given.scale, planned, more)
    _compare(console, recipe, done, given.scale, folder)
    if given.draw:
        _draw(console, recipe, done, folder)
    places = {job.workdir for job in done}
    failed = [(job, why) for job, why in failed if job.workdir not in places]
    for job, why in failed:
        environment.say(f"error: {job.name} {why}; its output is in {log_of(job)}\n")
    if planned and not done:
        environment.say(f"error: Expected runs that are done in {folder}. Received: none\n")
    return FAILED if failed or (planned and not done) else DONE


def _there(
    recipe: reproduce.Recipe,
    outdir: pathlib.Path,
    scale: float,
    planned: Sequence[Job],
    more: Mapping[str, str],
) -> list[Job]:
    """The jobs that are done: those asked for, and what the folder holds of the recipe beside."""
    seeds = seeds_there(folder_of(recipe, outdir, scale))
    asked = {job.workdir for job in planned}
    found = []
    for job in jobs(recipe, outdir, seeds=seeds, scale=scale, more=more):
        try:
            found += [job] if job.workdir.is_dir() and job.is_done() else []
        except RunDirectoryError as error:  # of those asked for it was said before anything ran
            if job.workdir in asked:
                raise
            environment.say(f"note: {job.name} is left out: {error}\n")
    return found


def _announce(
    console: Console, recipe: reproduce.Recipe, given: Reproduction, planned: int, missing: int
) -> None:
    lines = [f"{recipe.name}: {recipe.title} ({recipe.source})"]
    if recipe.note:
        lines.append(recipe.note)
    if given.scale != 1.0:
        lines.append(
            f"{given.scale:g} of the recipe's length, every schedule with it: not the published "
            "setting"
        )
    runs = "1 run" if planned == 1 else f"{planned} runs"
    lines += [f"{runs}, {planned - missing} of them there"] if planned else []
    console.print("\n".join(lines), highlight=False, soft_wrap=True, markup=False)


def _run(
    console: Console, missing: Sequence[Job], given: Reproduction, folder: pathlib.Path
) -> Sequence[Missed]:
    folder.mkdir(parents=True, exist_ok=True)
    slots = devices.assign(given.devices, (), given.parallel)
    launcher: Launcher = ScriptLauncher()
    if not devices.uses_gpu(given.devices):
        threads: Mapping[str, str] = devices.thread_share(given.parallel)
        launcher = ForkServer(forkserver.TRAINING, threads, folder / "preload.log")

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True, markup=False)

    return Runner(launcher, slots, say).run(missing)


def _compare(
    console: Console,
    recipe: reproduce.Recipe,
    done: Sequence[Job],
    scale: float,
    folder: pathlib.Path,
) -> None:
    rows = results.rows(recipe, done, scale)
    if not rows:
        return
    for note in results.too_short(recipe, rows, scale):
        environment.say(f"note: {note}\n")
    for quantity, lines in results.tables(rows):
        shown = table(quantity, results.HEAD)
        for line in lines:
            shown.add_row(*line)
        console.print(shown)
    atomic.write_text(folder / "table.csv", results.to_csv(rows), shared=True)
    atomic.write_text(folder / "table.md", results.to_markdown(rows), shared=True)
    for name in ("table.csv", "table.md"):
        console.print(str(folder / name), highlight=False, soft_wrap=True, markup=False)


def _draw(
    console: Console, recipe: reproduce.Recipe, done: Sequence[Job], folder: pathlib.Path
) -> None:
    """Draws what the runs that are there have; says what is not drawn, and why."""
    if recipe.count and not done:
        return
    from neural_alignment import figures
    from neural_alignment.figures.material import NotDrawn

    labels = {job.workdir: job.series for job in done}
    notes: dict[str, None] = {}
    plain = {"highlight": False, "soft_wrap": True, "markup": False}
    for name in recipe.figures:
        try:
            written = figures.draw(list(labels), folder / "figures", [name], labels=labels)
        except NotDrawn as lacking:
            why = str(lacking).removeprefix(f"{name}: ")
            console.print(f"{name} is not drawn: {why}", **plain)
            continue
        for path in written.files:
            console.print(str(path), **plain)
        notes |= dict.fromkeys(written.notes)
    for note in notes:
        environment.say(f"note: {note}\n")


if __name__ == "__main__":
    sys.exit(main())
