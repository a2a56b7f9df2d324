"""The flags of `neural-alignment search`, and the checks that need no search to be under way."""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from absl import flags

from neural_alignment import config
from neural_alignment.config.options import (
    ModuleText,
    PathText,
    Setting,
    UsageError,
    define_group,
    option,
    read_group,
    refuse,
    settings_of,
)
from neural_alignment.search import devices, space_file
from neural_alignment.search import plan as plans
from neural_alignment.search.objectives import OBJECTIVES
from neural_alignment.search.plan import Plan
from neural_alignment.search.space import (
    RESERVED,
    FlagValue,
    Space,
    SpaceError,
    flags_set,
    random_points,
)
from neural_alignment.search.store import Store
from neural_alignment.search.trial import command_line

ALGORITHMS = ("tpe", "random")
_MOST_STARTUP_TRIALS = 20
# Data sets that have no folder of their own to look in.
_NEED_DATA_DIR = ("image_folder", "imagenet")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """The settings of a search."""

    space: PathText | None = option(
        None,
        f"what to search: one of {', '.join(space_file.names())}, or a .toml or .json file of "
        "your own (docs/search.md)",
        main=True,
    )
    searchdir: PathText | None = option(
        None, "directory of the search; the same one goes on", main=True
    )
    trials: int = option(60, "trials in all, those of earlier starts included", low=1, main=True)
    seed: int = option(0, "seed of the search and of its trials", low=0, main=True)
    algorithm: str = option("tpe", "how to choose", ALGORITHMS, main=True)
    startup_trials: int | None = option(
        None,
        "trials drawn at random before TPE begins (default: a third of them, 20 at most; a search "
        "that goes on keeps its number)",
        low=1,
    )
    objective: str = option(
        "top1",
        "what to maximise: top-1 on validation, the alignment of W and B (1 - mean angle / 90°), "
        "or the mean of both",
        OBJECTIVES,
        main=True,
    )
    max_epochs: float | None = option(
        None,
        "stop each trial at this epoch of its schedule (default: the space's; 45 in the paper's)",
        above=0,
        main=True,
    )
    time_limit: float = option(0.0, "seconds a trial may take; 0 for no limit", low=0)
    parallel: int | None = option(
        None, "trials at a time (default: one a device)", low=1, main=True
    )
    devices: tuple[str, ...] = option((), "CUDA device ids, or cpu: one trial on each", main=True)
    tpu_names: tuple[str, ...] = option((), "TPU names: one trial on each")
    spark: str | None = option(
        None,
        "run the trials with hyperopt's SparkTrials on this Spark master, such as local[2]; "
        "--searchdir must be on a file system that all workers share",
        main=True,
    )
    train_flag: tuple[str, ...] = option(
        (),
        "name=value, a training flag that is the same in all trials, such as data_dir=/data; "
        "may be repeated",
        repeat=True,
        main=True,
    )
    modules: tuple[ModuleText, ...] = option(
        (),
        "module, or .py file, that registers a rule, a model, a data set or an optimizer, here and "
        "in the trials; may be repeated",
        flag="import",
        repeat=True,
    )
    train_script: PathText | None = option(
        None,
        "another training script: it takes the space's flags and --workdir, and writes "
        "metrics.csv there (default: `neural-alignment train`)",
    )
    preload: bool | None = option(
        None,
        "fork trials from a process that has imported TensorFlow (default: where no GPU or TPU is "
        "used)",
    )

    @property
    def at_a_time(self) -> int:
        """How many trials run at a time."""
        return self.parallel or max(1, len(self.tpu_names or self.devices))


def define_flags(flag_values: flags.FlagValues) -> None:
    """Declares the flags of a search.

    Args:
        flag_values: where to define them.
    """
    define_group(Search, flag_values)


def sections() -> Iterator[tuple[str, tuple[Setting, ...]]]:
    """The flags by section, for `--help`: titles and settings."""
    titles = {
        "What to search": (
            "space",
            "searchdir",
            "trials",
            "seed",
            "algorithm",
            "objective",
            "startup_trials",
        ),
        "Trials": ("max_epochs", "time_limit", "train_flag", "import", "train_script", "preload"),
        "Where trials run": ("parallel", "devices", "tpu_names", "spark"),
    }
    of = {setting.flag: setting for setting in settings_of(Search)}
    for title, names in titles.items():
        yield title, tuple(of[name] for name in names)


def read(fv: flags.FlagValues) -> Search:
    """The settings that flags say, each checked for itself.

    Args:
        fv: parsed flags.

    Returns:
        The settings.

    Raises:
        UsageError: names the flag that is wrong, and what it expects.
    """
    search = read_group(Search, fv)
    for name in ("space", "searchdir"):
        if not getattr(search, name):
            raise UsageError(f"--{name}: expected a value; it is required. Received: none")
    devices.check_names(search.devices)
    for text in search.train_flag:
        _check_assignment(text)
    if search.spark is not None and not _is_master(search.spark):
        refuse(
            "spark", "a Spark master: local[N], spark://HOST:PORT, yarn, k8s://...", search.spark
        )
    if search.train_script is not None and not Path(search.train_script).is_file():
        refuse("train_script", "a Python script; there is no such file", search.train_script)
    return search


def plan_from(search: Search) -> Plan:
    """The plan that the settings describe, checked.

    Args:
        search: the settings.

    Returns:
        The plan.

    Raises:
        UsageError: naming the flag that is wrong and what it expects.
    """
    if Path(search.searchdir).exists() and not Path(search.searchdir).is_dir():
        refuse("searchdir", "a directory, not a file", search.searchdir)
    if search.devices and search.tpu_names:
        raise UsageError("--devices: expected either --devices or --tpu_names. Received: both")
    if search.spark and (search.devices or search.tpu_names):
        raise UsageError(
            "--spark: expected no --devices and --tpu_names with it: Spark assigns the workers' "
            "resources. Received: one of them"
        )
    if search.spark and search.preload:
        raise UsageError(
            "--preload: expected --nopreload with --spark: its workers start the trials. "
            "Received: --preload"
        )
    _check_parallel(search)
    assignments = _assignments(search.train_flag, search.train_script is not None)
    if search.modules:
        assignments["import"] = ",".join(search.modules)
    try:
        space = space_file.load(search.space).with_flags(assignments)
        space_file.check(space, search.space)
    except SpaceError as error:
        raise UsageError(f"--space={search.space}: {error}") from error
    _check_max_epochs(search, space)
    for flag in ("strategy", "tpu_name") if search.tpu_names else ():
        if flag in set(space.flags) | flags_set(space.parameters):
            raise UsageError(
                f"--tpu_names: Expected a space and --train_flag without --{flag}, which it "
                "sets. Received both; leave one out."
            )
    return Plan(
        space=space,
        algorithm=search.algorithm,
        seed=search.seed,
        startup_trials=search.startup_trials or _startup_trials(search),
        max_epochs=search.max_epochs or space.max_epochs,
        objective=search.objective,
    )


def _startup_trials(search: Search) -> int:
    """Those that the search in the directory began with, or a third of all trials."""
    store = Store(Path(search.searchdir))
    if plans.exists(store):
        return plans.load(store).startup_trials
    return min(_MOST_STARTUP_TRIALS, -(-search.trials // 3))


def check_trials(plan: Plan, samples: int = 50, own_script: bool = False) -> None:
    """Checks that trials of a plan are valid command lines of the training script.

    Args:
        plan: The plan.
        samples: Points to draw.
        own_script: The script is the user's: what it takes besides epochs is not known.

    Raises:
        UsageError: one is not; with the reason.
    """
    for settings in random_points(plan.space, samples, plan.seed):
        try:
            training = plan.trial_flags(settings)
            if own_script:
                continue
            parsed = parse_training_flags(training)
        except ValueError as error:
            raise UsageError(
                f"--space={plan.space.name}: the training script refuses its settings: {error}"
            ) from error
        if plan.objective != "top1" and parsed.alignment in (None, "backprop"):
            raise UsageError(
                f"--objective={plan.objective}: expected a space whose trials have a rule, "
                "and so angles of W and B. Received: backpropagation"
            )
        if parsed.dataset in _NEED_DATA_DIR and parsed.data_dir is None:
            raise UsageError(
                f"--train_flag: Expected the folder of {parsed.dataset}. Received: none. "
                "Add --train_flag=data_dir=FOLDER."
            )


def parse_training_flags(training: Mapping[str, FlagValue]) -> flags.FlagValues:
    """Training flags as `neural-alignment train` would see them, checked.

    Raises:
        ValueError: naming the flag that is wrong.
    """
    fv = config.filled(["train.py", *command_line(training)])
    config.validate(fv)
    return fv


def _check_parallel(search: Search) -> None:
    """Refuses more trials at a time than devices: they would share one, and its memory."""
    if search.spark or search.at_a_time == 1 or (search.devices and set(search.devices) == {"cpu"}):
        return
    listed = search.tpu_names or search.devices
    if listed and search.parallel and search.parallel > len(listed):
        name = "tpu_names" if search.tpu_names else "devices"
        raise UsageError(
            f"--parallel={search.parallel}: Expected at most one trial for each of --{name}. "
            f"Received {len(listed)} of them ({','.join(listed)})."
        )
    if not listed and devices.has_gpu():
        raise UsageError(
            f"--parallel={search.parallel}: Expected --devices with it on a machine with GPUs: "
            "each trial would take all of them. Received none; give CUDA ids, or --devices=cpu."
        )


def _check_max_epochs(search: Search, space: Space) -> None:
    if search.max_epochs and search.max_epochs > space.schedule_epochs:
        raise UsageError(
            f"--max_epochs={search.max_epochs:g}: Expected at most the {space.schedule_epochs:g} "
            f"epochs of the schedule of {space.name}."
        )


def _check_assignment(text: str) -> None:
    name, equals, _ = text.partition("=")
    if not equals or not name.isidentifier():
        refuse("train_flag", "name=value", text)
    if name in RESERVED:
        expected = f"flags other than {', '.join(RESERVED)}: they are the search's"
        refuse("train_flag", expected, text)


def _is_master(text: str) -> bool:
    masters = r"local(\[(\*|\d+)(, ?\d+)?\])?|local-cluster\[.+\]|yarn|(spark|k8s|sc)://.+"
    return re.fullmatch(masters, text) is not None


def _assignments(values: Sequence[str], own_script: bool) -> dict[str, FlagValue]:
    """name=value texts as flags, each value of its training flag's type."""
    known = flags.FlagValues()
    if not own_script:
        config.define_flags(known)
    typed = {}
    for assignment in values:
        name, _, text = assignment.partition("=")
        try:
            typed[name] = _read_as(known[name], text) if name in known else _guess(text)
        except ValueError as error:
            raise UsageError(f"--train_flag={assignment}: --{name}: {error}") from error
    return typed


def _read_as(flag: flags.Flag, text: str) -> FlagValue:
    """The text as the flag's value, checked; several values stay as they are."""
    value = flag.parser.parse(text)
    return text if isinstance(value, list) else value


def _guess(text: str) -> FlagValue:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        # JSON has no NaN and no infinity.
        return value if math.isfinite(value) else text
    return text
