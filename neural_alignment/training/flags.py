"""The flags of a training job: their definitions, and the checks before TensorFlow is imported."""

from __future__ import annotations

import dataclasses
import itertools
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from absl import flags

from neural_alignment import alignments, data, models, optimizers

PRESETS = pathlib.Path(__file__).parent.parent / "presets"
SCHEDULE_SUFFIXES = ("start", "stop", "cycle", "schedule_rate", "schedule_type")
TRAIN_EPOCHS = 90.0
STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker", "tpu")


class UsageError(ValueError):
    """A flag, or a combination of flags, that makes no sense."""


def rule_options() -> dict[str, dataclasses.Field]:
    """Every option of every rule by name; rules that share a name share its meaning."""
    fields: dict[str, dataclasses.Field] = {}
    for name in alignments.names():
        for field in dataclasses.fields(alignments.rule(name)):
            fields.setdefault(field.name, field)
    return fields


def coefficient_names() -> tuple[str, ...]:
    """The coefficients of all rules, sorted."""
    return tuple(sorted(name for name in rule_options() if name.endswith("_coef")))


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines every flag of a training job.

    Args:
        flag_values: where to define them.
    """
    _define_job(flag_values)
    _define_data_and_model(flag_values)
    _define_rule(flag_values)
    _define_optimizers(flag_values)
    _define_timing(flag_values)
    _define_devices(flag_values)


def _define_job(fv: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "workdir",
        None,
        "run directory: flags, metrics, events, checkpoints; the same command again resumes it "
        "(default: runs/DATASET-MODEL-ALIGNMENT-SEED)",
        flag_values=fv,
    )
    flags.DEFINE_string(
        "preset",
        None,
        f"published setting to start from, one of: {', '.join(preset_names())}; flags after it win",
        flag_values=fv,
    )
    flags.DEFINE_integer("seed", 0, "seed of everything random", 0, 2**31 - 1, flag_values=fv)
    flags.DEFINE_float(
        "train_epochs", TRAIN_EPOCHS, "epochs to train, and to schedule for", flag_values=fv
    )
    flags.DEFINE_float(
        "max_epochs",
        None,
        "stop after so many of the train_epochs; schedules stay as they are",
        flag_values=fv,
    )
    flags.DEFINE_integer("train_batch_size", 256, "global batch size", 1, flag_values=fv)
    flags.DEFINE_integer("eval_batch_size", 1024, "global batch of validation", 1, flag_values=fv)
    flags.DEFINE_integer(
        "minibatch_size",
        None,
        "split each batch in micro-batches of so many examples; gradients are averaged",
        1,
        flag_values=fv,
    )
    flags.DEFINE_float(
        "epochs_per_checkpoint", 1.0, "epochs between two checkpoints", flag_values=fv
    )
    flags.DEFINE_integer("checkpoint_max", 5, "checkpoints kept", 1, flag_values=fv)
    flags.DEFINE_boolean("validate_first", False, "validate before the first step", flag_values=fv)
    flags.DEFINE_string(
        "load_checkpoint",
        None,
        "start from the weights of another run: a checkpoint, or a run directory (its newest)",
        flag_values=fv,
    )
    flags.DEFINE_integer(
        "load_step", None, "step of the checkpoint to load from a run directory", 0, flag_values=fv
    )


def _define_data_and_model(fv: flags.FlagValues) -> None:
    flags.DEFINE_string("dataset", "digits", ", ".join(data.names()), flag_values=fv)
    flags.DEFINE_string("data_dir", None, "folder (or gs:// path) of the data", flag_values=fv)
    flags.DEFINE_boolean("download", None, "fetch the data if it is not there", flag_values=fv)
    flags.DEFINE_integer("image_size", None, "pixels a side to resize to", 1, flag_values=fv)
    flags.DEFINE_enum(
        "preprocessing", None, ("resnet", "inception"), "of ImageNet's images", flag_values=fv
    )
    flags.DEFINE_boolean("augment", None, "crop and flip CIFAR's training images", flag_values=fv)
    flags.DEFINE_integer(
        "max_bad_records",
        None,
        "corrupt images that each process may leave out before it is an error",
        0,
        flag_values=fv,
    )
    flags.DEFINE_integer(
        "shuffle_buffer", None, "images of ImageNet that are shuffled at a time", 1, flag_values=fv
    )
    flags.DEFINE_enum(
        "shard_by", None, ("record", "file"), "what workers divide among them", flag_values=fv
    )
    flags.DEFINE_integer("num_classes", None, "of the TFRecords", 2, flag_values=fv)
    flags.DEFINE_integer("num_train", None, "training images there should be", 1, flag_values=fv)
    flags.DEFINE_integer(
        "num_validation", None, "validation images there should be", 1, flag_values=fv
    )
    flags.DEFINE_string("model", "fc", ", ".join(models.names()), flag_values=fv)
    for flag, help_text in (
        ("layers_list", "units of fc's hidden layers"),
        ("filters_list", "filters of conv's convolutions"),
        ("kernels_list", "windows of conv's convolutions"),
    ):
        flags.DEFINE_list(flag, None, f"{help_text}, comma-separated", flag_values=fv)
    flags.DEFINE_string(
        "activation", None, "activation of hidden layers (default: the model's)", flag_values=fv
    )
    flags.DEFINE_float(
        "l2",
        None,
        "lambda of lambda/2 |W|^2 on forward kernels (default: the model's)",
        flag_values=fv,
    )
    flags.DEFINE_boolean("bn_trainable", None, "train BatchNorm and its statistics", flag_values=fv)
    flags.DEFINE_boolean("bn_after_relu", None, "BatchNorm after ReLU", flag_values=fv)
    flags.DEFINE_boolean(
        "unbiased_variance", None, "feed BatchNorm's moving variance with n/(n-1)", flag_values=fv
    )
    flags.DEFINE_enum(
        "shortcut", None, ("identity", "projection"), "of ResNets for 32 pixels", flag_values=fv
    )


DATA_FLAGS = (
    "data_dir", "download", "image_size", "preprocessing", "augment", "max_bad_records",
    "shuffle_buffer", "shard_by", "num_classes", "num_train", "num_validation",
)  # fmt: skip
_ORIGIN = ("--load_checkpoint=", "--load_step=")
LIST_FLAGS = ("layers_list", "filters_list", "kernels_list")
MODEL_FLAGS = (
    *LIST_FLAGS, "activation", "l2", "bn_trainable", "bn_after_relu", "unbiased_variance",
    "shortcut",
)  # fmt: skip


def _define_rule(fv: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "alignment",
        None,
        f"learning rule: backprop, {', '.join(alignments.names())}",
        flag_values=fv,
    )
    for name, field in rule_options().items():
        help_text = f"{field.metadata['help']} (default: the rule's)"
        if name in ("use_bias_forward", "use_bias_backward"):
            help_text = f"{field.metadata['help']} (default here: yes)"
        if name.endswith("_coef"):
            flags.DEFINE_float(name, None, help_text, flag_values=fv)
            _define_schedule(name, fv)
        elif isinstance(field.default, bool):
            flags.DEFINE_boolean(name, None, help_text, flag_values=fv)
        elif isinstance(field.default, float):
            flags.DEFINE_float(name, None, help_text, flag_values=fv)
        elif field.metadata["choices"]:
            flags.DEFINE_enum(name, None, field.metadata["choices"], help_text, flag_values=fv)
        else:
            flags.DEFINE_string(name, None, help_text, flag_values=fv)


def _define_schedule(name: str, fv: flags.FlagValues) -> None:
    flags.DEFINE_float(
        f"{name}_start", 0.0, f"{name} is 0 before this fraction of training", flag_values=fv
    )
    flags.DEFINE_float(
        f"{name}_stop", 1.0, f"{name} is 0 after this fraction of training", flag_values=fv
    )
    flags.DEFINE_float(
        f"{name}_cycle", None, f"epochs of {name}'s triangular cycle", flag_values=fv
    )
    flags.DEFINE_float(f"{name}_schedule_rate", 0.0, f"growth of {name} an epoch", flag_values=fv)
    flags.DEFINE_enum(
        f"{name}_schedule_type",
        None,
        ("linear", "exponential"),
        f"growth of {name}",
        flag_values=fv,
    )


def _define_optimizers(fv: flags.FlagValues) -> None:
    known = optimizers.names()
    flags.DEFINE_enum("optimizer", "momentum", known, "minimises the loss", flag_values=fv)
    flags.DEFINE_enum(
        "alignment_optimizer",
        None,
        known,
        "minimises the alignment loss; without it `optimizer` minimises the total",
        flag_values=fv,
    )
    for prefix, of in (("", "the loss"), ("alignment_", "the alignment loss")):
        flags.DEFINE_float(
            f"{prefix}learning_rate",
            0.02 if not prefix else 0.001,
            f"learning rate for {of}",
            flag_values=fv,
        )
        flags.DEFINE_boolean(
            f"{prefix}rescale_lr", False, "multiply it by batch / base_batch_size", flag_values=fv
        )
        flags.DEFINE_boolean(
            f"{prefix}constant_lr", True, "no warm-up and no drops", flag_values=fv
        )
        flags.DEFINE_float(
            f"{prefix}warmup_epochs", 5.0, f"epochs of linear warm-up for {of}", flag_values=fv
        )
        flags.DEFINE_list(
            f"{prefix}drops",
            ["30", "60", "80"] if not prefix else None,
            f"epochs at which the rate for {of} is divided by 10"
            + (" (default: as drops)" if prefix else ""),
            flag_values=fv,
        )
        flags.DEFINE_boolean(
            f"{prefix}manual_lr", False, "one drop, `drop`, after `boundary_step`", flag_values=fv
        )
        flags.DEFINE_integer(
            f"{prefix}drop",
            0,
            "number of the drop before the boundary step: rate x 0.1^drop",
            0,
            flag_values=fv,
        )
        flags.DEFINE_integer(
            f"{prefix}boundary_step",
            None,
            "last step before the rate drops once more",
            0,
            flag_values=fv,
        )
    flags.DEFINE_integer("base_batch_size", 256, "that learning rates are for", 1, flag_values=fv)
    flags.DEFINE_boolean("grad_clip", False, "clip gradients", flag_values=fv)
    flags.DEFINE_float("grad_clipping_value", 1.0, "bound of clipping", flag_values=fv)
    flags.DEFINE_enum(
        "grad_clipping_method",
        "norm",
        ("value", "norm"),
        "each value, or the global norm",
        flag_values=fv,
    )
    for which, of in (("global", "the loss"), ("alignment", "the alignment loss")):
        flags.DEFINE_boolean(
            f"use_noisy_{which}_opt", False, f"noisy updates of {of}'s optimizer", flag_values=fv
        )
        flags.DEFINE_enum(
            f"noisy_{which}_opt_distribution",
            None,
            ("normal", "uniform"),
            "of its noise (default: noisy_opt_distribution)",
            flag_values=fv,
        )
        flags.DEFINE_float(
            f"noisy_{which}_opt_variance",
            None,
            "of its noise (default: noisy_opt_variance)",
            flag_values=fv,
        )
    flags.DEFINE_enum(
        "noisy_opt_distribution",
        "normal",
        ("normal", "uniform"),
        "of the noise of updates",
        flag_values=fv,
    )
    flags.DEFINE_float("noisy_opt_variance", 1.0, "of the noise, times the rate", flag_values=fv)


def _define_timing(fv: flags.FlagValues) -> None:
    flags.DEFINE_float("loss_rate", 1.0, "factor of the loss", flag_values=fv)
    flags.DEFINE_float("alignment_rate", 1.0, "factor of the alignment loss", flag_values=fv)
    flags.DEFINE_float(
        "delay_epochs", None, "epochs at the start with the alignment loss alone", flag_values=fv
    )
    flags.DEFINE_integer(
        "alternate_step_freq", None, "loss steps after each alignment step", 1, flag_values=fv
    )
    flags.DEFINE_boolean(
        "constant_rate",
        True,
        "loss_rate and alignment_rate stay; else x0.1 at 30, 60, 80",
        flag_values=fv,
    )


def _define_devices(fv: flags.FlagValues) -> None:
    flags.DEFINE_enum("strategy", "auto", STRATEGIES, "devices to train on", flag_values=fv)
    flags.DEFINE_integer(
        "logical_cpus",
        None,
        "split the CPU in so many devices, and train on them: to try strategy=mirrored",
        1,
        flag_values=fv,
    )
    flags.DEFINE_string("gpu", None, "indices of the GPUs to use, comma-separated", flag_values=fv)
    flags.DEFINE_string("tpu_name", None, "name of the TPU, or local", flag_values=fv)
    flags.DEFINE_string("tpu_zone", None, "zone of the TPU", flag_values=fv)
    flags.DEFINE_string("gcp_project", None, "project of the TPU", flag_values=fv)
    flags.DEFINE_integer(
        "iterations_per_loop",
        100,
        "most steps between two looks at the clock and at signals",
        1,
        flag_values=fv,
    )
    flags.DEFINE_enum(
        "dtype", "float32", ("float32", "bfloat16"), "what the layers compute in", flag_values=fv
    )
    flags.DEFINE_boolean("jit_compile", False, "compile the step with XLA", flag_values=fv)


def preset_names() -> tuple[str, ...]:
    """Names of the presets, sorted."""
    return tuple(sorted(path.stem for path in PRESETS.glob("*.cfg")))


def command_line(argv: Sequence[str]) -> list[str]:
    """The command line with presets expanded; a wrong preset ends the process with a usage error.

    Args:
        argv: the command line.

    Returns:
        The command line for absl.
    """
    try:
        return expand_presets(argv)
    except UsageError as error:
        raise SystemExit(f"error: {error}") from None


def with_flags_of_run(argv: Sequence[str]) -> list[str]:
    """Puts the flags of `--load_checkpoint=RUN` first, so that they hold unless others follow.

    Args:
        argv: the command line.

    Returns:
        The command line; as it was where RUN holds no flags.cfg.
    """
    for argument, following in itertools.zip_longest(argv, argv[1:], fillvalue=""):
        flag, equals, value = argument.partition("=")
        if flag not in ("--load_checkpoint", "-load_checkpoint"):
            continue
        named = pathlib.Path(value if equals else following)
        for folder in (named, *list(named.parents)[:2]):
            if (folder / "flags.cfg").is_file():
                lines = (folder / "flags.cfg").read_text().splitlines()
                # Where RUN itself began, and where it runs, is not where this checkpoint is.
                own = [line for line in lines if not line.startswith(_ORIGIN)]
                return [argv[0], *own, *argv[1:]]
    return list(argv)


def expand_presets(argv: Sequence[str]) -> list[str]:
    """Puts each `--preset=NAME`'s flagfile before it, so that later flags win.

    Args:
        argv: the command line.

    Returns:
        The command line for absl.

    Raises:
        UsageError: there is no such preset.
    """
    expanded = []
    arguments = iter(argv)
    for argument in arguments:
        if argument in ("--preset", "-preset"):
            argument = f"--preset={next(arguments, '')}"
        if argument.startswith(("--preset=", "-preset=")):
            name = argument.partition("=")[2]
            if name not in preset_names():
                raise UsageError(
                    f"--preset: expected one of {', '.join(preset_names())}. Received: {name!r}"
                )
            expanded.append(f"--flagfile={PRESETS / name}.cfg")
        expanded.append(argument)
    return expanded


def validate(fv: flags.FlagValues) -> None:
    """Checks values and combinations that a single flag's definition cannot.

    Args:
        fv: parsed flags.

    Raises:
        UsageError: names the flag, what it expects and what came.
    """
    _check_names(fv)
    _check_workdir(fv)
    _check_taken(fv)
    _check_ranges(fv)
    _check_rule(fv)
    _check_timing(fv)
    _check_learning_rates(fv)
    _check_noise_and_clipping(fv)
    _check_batches_and_epochs(fv)
    _check_devices(fv)


def _refuse(flag: str, expected: str, received: Any) -> None:
    raise UsageError(f"--{flag}: expected {expected}. Received: {received!r}")


def _refuse_given(fv: flags.FlagValues, names: Iterable[str], expected: str) -> None:
    """Refuses flags that would have no effect, where they are not at their defaults."""
    for name in names:
        if fv[name].value != fv[name].default:
            _refuse(name, expected, fv[name].value)


def _check_names(fv: flags.FlagValues) -> None:
    for flag, known in (
        ("dataset", data.names()),
        ("model", models.names()),
        ("alignment", ("backprop", *alignments.names())),
    ):
        value = fv[flag].value
        if value is not None and value not in known:
            _refuse(flag, f"one of {', '.join(known)}", value)


def _check_workdir(fv: flags.FlagValues) -> None:
    workdir = fv["workdir"].value
    if workdir is not None and "://" in workdir:
        expected = "a local folder, or a mounted bucket (gs:// is for data_dir)"
        _refuse("workdir", expected, workdir)


def _check_taken(fv: flags.FlagValues) -> None:
    """Refuses flags that the data set or the model has no use for."""
    for kind, names, options in (
        ("data set", DATA_FLAGS, data.options(fv["dataset"].value)),
        ("model", MODEL_FLAGS, models.options(fv["model"].value)),
    ):
        chosen = fv["dataset" if kind == "data set" else "model"].value
        valid = [flag for flag in names if flag in options]
        for flag in names:
            if fv[flag].value is not None and flag not in valid:
                takes = ", ".join(valid) or "none of them"
                _refuse(flag, f"a flag that the {kind} {chosen} takes ({takes})", fv[flag].value)


def _numbers(fv: flags.FlagValues, flag: str) -> list[float]:
    values = fv[flag].value
    try:
        return [] if values is None else [float(value) for value in values]
    except ValueError:
        return _refuse(flag, "numbers, comma-separated", ",".join(values))


def _check_ranges(fv: flags.FlagValues) -> None:
    for flag in fv:
        value = fv[flag].value
        if isinstance(value, float) and not math.isfinite(value):
            _refuse(flag, "a finite number", value)
    positive = ("train_epochs", "max_epochs", "epochs_per_checkpoint", "grad_clipping_value")
    not_negative = (
        "l2", "loss_rate", "alignment_rate", "delay_epochs", "learning_rate",
        "alignment_learning_rate", "warmup_epochs", "alignment_warmup_epochs",
    )  # fmt: skip
    for flag in positive:
        if fv[flag].value is not None and fv[flag].value <= 0:
            _refuse(flag, "a number > 0", fv[flag].value)
    for flag in not_negative:
        if fv[flag].value is not None and fv[flag].value < 0:
            _refuse(flag, "a number >= 0", fv[flag].value)
    for flag in ("drops", "alignment_drops"):
        drops = _numbers(fv, flag)
        if drops != sorted(set(drops)) or any(drop <= 0 for drop in drops):
            _refuse(flag, "epochs > 0, ascending", ",".join(fv[flag].value))
    for flag in LIST_FLAGS:
        sizes = fv[flag].value
        if sizes is not None and not all(size.isdigit() and int(size) > 0 for size in sizes):
            _refuse(flag, "whole numbers > 0, comma-separated", ",".join(sizes))


def given_rule_options(fv: flags.FlagValues) -> dict[str, Any]:
    """The rule options that were given, schedules aside."""
    return {name: fv[name].value for name in rule_options() if fv[name].value is not None}


def _check_rule(fv: flags.FlagValues) -> None:
    name = fv["alignment"].value
    rule = None if name in (None, "backprop") else alignments.rule(name)
    known = () if rule is None else rule.option_names()
    of = "backprop" if rule is None else name
    for option in given_rule_options(fv):
        if option not in known:
            valid = f"an option of the rule {of} ({', '.join(known) or 'it has none'})"
            _refuse(option, valid, fv[option].value)
    for coefficient in coefficient_names():
        _check_schedule(fv, coefficient, coefficient in known, of)
    if fv["input_distribution"].value is None:
        _refuse_given(fv, ["input_stddev"], "input_distribution, the noise whose deviation this is")
    if not fv["activation_forward"].value and not fv["activation_backward"].value:
        _refuse_given(fv, ["activation_fn_override"], "activation_forward or activation_backward")
    if rule is not None:
        try:
            rule(**given_rule_options(fv))
        except (TypeError, ValueError) as error:
            raise UsageError(f"--alignment={name}: {error}") from error


def _check_schedule(fv: flags.FlagValues, name: str, known: bool, rule: str) -> None:
    for suffix in SCHEDULE_SUFFIXES:
        flag = fv[f"{name}_{suffix}"]
        if not known and flag.value != flag.default:
            _refuse(f"{name}_{suffix}", f"a coefficient of the rule {rule}", flag.value)
    start, stop = fv[f"{name}_start"].value, fv[f"{name}_stop"].value
    cycle, kind = fv[f"{name}_cycle"].value, fv[f"{name}_schedule_type"].value
    if not 0.0 <= start <= 1.0:
        _refuse(f"{name}_start", "a fraction of training in [0, 1]", start)
    if not start <= stop <= 1.0:
        _refuse(f"{name}_stop", f"a fraction in [{name}_start, 1], that is [{start}, 1]", stop)
    if cycle is not None and cycle <= 0:
        _refuse(f"{name}_cycle", "epochs > 0", cycle)
    if kind is None and (cycle is not None or fv[f"{name}_schedule_rate"].value != 0.0):
        _refuse(
            f"{name}_schedule_type", "linear or exponential, with a rate or a cycle given", kind
        )
    if kind is not None and fv[f"{name}_schedule_rate"].value == 0.0:
        _refuse(f"{name}_schedule_rate", "a growth other than 0, with a schedule_type given", 0.0)


def has_alignment_loss(fv: flags.FlagValues) -> bool:
    """Whether the rule has a layer-wise loss, and a coefficient of it is ever other than 0."""
    name = fv["alignment"].value
    if name in (None, "backprop"):
        return False
    made = alignments.rule(name)(**given_rule_options(fv))
    # Of the schedules only a linear one grows from 0.
    return made.has_loss or any(
        fv[f"{coefficient}_schedule_type"].value == "linear"
        for coefficient in coefficient_names()
        if coefficient in made.option_names()
    )


def _check_timing(fv: flags.FlagValues) -> None:
    if has_alignment_loss(fv):
        return
    rule = fv["alignment"].value or "backprop"
    zero = [name for name in coefficient_names() if fv[name].value == 0.0]
    of = f"{rule} with {', '.join(f'{name}=0' for name in zero)}" if zero else rule
    expected = f"a rule with an alignment loss, which {of} has not"
    for flag in ("alignment_optimizer", "alternate_step_freq", "delay_epochs"):
        if fv[flag].value is not None:
            _refuse(flag, expected, fv[flag].value)
    _refuse_given(fv, ["alignment_rate"], expected)


_RATE_FLAGS = (
    "learning_rate", "rescale_lr", "constant_lr", "warmup_epochs", "drops", "manual_lr", "drop",
    "boundary_step",
)  # fmt: skip


def _check_learning_rates(fv: flags.FlagValues) -> None:
    if fv["alignment_optimizer"].value is None:
        names = [f"alignment_{name}" for name in _RATE_FLAGS]
        _refuse_given(fv, names, "an alignment_optimizer, which was not given")
    for prefix in ("", "alignment_"):
        _check_learning_rate(fv, prefix)
    if not fv["rescale_lr"].value and not fv["alignment_rescale_lr"].value:
        _refuse_given(fv, ["base_batch_size"], "rescale_lr or alignment_rescale_lr")


def _check_learning_rate(fv: flags.FlagValues, prefix: str) -> None:
    drop, boundary = fv[f"{prefix}drop"].value, fv[f"{prefix}boundary_step"].value
    manual, constant = fv[f"{prefix}manual_lr"].value, fv[f"{prefix}constant_lr"].value
    if not manual and (drop or boundary is not None):
        _refuse(f"{prefix}manual_lr", f"true, with {prefix}drop or {prefix}boundary_step", False)
    if (drop > 0) != (boundary is not None):
        _refuse(f"{prefix}boundary_step", f"a step with {prefix}drop > 0, and none else", boundary)
    if manual and not constant:
        _refuse(f"{prefix}constant_lr", f"no schedule of drops with {prefix}manual_lr", False)
    if constant and not manual:
        expected = f"{prefix}constant_lr=false, a rate that changes"
        _refuse_given(fv, [f"{prefix}warmup_epochs"], expected)
    # The alignment loss's rate drops with the loss's unless it has drops of its own.
    falls = not fv["alignment_constant_lr"].value and not fv["alignment_drops"].value
    shared = not prefix and falls
    if constant and not shared:
        expected = f"{prefix}constant_lr=false, a rate that changes"
        _refuse_given(fv, [f"{prefix}drops"], expected)


def _check_noise_and_clipping(fv: flags.FlagValues) -> None:
    for flag in ("noisy_opt_variance", "noisy_global_opt_variance", "noisy_alignment_opt_variance"):
        if fv[flag].value is not None and fv[flag].value < 0:
            _refuse(flag, "a variance >= 0", fv[flag].value)
    if fv["use_noisy_alignment_opt"].value and fv["alignment_optimizer"].value is None:
        _refuse("use_noisy_alignment_opt", "an alignment_optimizer", True)
    used = [which for which in ("global", "alignment") if fv[f"use_noisy_{which}_opt"].value]
    settings = ("distribution", "variance")
    for which in ("global", "alignment"):
        if which not in used:
            names = [f"noisy_{which}_opt_{setting}" for setting in settings]
            _refuse_given(fv, names, f"use_noisy_{which}_opt")
    for setting in settings:
        if all(fv[f"noisy_{which}_opt_{setting}"].value is not None for which in used):
            expected = "a noisy optimizer without one of its own (use_noisy_global_opt, ...)"
            _refuse_given(fv, [f"noisy_opt_{setting}"], expected)
    if not fv["grad_clip"].value:
        _refuse_given(fv, ["grad_clipping_value", "grad_clipping_method"], "grad_clip")
    _check_linear_updates(fv)


def _check_linear_updates(fv: flags.FlagValues) -> None:
    name = fv["alignment"].value
    if name in (None, "backprop"):
        return
    if not alignments.rule(name)(**given_rule_options(fv)).needs_linear_updates:
        return
    why = f"as the rule {name} with these options is exact where updates are linear in gradients"
    for flag in ("optimizer", "alignment_optimizer"):
        if fv[flag].value not in (None, *optimizers.registry.LINEAR):
            known = " or ".join(optimizers.registry.LINEAR)
            _refuse(flag, f"{known}, {why}", fv[flag].value)
    for flag in ("grad_clip", "use_noisy_global_opt", "use_noisy_alignment_opt"):
        if fv[flag].value:
            _refuse(flag, f"false, {why}", True)


def _check_batches_and_epochs(fv: flags.FlagValues) -> None:
    epochs, most = fv["train_epochs"].value, fv["max_epochs"].value
    if most is not None and most > epochs:
        _refuse("max_epochs", f"at most train_epochs={epochs:g}", most)
    micro, batch = fv["minibatch_size"].value, fv["train_batch_size"].value
    if micro is not None and batch % micro:
        _refuse("minibatch_size", f"a divisor of train_batch_size={batch}", micro)
    if fv["load_step"].value is not None and fv["load_checkpoint"].value is None:
        _refuse("load_step", "load_checkpoint, the run to load from", fv["load_step"].value)


def _check_devices(fv: flags.FlagValues) -> None:
    strategy, tpu = fv["strategy"].value, fv["tpu_name"].value
    if strategy not in ("auto", "tpu"):
        _refuse_given(fv, ["tpu_name", "tpu_zone", "gcp_project"], "strategy=tpu or auto")
    if strategy == "auto" and tpu is None:
        _refuse_given(fv, ["tpu_zone", "gcp_project"], "tpu_name or strategy=tpu")
    if strategy == "tpu" or tpu is not None:
        _refuse_given(fv, ["gpu"], "a strategy other than tpu")
    if strategy != "mirrored":
        _refuse_given(fv, ["logical_cpus"], "strategy=mirrored")
    if fv["logical_cpus"].value is not None:
        _refuse_given(fv, ["gpu"], "GPUs or logical_cpus, not both")
