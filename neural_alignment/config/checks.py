"""Checks of combinations of flags, before TensorFlow is imported."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from absl import flags

from neural_alignment import alignments, data, models, optimizers
from neural_alignment.config.flags import DATA_FLAGS, MODEL_FLAGS, Settings, read
from neural_alignment.config.groups import LearningRate, Optimizers, coefficient_names
from neural_alignment.config.options import UsageError, refuse, settings_of

_GROWTH_SUFFIXES = ("start", "stop", "cycle", "schedule_rate", "schedule_type")
_SCHEDULE_SUFFIXES = (*_GROWTH_SUFFIXES, "schedule")


def validate(fv: flags.FlagValues) -> Settings:
    """The settings that flags say, checked.

    Args:
        fv: parsed flags.

    Returns:
        The settings.

    Raises:
        UsageError: see `check`.
    """
    settings = read(fv)
    check(settings)
    return settings


def check(settings: Settings) -> None:
    """Checks values and combinations that a single flag's definition cannot.

    Args:
        settings: of the job.

    Raises:
        UsageError: names the flag, what it expects and what came.
    """
    _check_workdir(settings)
    _check_taken(settings)
    _check_rule(settings)
    _check_timing(settings)
    _check_learning_rates(settings)
    _check_noise_and_clipping(settings)
    _check_momentum(settings)
    _check_weight_decay(settings)
    _check_pixels(settings)
    _check_linear_updates(settings)
    _check_batches_and_epochs(settings)
    _check_devices(settings)


def _refuse_given(settings: Settings, names: Iterable[str], expected: str) -> None:
    """Refuses flags that would have no effect, where they are not at their defaults."""
    for name in names:
        if name in settings.given:
            _refuse(name, expected, settings.given[name])


def _refuse(flag: str, expected: str, received: Any) -> None:
    refuse(flag, expected, ",".join(received) if isinstance(received, list) else received)


def _check_workdir(settings: Settings) -> None:
    workdir = settings.run.workdir
    if workdir is not None and "://" in workdir:
        expected = "a local folder, or a mounted bucket (gs:// is for data_dir)"
        _refuse("workdir", expected, workdir)


def _check_taken(settings: Settings) -> None:
    """Refuses flags that the data set or the model has no use for."""
    for kind, chosen, names, options in (
        ("data set", settings.data.dataset, DATA_FLAGS, data.options(settings.data.dataset)),
        ("model", settings.model.model, MODEL_FLAGS, models.options(settings.model.model)),
    ):
        valid = [flag for flag in names if flag in options]
        for flag in names:
            if flag not in valid:
                takes = ", ".join(valid) or "none of them"
                expected = f"a flag that the {kind} {chosen} takes ({takes})"
                _refuse_given(settings, [flag], expected)


def _check_rule(settings: Settings) -> None:
    rule = settings.rule
    known = () if rule.name == "backprop" else alignments.rule(rule.name).option_names()
    for name, value in rule.options.items():
        if name not in known:
            valid = f"an option of the rule {rule.name} ({', '.join(known) or 'it has none'})"
            _refuse(name, valid, value)
    for coefficient in coefficient_names():
        _check_by_epoch(settings, coefficient)
        _check_schedule(settings, coefficient, coefficient in known)
    try:
        made = rule.make()
    except (TypeError, ValueError) as error:
        raise UsageError(f"--alignment={rule.name}: {error}") from error
    if getattr(made, "input_distribution", None) is None:
        expected = "input_distribution, the noise whose deviation this is"
        _refuse_given(settings, ["input_stddev"], expected)
    applied = ("activation_forward", "activation_backward")
    if not any(getattr(made, name, False) for name in applied):
        _refuse_given(settings, ["activation_fn_override"], " or ".join(applied))


def _check_schedule(settings: Settings, name: str, known: bool) -> None:
    if not known:
        names = [f"{name}_{suffix}" for suffix in _SCHEDULE_SUFFIXES]
        _refuse_given(settings, names, f"a coefficient of the rule {settings.rule.name}")
    schedule = settings.rule.schedules[name]
    if schedule.start > schedule.stop:
        expected = f"a fraction in [{name}_start, 1], that is [{schedule.start}, 1]"
        _refuse(f"{name}_stop", expected, schedule.stop)
    kind, rate = schedule.schedule_type, schedule.schedule_rate
    if kind is None and (schedule.cycle is not None or rate != 0.0):
        expected = "linear or exponential, with a rate or a cycle given"
        _refuse(f"{name}_schedule_type", expected, kind)
    if kind is not None and rate == 0.0:
        _refuse(f"{name}_schedule_rate", "a growth other than 0, with a schedule_type given", 0.0)


def _check_by_epoch(settings: Settings, name: str) -> None:
    if settings.rule.schedules[name].schedule is None:
        return
    expected = f"{name}_schedule or this, not both ({name}_schedule=none takes that one away)"
    names = [name, *(f"{name}_{suffix}" for suffix in _GROWTH_SUFFIXES)]
    _refuse_given(settings, names, expected)


def _check_timing(settings: Settings) -> None:
    if settings.rule.has_loss:
        return
    name, options = settings.rule.name, settings.rule.options
    zero = [f"{each}=0" for each in coefficient_names() if options.get(each) == 0.0]
    of = f"{name} with {', '.join(zero)}" if zero else name
    names = ("alignment_optimizer", "alternate_step_freq", "delay_epochs", "alignment_rate")
    _refuse_given(settings, names, f"a rule with an alignment loss, which {of} has not")


def _check_learning_rates(settings: Settings) -> None:
    if settings.optimizers.alignment_optimizer is None:
        names = [setting.flag for setting in settings_of(LearningRate, "alignment_")]
        _refuse_given(settings, names, "an alignment_optimizer, which was not given")
    _check_learning_rate(settings, settings.rate, "")
    _check_learning_rate(settings, settings.alignment_rate, "alignment_")
    if not settings.rate.rescale_lr and not settings.alignment_rate.rescale_lr:
        _refuse_given(settings, ["base_batch_size"], "rescale_lr or alignment_rescale_lr")


def _check_learning_rate(settings: Settings, rate: LearningRate, prefix: str) -> None:
    if rate.learning_rate_schedule is not None:
        _check_rate_by_epoch(settings, prefix)
        return
    drop, boundary, drops = rate.drop, rate.boundary_step, rate.drops or ()
    if list(drops) != sorted(set(drops)):
        _refuse(f"{prefix}drops", "epochs > 0, ascending", [f"{drop:g}" for drop in drops])
    if not rate.manual_lr and (drop or boundary is not None):
        _refuse(f"{prefix}manual_lr", f"true, with {prefix}drop or {prefix}boundary_step", False)
    if (drop > 0) != (boundary is not None):
        _refuse(f"{prefix}boundary_step", f"a step with {prefix}drop > 0, and none else", boundary)
    if rate.manual_lr and not rate.constant_lr:
        _refuse(f"{prefix}constant_lr", f"no schedule of drops with {prefix}manual_lr", False)
    expected = f"{prefix}constant_lr=false, a rate that changes"
    if rate.constant_lr:
        _refuse_given(settings, [f"{prefix}cosine_lr"], expected)
        if not rate.manual_lr:
            _refuse_given(settings, [f"{prefix}warmup_epochs"], expected)
    # The alignment loss's rate drops with the loss's unless it has drops of its own.
    other = settings.alignment_rate
    falls = not other.constant_lr and not other.cosine_lr
    shared = {
        "drops": falls and other.drops is None,
        "drop_factor": falls and not other.drop_factor,
    }
    for name, is_shared in shared.items():
        if prefix or not is_shared:
            _check_drops(settings, rate, prefix, name)
    _check_cosine(settings, rate, prefix)


def _check_drops(settings: Settings, rate: LearningRate, prefix: str, name: str) -> None:
    """Refuses what says how a rate drops, where it does not."""
    if rate.cosine_lr:
        _refuse_given(settings, [f"{prefix}{name}"], f"drops, which {prefix}cosine_lr has not")
    elif rate.constant_lr and not (rate.manual_lr and rate.drop and name == "drop_factor"):
        expected = f"{prefix}constant_lr=false, a rate that changes"
        _refuse_given(settings, [f"{prefix}{name}"], expected)


def _check_cosine(settings: Settings, rate: LearningRate, prefix: str) -> None:
    delay = settings.timing.delay_epochs or 0.0
    before = delay if prefix and delay else delay + rate.warmup_epochs
    if rate.cosine_lr and before >= settings.plan.train_epochs:
        expected = f"more than {before:g} epochs of delay and warm-up with {prefix}cosine_lr"
        _refuse("train_epochs", expected, settings.plan.train_epochs)


def _check_rate_by_epoch(settings: Settings, prefix: str) -> None:
    """A rate by epoch is said at once, and by nothing else."""
    flag = f"{prefix}learning_rate_schedule"
    expected = f"{flag} or this, not both ({flag}=none takes that one away)"
    others = ("learning_rate", "constant_lr", "warmup_epochs", "manual_lr", "drop", "boundary_step")
    filled = settings.filled
    _refuse_given(settings, [n for n in (prefix + o for o in others) if n not in filled], expected)
    other = settings.alignment_rate
    falls = not prefix and not other.constant_lr and not other.cosine_lr
    if not (falls and other.drops is None):
        _refuse_given(settings, [f"{prefix}drops"], expected)
    if not (falls and not other.drop_factor):
        _refuse_given(settings, [f"{prefix}drop_factor"], expected)
    _refuse_given(settings, [f"{prefix}cosine_lr"], expected)


def _check_noise_and_clipping(settings: Settings) -> None:
    o = settings.optimizers
    if o.use_noisy_alignment_opt and o.alignment_optimizer is None:
        _refuse("use_noisy_alignment_opt", "an alignment_optimizer", True)
    noisy = {"global": o.use_noisy_global_opt, "alignment": o.use_noisy_alignment_opt}
    own = {
        "global": (o.noisy_global_opt_distribution, o.noisy_global_opt_variance),
        "alignment": (o.noisy_alignment_opt_distribution, o.noisy_alignment_opt_variance),
    }
    for which in noisy:
        if not noisy[which]:
            names = [f"noisy_{which}_opt_distribution", f"noisy_{which}_opt_variance"]
            _refuse_given(settings, names, f"use_noisy_{which}_opt")
    for place, name in enumerate(("distribution", "variance")):
        if all(own[which][place] is not None for which in noisy if noisy[which]):
            expected = "a noisy optimizer without one of its own (use_noisy_global_opt, ...)"
            _refuse_given(settings, [f"noisy_opt_{name}"], expected)
    if not o.grad_clip:
        _refuse_given(settings, ["grad_clipping_value", "grad_clipping_method"], "grad_clip")


def _check_momentum(settings: Settings) -> None:
    o = settings.optimizers
    if "momentum" not in (o.optimizer, o.alignment_optimizer):
        _refuse_given(settings, ["momentum", "nesterov"], "the optimizer momentum")


def _check_weight_decay(settings: Settings) -> None:
    o = settings.optimizers
    if o.weight_decay_schedule is not None:
        expected = (
            "weight_decay_schedule or this, not both (weight_decay_schedule=none takes that one "
            "away)"
        )
        _refuse_given(settings, ["weight_decay"], expected)
    if o.decays_weights and settings.model.l2:
        expected = "0 or not given, with a weight_decay in its place"
        _refuse("l2", expected, settings.model.l2)


def _check_pixels(settings: Settings) -> None:
    d = settings.data
    if (d.pixel_mean is None) != (d.pixel_stddev is None):
        given, missing = ("pixel_mean", "pixel_stddev")[:: 1 if d.pixel_stddev is None else -1]
        _refuse(given, f"{missing} with it", getattr(d, given))


def _check_linear_updates(settings: Settings) -> None:
    rule, o = settings.rule.make(), settings.optimizers
    if rule is not None and rule.needs_linear_updates:
        why = f"the rule {rule.name} with these options is exact where updates are linear in them"
        switches = ("grad_clip", "use_noisy_global_opt", "use_noisy_alignment_opt")
        _refuse_others(o, why, ("optimizer", "alignment_optimizer"), switches)
    if o.bias_rate != 1.0:
        why = f"bias_rate={o.bias_rate:g} is a factor of the rate where updates are linear in them"
        _refuse_others(o, why, ("optimizer",), ("grad_clip", "use_noisy_global_opt"))


def _refuse_others(o: Optimizers, why: str, names: Sequence[str], switches: Sequence[str]) -> None:
    """Refuses optimizers whose updates are not linear, and what makes updates that are not."""
    linear = optimizers.registry.LINEAR
    for flag in names:
        if getattr(o, flag) not in (None, *linear):
            expected = f"{' or '.join(linear)}, linear in gradients, as {why}"
            _refuse(flag, expected, getattr(o, flag))
    for flag in switches:
        if getattr(o, flag):
            _refuse(flag, f"gradients as they are, as {why}", True)


def _check_batches_and_epochs(settings: Settings) -> None:
    plan, micro = settings.plan, settings.devices.minibatch_size
    if plan.max_epochs is not None and plan.max_epochs > plan.train_epochs:
        _refuse("max_epochs", f"at most train_epochs={plan.train_epochs:g}", plan.max_epochs)
    if micro is not None and plan.train_batch_size % micro:
        expected = f"a divisor of train_batch_size={plan.train_batch_size}"
        _refuse("minibatch_size", expected, micro)
    if max(plan.keep_epochs, default=0) > plan.train_epochs:
        expected = f"epochs up to train_epochs={plan.train_epochs:g}"
        _refuse("keep_epochs", expected, [f"{epoch:g}" for epoch in plan.keep_epochs])
    if settings.run.load_checkpoint is None:
        _refuse_given(settings, ["load_step"], "load_checkpoint, the run to load from")


def _check_devices(settings: Settings) -> None:
    strategy, tpu = settings.devices.strategy, settings.devices.tpu_name
    if strategy not in ("auto", "tpu"):
        tpu_flags = ["tpu_name", "tpu_zone", "gcp_project"]
        _refuse_given(settings, tpu_flags, "strategy=tpu or auto")
    if strategy == "auto" and tpu is None:
        _refuse_given(settings, ["tpu_zone", "gcp_project"], "tpu_name or strategy=tpu")
    if strategy == "tpu" or tpu is not None:
        _refuse_given(settings, ["gpu"], "a strategy other than tpu")
    if strategy == "one_device" and "," in (settings.devices.gpu or ""):
        _refuse("gpu", "one index with strategy=one_device", settings.devices.gpu)
    if strategy != "mirrored":
        _refuse_given(settings, ["logical_cpus"], "strategy=mirrored")
    if settings.devices.logical_cpus is not None:
        _refuse_given(settings, ["gpu"], "GPUs or logical_cpus, not both")
