"""The flags of a training job: made from the settings, read back into them."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import pathlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from neural_alignment import alignments
from neural_alignment.config import by_epoch, groups
from neural_alignment.config.options import (
    Parser,
    Setting,
    UsageError,
    define,
    define_group,
    option,
    read_group,
    settings_of,
)
from neural_alignment.runs.record import NONE

# Before a flag's name; the two learning rates have the same settings.
_GROUPS: tuple[tuple[str, type, str], ...] = (
    ("run", groups.Run, ""),
    ("plan", groups.Plan, ""),
    ("data", groups.Data, ""),
    ("model", groups.Model, ""),
    ("optimizers", groups.Optimizers, ""),
    ("rate", groups.LearningRate, ""),
    ("alignment_rate", groups.AlignmentLearningRate, "alignment_"),
    ("timing", groups.Timing, ""),
    ("devices", groups.Devices, ""),
)
DATA_FLAGS = tuple(s.flag for s in settings_of(groups.Data) if s.flag != "dataset")
MODEL_FLAGS = tuple(s.flag for s in settings_of(groups.Model) if s.flag != "model")
BIAS_OPTIONS = ("use_bias_forward", "use_bias_backward")
# What flags.cfg says of every run.
_ALWAYS = (
    "dataset", "model", "seed", "train_epochs", "train_batch_size", "optimizer", "learning_rate",
)  # fmt: skip
_MAIN_RULE_FLAGS = ("decay_coef", "sparse_coef", "null_coef", "self_coef", "amp_coef")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """The learning rule.

    Args:
        name: of the rule; "backprop" is none.
        options: those of its options that were given.
        schedules: coefficient to its schedule, those of every rule.
    """

    name: str
    options: Mapping[str, Any]
    schedules: Mapping[str, groups.CoefficientSchedule]

    def make(self, **more: Any) -> alignments.Alignment | None:
        """The rule, its coefficients as numbers; None is backpropagation.

        Of a coefficient by epoch it has the value farthest from 0. It is not warned of settings
        that cannot align: schedules may be to come.

        Args:
            **more: options that have another default here.
        """
        if self.name == "backprop":
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", alignments.AlignmentWarning)
            return alignments.rule(self.name)(**{**more, **self.options, **self._by_epoch()})

    def _by_epoch(self) -> dict[str, float]:
        """Of every coefficient that is given by epoch, the value that is farthest from 0."""
        return {
            name: max(by_epoch.steps(schedule.schedule)[1], key=abs)
            for name, schedule in self.schedules.items()
            if schedule.schedule is not None
        }

    def options_in_force(self) -> dict[str, Any]:
        """Every option that has an effect, those of the class among them, as a flag's value."""
        made = self.make(**self.biases())
        if made is None:
            return {}
        values = made.get_config()
        if values.get("input_distribution") is None:
            values.pop("input_stddev", None)
        if values.get("activation_fn_override") is None:
            values.pop("activation_fn_override", None)
        return {name: value for name, value in values.items() if name not in self._by_epoch()}

    def biases(self) -> dict[str, bool]:
        """The options that are on here unless they are switched off, as the original has them."""
        if self.name == "backprop":
            return {}
        known = alignments.rule(self.name).option_names()
        return {bias: True for bias in BIAS_OPTIONS if bias in known}

    @functools.cached_property
    def has_loss(self) -> bool:
        """Whether it has a layer-wise loss, and a coefficient of it is ever other than 0."""
        made = self.make()
        # Of the schedules only a linear one grows from 0.
        return made is not None and (
            made.has_loss
            or any(
                schedule.schedule_type == "linear" and name in made.option_names()
                for name, schedule in self.schedules.items()
            )
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """All that a job is made from.

    Args:
        given: the flags that are not at their defaults, in order, and their values.
        values: every flag's value.
    """

    run: groups.Run
    plan: groups.Plan
    data: groups.Data
    model: groups.Model
    rule: Rule
    optimizers: groups.Optimizers
    rate: groups.LearningRate
    alignment_rate: groups.AlignmentLearningRate
    timing: groups.Timing
    devices: groups.Devices
    given: Mapping[str, Any]
    values: Mapping[str, Any]

    @property
    def filled(self) -> tuple[str, ...]:
        """The flags that were not given, and hold by data set, model and rule."""
        return tuple(name for name in self.run.defaults or () if name != NONE)

    def compiled(self, choice: str) -> Settings:
        """These settings with `--jit_compile` as it was decided.

        Args:
            choice: "true" or "false".

        Returns:
            Settings.
        """
        decided = {"jit_compile": choice}
        return dataclasses.replace(
            self,
            devices=dataclasses.replace(self.devices, **decided),
            given={**self.given, **decided},
            values={**self.values, **decided},
        )


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines every flag of a training job.

    Args:
        flag_values: where to define them.
    """
    for _, group, prefix in _GROUPS:
        define_group(group, flag_values, prefix)
    for setting in _rule_settings():
        define(setting.flag, setting.parser, setting.default, setting.help, flag_values)


def parsed(argv: Sequence[str]) -> flags.FlagValues:
    """The flags of a training job's command line.

    Args:
        argv: the command line, the program's name first; presets and flagfiles expanded.

    Returns:
        Parsed flags.

    Raises:
        UsageError: an unknown flag, or a value that it does not take.
    """
    fv = flags.FlagValues()
    define_flags(fv)
    try:
        fv(list(argv))
    except flags.Error as error:
        raise UsageError(str(error)) from error
    return fv


def read(fv: flags.FlagValues) -> Settings:
    """The settings that flags say; combinations are not checked.

    Args:
        fv: parsed flags.

    Returns:
        The settings.
    """
    names = [setting.flag for setting in every_setting()]
    options = {name: fv[name].value for name in groups.rule_options()}
    given = {name: value for name, value in options.items() if value is not None}
    return Settings(
        **{name: read_group(group, fv, prefix) for name, group, prefix in _GROUPS},
        rule=Rule(
            name=fv["alignment"].value or "backprop",
            options={name: None if value == NONE else value for name, value in given.items()},
            schedules={
                name: read_group(groups.CoefficientSchedule, fv, f"{name}_")
                for name in groups.coefficient_names()
            },
        ),
        given={name: fv[name].value for name in names if fv[name].value != fv[name].default},
        values={name: fv[name].value for name in names},
    )


def flag_lines(settings: Settings) -> dict[str, str]:
    """All that a job depends on, as lines of a flagfile.

    That is what was given or filled in, what every run has, and the rule's options: defaults may
    be others in another version.

    Args:
        settings: of the job.

    Returns:
        Flag name to line.
    """
    values = {name: settings.values[name] for name in _ALWAYS}
    values |= {"alignment": settings.rule.name, "defaults": [NONE]}
    values |= settings.rule.options_in_force() | settings.given
    values |= {name: settings.values[name] for name in settings.filled}
    return {name: f"--{name}={flag_text(value)}" for name, value in values.items()}


def flag_text(value: Any) -> str:
    """A flag's value as the command line takes it."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    if value is None:
        return NONE
    return str(value).lower() if isinstance(value, bool) else str(value)


@functools.cache
@functools.cache
def flag_defaults() -> Mapping[str, str | None]:
    """Every flag's default as the command line takes it; None where it has none."""
    return {s.flag: None if s.default is None else flag_text(s.default) for s in every_setting()}


def rule_defaults(rule: str) -> dict[str, str]:
    """The options of a rule at their defaults.

    Args:
        rule: its name.

    Returns:
        Flag to text; nothing of backpropagation, or of a rule that `--import` registers.
    """
    if rule not in alignments.names():
        return {}
    options = Rule(name=rule, options={}, schedules={}).options_in_force()
    return {name: flag_text(value) for name, value in options.items()}


def run_folder(workdir: str | None, dataset: str, model: str, rule: str, seed: int) -> pathlib.Path:
    """Where a run is kept.

    Args:
        workdir: as given, or None.
        dataset: its name.
        model: its name.
        rule: its name, or "backprop".
        seed: of the run.

    Returns:
        The folder.
    """
    if workdir is not None:
        return pathlib.Path(workdir)
    return pathlib.Path("runs") / f"{dataset}-{model}-{rule}-{seed}"


def sections() -> Iterator[tuple[str, tuple[Setting, ...]]]:
    """The flags by section, for `--help`: titles and settings."""
    titles = {
        "run": "Run",
        "plan": "Training",
        "data": "Data",
        "model": "Network",
        "optimizers": "Optimizers",
        "rate": "Learning rate of the loss",
        "alignment_rate": "Learning rate of the alignment loss",
        "timing": "Timing of the two losses",
        "devices": "Devices",
    }
    for name, group, prefix in _GROUPS:
        yield titles[name], settings_of(group, prefix)
        if name == "model":
            yield "Learning rule", _rule_settings()


def every_setting() -> Iterator[Setting]:
    """The settings of all sections, in order."""
    return itertools.chain.from_iterable(settings for _, settings in sections())


def on_resume() -> dict[str, str]:
    """What a resumed run may do with a flag: "same", "more" or "any"; by flag."""
    return {s.flag: s.field.metadata.get("on_resume", "same") for s in every_setting()}


def default_of(flag: str) -> Any:
    """A flag's default.

    Args:
        flag: its name.
    """
    return next(setting.default for setting in every_setting() if setting.flag == flag)


def _rule_settings() -> tuple[Setting, ...]:
    """The rule's flags: its name, every option of every rule, and the coefficients' schedules."""
    found = [_setting("alignment", str, "learning rule", _rules, main=True)]
    for option_name, field in groups.rule_options().items():
        default = "the rule's"
        if option_name in BIAS_OPTIONS:
            default = "here yes"
        found.append(
            _setting(
                option_name,
                _kind(option_name, field),
                f"{field.metadata['help']} (default: {default})",
                _choices(field),
                main=option_name in _MAIN_RULE_FLAGS,
            )
        )
        if option_name.endswith("_coef"):
            found += _schedule_settings(option_name)
    return tuple(found)


def _choices(field: dataclasses.Field) -> tuple[str, ...]:
    choices = field.metadata["choices"] or ()
    return (*choices, NONE) if choices and field.metadata["optional"] else choices


def _rules() -> tuple[str, ...]:
    return ("backprop", *alignments.names())


def _schedule_settings(coefficient: str) -> Iterator[Setting]:
    for setting in settings_of(groups.CoefficientSchedule, f"{coefficient}_"):
        metadata = dict(setting.field.metadata)
        metadata["help"] = f"{coefficient}: {metadata['help']}"
        yield _made(setting.flag, setting.parser.kind, metadata)


def _kind(name: str, field: dataclasses.Field) -> Any:
    if name.endswith("_coef") or type(field.default) is float:
        return float
    return bool if isinstance(field.default, bool) else str


def _setting(
    flag: str, kind: Any, help_text: str, choices: Any = (), main: bool = False
) -> Setting:
    return _made(flag, kind, option(None, help_text, choices or (), main=main).metadata)


def _made(flag: str, kind: Any, metadata: Mapping[str, Any]) -> Setting:
    field = dataclasses.field(default=metadata["by_flag"], metadata=metadata)
    field.name = flag
    return Setting(field, flag, Parser(kind, False, metadata))
