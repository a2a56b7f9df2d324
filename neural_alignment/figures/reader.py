"""Run directories as figures see them: flags, tables, and which runs differ by their seed alone."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from neural_alignment.config.flags import flag_defaults, rule_defaults
from neural_alignment.figures import tables
from neural_alignment.figures.labels import BACKPROP, labels, plain
from neural_alignment.figures.tables import RunReadError
from neural_alignment.messages import one_line
from neural_alignment.runs import record
from neural_alignment.runs.folders import is_run, is_search

# What a run was given and does not depend on: where its files lie, what it keeps, its devices.
_BOOKKEEPING = frozenset(
    ("seed", "workdir", "preset", "defaults", "import", "data_dir", "download", "max_bad_records")
    + ("epochs_per_checkpoint", "checkpoint_max", "keep_epochs", "iterations_per_loop")
    + ("validate_first", "path_metrics", "eval_batch_size", "strategy", "logical_cpus", "gpu")
    + ("tpu_name", "tpu_zone", "gcp_project", "jit_compile")
)
# Data sets of the user's own: another folder is another set.
_OWN_DATA = ("image_folder", "imagenet")
_CHECKPOINT = re.compile(r"step-(\d{9,})\.json")


@dataclasses.dataclass(frozen=True)
class Run:
    """One run.

    Args:
        folder: the run directory.
        flags: those of its flags.cfg that are not at their defaults, as text.
        metrics: the rows of metrics.csv: `epoch`, `val_top1`, ...
        layers: for each layer, from the input, the rows of layers.csv: `epoch`, `weight_angle`, ...
        label: what the user calls it; None: what its flags say.
        notes: what of its tables is not as a run leaves it.
    """

    folder: pathlib.Path
    flags: Mapping[str, str]
    metrics: Sequence[Mapping[str, float]]
    layers: Mapping[str, Sequence[Mapping[str, float]]]
    label: str | None = None
    notes: Sequence[str] = ()

    @property
    def seed(self) -> str:
        """Its seed, as text."""
        return self.flags.get("seed", "0")

    @property
    def rule(self) -> str:
        """Its learning rule's name."""
        return self.flags.get("alignment", BACKPROP)

    @property
    def given(self) -> dict[str, str]:
        """All that its training depended on, but for the seed: flag to text.

        An option of its rule that its flags do not say is at its default: an earlier version wrote
        them, which had no such option. Of the folder of images of one's own its name counts, as
        the folders above it are others on another machine.
        """
        flags = rule_defaults(self.rule) | dict(self.flags)
        given = {name: text for name, text in flags.items() if name not in _BOOKKEEPING}
        if flags.get("dataset") in _OWN_DATA and "data_dir" in flags:
            given["data_dir"] = os.path.basename(os.path.normpath(flags["data_dir"]))
        return given

    @property
    def settings(self) -> frozenset[tuple[str, str]]:
        """The same, every number in one spelling."""
        return frozenset((name, plain(text)) for name, text in self.given.items())

    @property
    def steps_per_epoch(self) -> float:
        """Steps of an epoch."""
        last = self.metrics[-1]
        return last["global_step"] / last["epoch"]

    @property
    def epochs_meant(self) -> float:
        """The epochs after which it is to end; NaN where its flags do not say."""
        trained = self.number("train_epochs", math.nan)
        return min(trained, self.number("max_epochs", trained))

    def number(self, flag: str, default: float) -> float:
        """A flag's value as a number.

        Raises:
            RunReadError: it is none.
        """
        try:
            return float(self.flags.get(flag, default))
        except ValueError as error:
            raise RunReadError(
                f"Expected a number as --{flag} in {self.folder / 'flags.cfg'}. Received: "
                f"{self.flags[flag]!r}"
            ) from error

    def measures(self, name: str) -> bool:
        """Whether its layers have a measure that is a number anywhere."""
        rows = itertools.chain.from_iterable(self.layers.values())
        return any(math.isfinite(row.get(name, math.nan)) for row in rows)

    def at_end(self, layer: str) -> Mapping[str, float]:
        """A layer's row of the last epoch; without numbers where layers.csv does not have it."""
        end = self.metrics[-1]["global_step"]
        return next((r for r in self.layers.get(layer, ()) if r["global_step"] == end), {})

    def checkpoints(self) -> dict[float, int]:
        """The epochs that it has whole checkpoints of, ascending, and their steps.

        Of one that was pruned by hand, or left out of a copy for its size, the manifest may remain.
        """
        names = {path.name.partition(".data-")[0] for path in self.folder.glob("checkpoints/*")}
        steps = sorted(
            int(match[1])
            for match in map(_CHECKPOINT.fullmatch, names)
            if match and {f"step-{match[1]}", f"step-{match[1]}.index"} <= names
        )
        return {step / self.steps_per_epoch: step for step in steps}


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs of the same settings, of one seed each.

    Args:
        label: what tells it from the other groups.
        runs: by seed.
    """

    label: str
    runs: Sequence[Run]

    @property
    def layers(self) -> tuple[str, ...]:
        """Its layers' names, from the input."""
        return tuple(self.runs[0].layers)


@dataclasses.dataclass(frozen=True)
class Found:
    """What was found in the folders that a user named.

    Args:
        runs: the runs.
        searches: search directories.
        notes: what was left out, and why.
    """

    runs: Sequence[Run]
    searches: Sequence[pathlib.Path]
    notes: Sequence[str]


def read(
    folders: Iterable[str | pathlib.Path],
    labels: Mapping[str | pathlib.Path, str] | None = None,
) -> Found:
    """Reads run directories; a folder that is none is searched for them.

    Args:
        folders: run directories, search directories, or folders that hold some.
        labels: folder of `folders` to what its runs are to be called.

    Returns:
        What is there. A run that has the settings and the seed of another, or no whole epoch yet,
        is left out and named in `notes`, and so is one named that has not ended.

    Raises:
        RunReadError: a folder that is not there or holds neither, or a table that is none.
    """
    places: dict[pathlib.Path, pathlib.Path] = {}
    searches: dict[pathlib.Path, pathlib.Path] = {}
    called: dict[pathlib.Path, str | None] = {}
    notes: list[str] = []
    for given in folders:
        runs_there, searches_there, parts = _within(pathlib.Path(given))
        notes += parts
        places |= {path.resolve(): path for path in runs_there}
        called |= {path.resolve(): (labels or {}).get(given) for path in runs_there}
        searches |= {path.resolve(): path for path in searches_there}
    runs = []
    known: dict[tuple[frozenset[tuple[str, str]], str], pathlib.Path] = {}
    for place, path in places.items():
        run = dataclasses.replace(read_run(path), label=called[place])
        notes += run.notes
        if not run.metrics or not run.metrics[-1]["epoch"] > 0.0:
            notes.append(f"{path} is left out: it has no whole epoch in metrics.csv yet")
            continue
        other = known.setdefault((run.settings, run.seed), path)
        if other != path:
            notes.append(f"{path} is left out: it has the settings and the seed of {other}")
            continue
        runs.append(run)
        notes += _incomplete(run)
    notes += _lost_labels(runs)
    return Found(tuple(runs), tuple(searches.values()), tuple(notes))


def _incomplete(run: Run) -> Iterator[str]:
    """Says how a run that is drawn is not whole."""
    done, meant = run.metrics[-1]["epoch"], run.epochs_meant
    if done + 1.0 <= meant:
        yield f"{run.folder} is drawn as it is, after {done:g} of {meant:g} epochs"
    behind = [layer for layer in run.layers if not run.at_end(layer)]
    if behind:
        yield (
            f"{run.folder} has no row of {', '.join(behind)} after {done:g} epochs in layers.csv: "
            "what is shown of the end of training is without"
        )
    broken: dict[float, list[str]] = {}
    for column in ("loss", "val_loss", "val_top1"):
        lost = [
            row["epoch"]
            for row in run.metrics
            if row["epoch"] > 0.0 and not math.isfinite(row.get(column, 0.0))
        ]
        if lost:
            broken.setdefault(lost[0], []).append(column)
    for epoch, names in broken.items():
        yield (
            f"{run.folder} has numbers that are not finite from epoch {epoch:g} on as "
            f"{', '.join(names)}: they are in no line and no mean"
        )


def _lost_labels(runs: Sequence[Run]) -> Iterator[str]:
    """Says which of the user's labels are not used, as their runs belong together."""
    for group in grouped(runs):
        own = dict.fromkeys(run.label for run in group.runs)
        if len(own) > 1:
            given = ", ".join(label for label in own if label is not None)
            yield (
                f"{given}: not used, as {', '.join(str(run.folder) for run in group.runs)} differ "
                f"by their seed alone and are drawn together, as {group.label}"
            )


def _within(
    folder: pathlib.Path,
) -> tuple[list[pathlib.Path], list[pathlib.Path], list[str]]:
    """The runs and the searches in a folder, and what is said of parts of runs."""
    if not folder.is_dir():
        what = "a file" if folder.exists() else "there is no such folder"
        raise RunReadError(f"Expected a run directory. Received: {folder}, {what}")
    if is_run(folder):
        return [folder], [], []
    if is_search(folder):
        return [], [folder], []
    runs: list[pathlib.Path] = []
    parts: list[str] = []

    def not_read(error: OSError) -> None:
        parts.append(f"{error.filename} is left out: it cannot be read, {error.strerror}")

    found = list(files(folder, "search.json", "flags.cfg", "metrics.csv", not_read=not_read))
    searches = sorted(path.parent for path in found if path.name == "search.json")
    for place in sorted({path.parent for path in found} - {*searches}):
        if any(search in place.parents for search in searches):
            continue
        try:
            lost = [name for name in ("flags.cfg", "metrics.csv") if not (place / name).is_file()]
            complete = is_run(place) and "flags.cfg" not in lost
        except OSError as error:
            not_read(error)
            continue
        if complete:
            runs.append(place)
        elif lost:
            parts.append(f"{place} is left out: it has no {lost[0]}, which a run has")
    if not runs and not searches:
        raise RunReadError(
            "Expected a run directory (flags.cfg, metrics.csv), a search directory, or a folder "
            f"that holds some. Received: {folder}, which holds none{_listed(parts)}"
        )
    return runs, searches, parts


def _listed(parts: Sequence[str]) -> str:
    return f" ({'; '.join(parts[:3])}{'; ...' if len(parts) > 3 else ''})" if parts else ""


def files(
    folder: pathlib.Path, *names: str, not_read: Callable[[OSError], None] | None = None
) -> Iterator[pathlib.Path]:
    """The files of some names in a folder and in those below it, links to folders included.

    Args:
        folder: where to look.
        *names: of the files.
        not_read: called with the error of each folder that cannot be looked into.

    Yields:
        Their paths.
    """
    seen = set()
    for place, below, there in os.walk(folder, onerror=not_read, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link back
            below.clear()
            continue
        seen.add(real)
        yield from (pathlib.Path(place, name) for name in names if name in there)


def has_checkpoints(folder: str) -> bool:
    """Whether a folder holds a run with a checkpoint."""
    runs = (path.parent for path in files(pathlib.Path(folder), "flags.cfg"))
    return any(_CHECKPOINT.fullmatch(p.name) for run in runs for p in run.glob("checkpoints/*"))


def read_run(folder: pathlib.Path) -> Run:
    """Reads one run directory.

    Args:
        folder: of the run.

    Returns:
        The run; without rows where it has none yet.

    Raises:
        RunReadError: a file that is no table, or not there though others are.
    """
    path = folder / "flags.cfg"
    try:
        lines = record.read(path)
    except OSError as error:
        raise RunReadError(
            f"Expected the run's flags in {path}. Received: {one_line(error)}"
        ) from error
    lines = [line for line in lines if line and not line.startswith("#")]
    odd = [line for line in lines if " " in line.partition("=")[0]]
    if odd:
        raise RunReadError(f"Expected lines --FLAG=VALUE in {path}. Received: {odd[0]!r}")
    flags = record.named(record.complete(lines))
    # An empty text is a value, as of --layers_list= for no hidden layers.
    defaults = {n: plain(t) for n, t in flag_defaults().items() if t is not None}
    flags = {n: t for n, t in flags.items() if n == "train_epochs" or plain(t) != defaults.get(n)}
    of_run = ("epoch", "global_step", "val_top1", "loss")
    metrics, notes = tables.read(folder / "metrics.csv", of_run)
    top1 = [row["val_top1"] for row in metrics if math.isfinite(row["val_top1"])]
    if top1 and not 0.0 <= min(top1) <= max(top1) <= 1.0:
        raise RunReadError(
            f"Expected fractions from 0 to 1 as val_top1 in {folder / 'metrics.csv'}. Received: "
            f"{min(top1):g} to {max(top1):g}"
        )
    if not lines:
        notes.append(f"{path} has no flags: the run is taken for one of all defaults, {BACKPROP}")
    of_layers = ("epoch", "global_step", "layer", "weight_angle", "norm_ratio")
    rows, of_rows = tables.read(folder / "layers.csv", of_layers, layer="layer")
    layers: dict[str, list[Mapping[str, float]]] = {}
    for row in rows:
        layers.setdefault(row["layer"], []).append(row)
    return Run(folder, flags, metrics, layers, notes=tuple(notes + of_rows))


def grouped(runs: Iterable[Run], without: Iterable[str] = ()) -> list[Group]:
    """Puts runs together that differ by their seed alone.

    Args:
        runs: in any order.
        without: flags that may differ as well, such as the one that is swept.

    Returns:
        The groups, in the order of their first runs; each label is what the user calls its runs, or
        says how it differs from the others: its rule, and the flags that tell it from those of the
        same rule.
    """
    left_out = frozenset(without)
    found: dict[frozenset[tuple[str, str]], list[Run]] = {}
    for run in runs:
        key = frozenset((name, text) for name, text in run.settings if name not in left_out)
        found.setdefault(key, []).append(run)
    told = labels([{n: members[0].given[n] for n, _ in key} for key, members in found.items()])
    given = [{run.label for run in members} for members in found.values()]
    named = [
        next(iter(own)) if len(own) == 1 and None not in own and given.count(own) == 1 else by_flags
        for own, by_flags in zip(given, told, strict=True)
    ]
    return [
        Group(str(label), sorted(members, key=lambda run: run.number("seed", 0)))
        for label, members in zip(named, found.values(), strict=True)
    ]
