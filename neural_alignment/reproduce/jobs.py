"""The training jobs of a recipe: their flags, their run directories, and whether they are done."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

from neural_alignment import config
from neural_alignment.config import Settings, UsageError, by_epoch
from neural_alignment.config.flags import default_of, every_setting, flag_text, on_resume
from neural_alignment.config.options import ByEpochText
from neural_alignment.reproduce.recipe import FlagValue, Recipe, Series
from neural_alignment.runs.directory import check_flags
from neural_alignment.runs.table import METRICS, Table, has_ended

_LEAST_EPOCHS = 1e-6  # of a run, whatever its scale: no data set has so many steps
_SEED = re.compile(r"seed-(\d{1,4})")
# Flags that count epochs and move with the length of a run.
_EPOCHS = (
    *("max_epochs", "warmup_epochs", "alignment_warmup_epochs", "drops", "alignment_drops"),
    *("delay_epochs", "keep_epochs"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One run of a recipe.

    Args:
        series: its line or column.
        value: of the sweep's flag; None without.
        seed: of the run.
        flags: of the training command, without those that say where it is kept.
        workdir: its run directory.
    """

    series: str
    value: FlagValue | None
    seed: int
    flags: Mapping[str, FlagValue]
    workdir: pathlib.Path

    @property
    def name(self) -> str:
        """As "FA density=0.5 seed 0"."""
        return " ".join(self.workdir.parts[-2 if self.value is None else -3 :])

    def command_line(self) -> list[str]:
        """The flags as arguments, a preset first."""
        given = {**self.flags, "workdir": str(self.workdir)}
        ordered = sorted(given, key=lambda name: name != "preset")
        return [f"--{name}={flag_text(given[name])}" for name in ordered]

    def settings(self) -> Settings:
        """The settings of the run, checked.

        Raises:
            UsageError: flags that make no sense together.
        """
        return _settings(self.command_line())

    def is_done(self) -> bool:
        """Whether the run is there and has its last epoch.

        Raises:
            UsageError: flags that make no sense together.
            RunDirectoryError: the folder holds a run with other flags.
        """
        settings = self.settings()
        lines = config.flag_lines(settings)
        defaults = {"train_epochs": default_of("train_epochs")}
        check_flags(self.workdir, lines, on_resume(), defaults, settings.given)
        return self._has(min(settings.plan.train_epochs, settings.plan.max_epochs or math.inf))

    def _has(self, epochs: float) -> bool:
        path = self.workdir / "metrics.csv"
        rows = Table(path, METRICS).rows if path.exists() else []
        return bool(rows) and has_ended(rows[-1], epochs)


def jobs(
    recipe: Recipe,
    outdir: pathlib.Path,
    *,
    seeds: int | None = None,
    scale: float = 1.0,
    only: Sequence[str] = (),
    more: Mapping[str, FlagValue] | None = None,
) -> Iterator[Job]:
    """The runs of a recipe, seed by seed, so that a part of them is a whole figure.

    Args:
        recipe: whose.
        outdir: a folder for each recipe and scale is made there.
        seeds: how many; None is the recipe's number.
        scale: of the epochs, and of every schedule with them.
        only: labels of series; none is all of them.
        more: flags of every run, such as data_dir.

    Yields:
        Jobs.

    Raises:
        UsageError: a label that the recipe has not, or a schedule that cannot be scaled.
    """
    labels = [series.label for series in recipe.series]
    for label in only:
        if label not in labels:
            raise UsageError(f"--only: expected some of {', '.join(labels)}. Received: {label!r}")
    folder = folder_of(recipe, outdir, scale)
    for seed in range(recipe.seeds if seeds is None else seeds):
        for series in recipe.series:
            if only and series.label not in only:
                continue
            for value in _values(recipe, series):
                flags = {**recipe.flags, **series.flags}
                place = folder / series.label
                if value is not None:
                    text = flag_text(value)
                    flags |= {recipe.sweep.flag: value, **series.at.get(text, {})}
                    place = place / f"{recipe.sweep.flag}={text}"
                flags |= {"seed": seed, **(more or {})}
                workdir = place / f"seed-{seed}"
                yield Job(
                    series=series.label,
                    value=value,
                    seed=seed,
                    flags=flags if scale == 1.0 else scaled(flags, scale, workdir),
                    workdir=workdir,
                )


def folder_of(recipe: Recipe, outdir: pathlib.Path, scale: float) -> pathlib.Path:
    """Where the runs of a recipe and a scale are kept, its tables and its figures.

    Args:
        recipe: whose.
        outdir: of all recipes.
        scale: of the epochs.

    Returns:
        The folder.
    """
    return outdir / (recipe.name if scale == 1.0 else f"{recipe.name}-x{scale:g}")


def seeds_there(folder: pathlib.Path) -> int:
    """How many seeds the runs in a recipe's folder have: the greatest, and one.

    Args:
        folder: as `folder_of` has it.

    Returns:
        The number; 0 without runs.
    """
    runs = (path for runs in ("*/seed-*", "*/*/seed-*") for path in folder.glob(runs))
    numbers = (_SEED.fullmatch(run.name) for run in runs if run.is_dir())
    return max((int(number[1]) + 1 for number in numbers if number), default=0)


def _values(recipe: Recipe, series: Series) -> Sequence[FlagValue | None]:
    return (None,) if recipe.sweep is None or not series.swept else recipe.sweep.values


def scaled(
    flags: Mapping[str, FlagValue], factor: float, workdir: pathlib.Path
) -> dict[str, FlagValue]:
    """The flags of a run that is `factor` times as long, every schedule moved with its length.

    Args:
        flags: of the training command.
        factor: above 0.
        workdir: of the run; what was filled in when it began is not looked at.

    Returns:
        The flags, with those that count epochs changed.

    Raises:
        UsageError: the loss rates' own drops, whose epochs no flag says.
    """
    unscaled = workdir.with_name(f"{workdir.name}-unscaled")
    lines = Job(series="", value=None, seed=0, flags=flags, workdir=unscaled).command_line()
    settings = _settings(lines)
    if not settings.timing.constant_rate:
        raise UsageError("--constant_rate: expected true, to scale a run's length. Received: false")
    changed: dict[str, FlagValue] = {"train_epochs": _times(settings.plan.train_epochs, factor)}
    if changed["train_epochs"] < _LEAST_EPOCHS:
        raise UsageError(f"--scale: expected what leaves a run some length. Received: {factor:g}")
    in_force = set(settings.given)
    for prefix, rate in (("", settings.rate), ("alignment_", settings.alignment_rate)):
        if not rate.constant_lr and not rate.learning_rate_schedule:
            in_force |= {f"{prefix}warmup_epochs", f"{prefix}drops"}
            if rate.cosine_lr:
                in_force.discard(f"{prefix}drops")
    kinds = {setting.flag: setting.parser.kind for setting in every_setting()}
    for name in sorted(in_force):
        value = settings.values[name]
        if value is None:
            continue
        if name in _EPOCHS or name.endswith("_coef_cycle"):
            several = value if isinstance(value, list | tuple) else [value]
            changed[name] = ",".join(f"{_times(float(each), factor):.12g}" for each in several)
        elif name.endswith("_coef_schedule_rate"):
            changed[name] = value / factor
        elif kinds[name] is ByEpochText:
            changed[name] = by_epoch.scaled(value, factor)
    return {**flags, **changed}


def _times(epochs: float, factor: float) -> float:
    """Epochs of a longer or shorter run, to twelve digits: no step of a run is lost by fewer."""
    return float(f"{epochs * factor:.12g}")


def _settings(lines: Sequence[str]) -> Settings:
    return config.validate(config.filled(config.expand(["train", *lines])))
