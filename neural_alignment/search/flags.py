"""The flags of scripts/search.py, and the checks that need no search to be under way."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

from neural_alignment.search import devices, space_file
from neural_alignment.search.plan import Plan
from neural_alignment.search.space import (
    RESERVED,
    FlagValue,
    Space,
    SpaceError,
    flags_set,
    random_points,
)
from neural_alignment.search.trial import command_line
from neural_alignment.training import flags as train_flags

ALGORITHMS = ("tpe", "random")
# Data sets that have no folder of their own to look in.
_NEED_DATA_DIR = ("imagenet",)


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Declares the flags of a search."""
    fv = flag_values
    flags.DEFINE_string(
        "space",
        None,
        f"What to search: one of {', '.join(space_file.names())}, or a .toml or .json file of "
        "your own (docs/search.md).",
        flag_values=fv,
    )
    flags.DEFINE_string(
        "searchdir", None, "Directory of the search; the same one goes on.", flag_values=fv
    )
    flags.DEFINE_integer(
        "trials", 60, "Trials in all, those of earlier starts included.", 1, flag_values=fv
    )
    flags.DEFINE_integer("seed", 0, "Seed of the search and of its trials.", 0, flag_values=fv)
    flags.DEFINE_enum("algorithm", "tpe", ALGORITHMS, "How to choose.", flag_values=fv)
    flags.DEFINE_integer(
        "startup_trials", 20, "Trials drawn at random before TPE begins.", 1, flag_values=fv
    )
    flags.DEFINE_float(
        "max_epochs",
        None,
        "Stop each trial at this epoch of its schedule (default: the space's; 45 in the paper's).",
        flag_values=fv,
    )
    flags.DEFINE_float(
        "time_limit", 0.0, "Seconds a trial may take; 0 for no limit.", 0.0, flag_values=fv
    )
    flags.DEFINE_integer(
        "parallel", None, "Trials at a time (default: one a device).", 1, flag_values=fv
    )
    flags.DEFINE_list("devices", [], "CUDA device ids, or cpu: one trial on each.", flag_values=fv)
    flags.DEFINE_list("tpu_names", [], "TPU names: one trial on each.", flag_values=fv)
    flags.DEFINE_string(
        "spark",
        None,
        "Run the trials with hyperopt's SparkTrials on this Spark master, such as local[2]; "
        "--searchdir must be on a file system that all workers share.",
        flag_values=fv,
    )
    flags.DEFINE_multi_string(
        "train_flag",
        [],
        "name=value, a training flag that is the same in all trials, such as data_dir=/data; "
        "may be repeated.",
        flag_values=fv,
    )
    flags.DEFINE_string(
        "train_script",
        None,
        "Another training script: it takes the space's flags and --workdir, and writes "
        "metrics.csv there (default: train.py beside this script).",
        flag_values=fv,
    )
    flags.DEFINE_boolean(
        "preload",
        None,
        "Fork trials from a process that has imported TensorFlow (default: where no GPU or TPU "
        "is used).",
        flag_values=fv,
    )
    flags.register_validator("max_epochs", _positive, "Expected more than 0.", flag_values=fv)
    flags.register_validator("devices", _devices_ok, flag_values=fv)
    flags.register_validator("train_flag", _assignments_ok, flag_values=fv)
    flags.register_validator("spark", _master_ok, flag_values=fv)
    flags.register_validator("train_script", _script_ok, flag_values=fv)


def plan_from(flag_values: flags.FlagValues) -> Plan:
    """The plan that the flags describe, checked.

    Raises:
        flags.Error: naming the flag that is wrong and what it expects.
    """
    fv = flag_values
    for name in ("space", "searchdir"):
        if not fv[name].value:
            raise flags.IllegalFlagValueError(f"flag --{name}=: Expected a value; it is required.")
    if Path(fv.searchdir).exists() and not Path(fv.searchdir).is_dir():
        raise flags.IllegalFlagValueError(
            f"flag --searchdir={fv.searchdir}: Expected a directory. Received a file."
        )
    if fv.devices and fv.tpu_names:
        raise flags.IllegalFlagValueError(
            "flag --devices: Expected either --devices or --tpu_names. Received both."
        )
    if fv.spark and (fv.devices or fv.tpu_names):
        raise flags.IllegalFlagValueError(
            "flag --spark: Expected no --devices and --tpu_names with it: Spark assigns the "
            "workers' resources."
        )
    if fv.spark and fv.preload:
        raise flags.IllegalFlagValueError(
            "flag --preload: Expected --nopreload with --spark: its workers start the trials."
        )
    _check_parallel(fv)
    assignments = _assignments(fv.train_flag, fv.train_script is not None)
    try:
        space = space_file.load(fv.space).with_flags(assignments)
        space_file.check(space, fv.space)
    except SpaceError as error:
        raise flags.IllegalFlagValueError(f"flag --space={fv.space}: {error}") from error
    _check_max_epochs(fv, space)
    for flag in ("strategy", "tpu_name") if fv.tpu_names else ():
        if flag in set(space.flags) | flags_set(space.parameters):
            raise flags.IllegalFlagValueError(
                f"flag --tpu_names: Expected a space and --train_flag without --{flag}, which it "
                "sets. Received both; leave one out."
            )
    return Plan(
        space=space,
        algorithm=fv.algorithm,
        seed=fv.seed,
        startup_trials=fv.startup_trials,
        max_epochs=fv.max_epochs or space.max_epochs,
    )


def check_trials(plan: Plan, samples: int = 50, own_script: bool = False) -> None:
    """Checks that trials of a plan are valid command lines of the training script.

    Args:
        plan: The plan.
        samples: Points to draw.
        own_script: The script is the user's: what it takes besides epochs is not known.

    Raises:
        flags.Error: one is not; with the reason.
    """
    for settings in random_points(plan.space, samples, plan.seed):
        try:
            training = plan.trial_flags(settings)
            if own_script:
                continue
            parsed = parse_training_flags(training)
        except ValueError as error:
            raise flags.IllegalFlagValueError(
                f"flag --space={plan.space.name}: the training script refuses its settings: {error}"
            ) from error
        if parsed.dataset in _NEED_DATA_DIR and parsed.data_dir is None:
            raise flags.IllegalFlagValueError(
                f"flag --train_flag: Expected the folder of {parsed.dataset}. Received: none. "
                "Add --train_flag=data_dir=FOLDER."
            )


def parse_training_flags(training: Mapping[str, FlagValue]) -> flags.FlagValues:
    """Training flags as scripts/train.py would see them, checked.

    Raises:
        ValueError: naming the flag that is wrong.
    """
    fv = flags.FlagValues()
    train_flags.define_flags(fv)
    try:
        fv(["train.py", *command_line(training)])
    except flags.Error as error:
        raise ValueError(str(error)) from error
    train_flags.validate(fv)
    return fv


def parallel(flag_values: flags.FlagValues) -> int:
    """How many trials run at a time."""
    fv = flag_values
    return fv.parallel or max(1, len(fv.tpu_names or fv.devices))


def _check_parallel(fv: flags.FlagValues) -> None:
    """Refuses more trials at a time than devices: they would share one, and its memory."""
    if fv.spark or parallel(fv) == 1 or (fv.devices and set(fv.devices) == {"cpu"}):
        return
    listed = fv.tpu_names or fv.devices
    if listed and fv.parallel and fv.parallel > len(listed):
        name = "tpu_names" if fv.tpu_names else "devices"
        raise flags.IllegalFlagValueError(
            f"flag --parallel={fv.parallel}: Expected at most one trial for each of --{name}. "
            f"Received {len(listed)} of them ({','.join(listed)})."
        )
    if not listed and devices.has_gpu():
        raise flags.IllegalFlagValueError(
            f"flag --parallel={fv.parallel}: Expected --devices with it on a machine with GPUs: "
            "each trial would take all of them. Received none; give CUDA ids, or --devices=cpu."
        )


def _check_max_epochs(fv: flags.FlagValues, space: Space) -> None:
    if fv.max_epochs and fv.max_epochs > space.schedule_epochs:
        raise flags.IllegalFlagValueError(
            f"flag --max_epochs={fv.max_epochs:g}: Expected at most the {space.schedule_epochs:g} "
            f"epochs of the schedule of {space.name}."
        )


def _positive(value: float | None) -> bool:
    return value is None or value > 0


def _devices_ok(value: Sequence[str]) -> bool:
    for name in value:
        if name != "cpu" and not name.isdigit():
            raise flags.ValidationError(f"Expected CUDA device ids, or cpu. Received {name!r}.")
    return True


def _assignments_ok(value: Sequence[str]) -> bool:
    for text in value:
        name, equals, _ = text.partition("=")
        if not equals or not name.isidentifier():
            raise flags.ValidationError(f"Expected name=value. Received {text!r}.")
        if name in RESERVED:
            raise flags.ValidationError(
                f"Expected flags other than {', '.join(RESERVED)}: they are the search's. "
                f"Received {text!r}."
            )
    return True


def _master_ok(value: str | None) -> bool:
    if value is not None and not re.fullmatch(
        r"local(\[(\*|\d+)(, ?\d+)?\])?|local-cluster\[.+\]|yarn|(spark|k8s|sc)://.+", value
    ):
        raise flags.ValidationError(
            f"Expected a Spark master: local[N], spark://HOST:PORT, yarn, k8s://... "
            f"Received {value!r}."
        )
    return True


def _script_ok(value: str | None) -> bool:
    if value is not None and not Path(value).is_file():
        raise flags.ValidationError(f"Expected a Python script. There is no file {value!r}.")
    return True


def _assignments(values: Sequence[str], own_script: bool) -> dict[str, FlagValue]:
    """name=value texts as flags, each value of its training flag's type."""
    known = flags.FlagValues()
    if not own_script:
        train_flags.define_flags(known)
    typed = {}
    for assignment in values:
        name, _, text = assignment.partition("=")
        try:
            typed[name] = _read_as(known[name], text) if name in known else _guess(text)
        except ValueError as error:
            raise flags.IllegalFlagValueError(
                f"flag --train_flag={assignment}: Expected a value that --{name} takes. "
                f"Received {text!r}: {error}."
            ) from error
    return typed


def _read_as(flag: flags.Flag, text: str) -> FlagValue:
    """The text as a number or a boolean, if the flag is one; lists and names stay as they are."""
    return flag.parser.parse(text) if flag.flag_type() in ("bool", "int", "float") else text


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
