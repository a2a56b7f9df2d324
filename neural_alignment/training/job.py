"""A training job from its flags: data, devices, model, optimizers, run directory."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import rich.console
from absl import flags

from neural_alignment import alignments, data, metrics, models, optimizers
from neural_alignment.data.messages import told
from neural_alignment.layers import aligned_layers
from neural_alignment.lazy import tf
from neural_alignment.lock import FileLock
from neural_alignment.optimizers import rate_scheduler
from neural_alignment.training import checkpoints
from neural_alignment.training.callbacks import TensorBoardScalars
from neural_alignment.training.console import Progress, final_table
from neural_alignment.training.flags import (
    DATA_FLAGS,
    LIST_FLAGS,
    MODEL_FLAGS,
    UsageError,
    coefficient_names,
    given_rule_options,
    has_alignment_loss,
)
from neural_alignment.training.loop import Evaluator, Plan, Trainer, model_variables
from neural_alignment.training.run_directory import check_flags, write_flags
from neural_alignment.training.step import Step
from neural_alignment.training.strategy import (
    compiles_itself,
    is_chief,
    make_strategy,
    worker_errors,
)

Flags = flags.FlagValues


def train(fv: Flags) -> dict[str, float]:
    """Trains, or takes a run up where it was left, as the flags say.

    Args:
        fv: parsed and validated flags.

    Returns:
        The last epoch's row.

    Raises:
        UsageError: flags that do not fit the data set, the model or the devices.
        DeviceError: devices that are not there, or a worker that was lost.
        LockedError: the run directory is in use.
        RunDirectoryError: it holds a run with other flags.
        DivergenceError: a loss became NaN or infinite.
        InterruptedRun: a signal came; the run is saved.
        CheckpointError: a checkpoint cannot be written, or none is whole.
    """
    strategy = _strategy(fv)  # before any operation: it decides what devices TensorFlow sees
    with worker_errors(strategy):
        return _train(fv, strategy)


def _train(fv: Flags, strategy: Any) -> dict[str, float]:
    # Every worker takes the same way through the run; the first alone writes and speaks.
    chief = is_chief(strategy)
    console = rich.console.Console(quiet=not chief)
    _check_devices(fv, strategy)
    plan = _plan(fv)
    workdir = run_directory(fv)
    loaded = fv["load_checkpoint"].value
    if loaded is not None:
        loaded = checkpoints.find(loaded, fv["load_step"].value)
    given = flag_lines(fv)
    with contextlib.ExitStack() as stack:
        # An existing run is locked and compared before the data are gone through, which may take
        # minutes; a new one is made after the model, so that flags which fit none leave nothing.
        lock = FileLock(workdir / "lock", "workdir")
        if chief and workdir.exists():
            stack.enter_context(lock)
            check_flags(workdir, given)
        dataset = load_dataset(fv)
        _check_shares(fv, dataset, strategy)
        trainer = make_trainer(fv, dataset, plan, strategy)
        if chief and not workdir.exists():
            stack.enter_context(lock)
        if chief:
            write_flags(workdir, given)
        trainer.keep_in(workdir)
        progress = Progress(console, trainer)
        if chief:
            trainer.add_callbacks(
                progress,
                TensorBoardScalars(
                    str(workdir / "events"), schedules(fv, trainer), lambda: trainer.global_step
                ),
            )
        console.print(_summary(fv, trainer, workdir), highlight=False, soft_wrap=True)
        if trainer.restore():
            console.print(f"resumed at step {trainer.global_step:,}", highlight=False)
        elif loaded is not None:
            trainer.load_weights(loaded)
            console.print(f"weights from {loaded}", highlight=False, soft_wrap=True)
        with contextlib.closing(progress):
            row = trainer.fit()
        console.print(final_table(row, metrics.kernel_metrics(trainer.model)))
        return row


def evaluate(fv: Flags) -> dict[str, float]:
    """Validates a checkpoint.

    Args:
        fv: parsed and validated flags, those of the run among them; `--load_checkpoint` names it.

    Returns:
        val_loss, val_top1, val_top5.

    Raises:
        UsageError: no checkpoint is named, or flags do not fit the data set or the model.
        CheckpointError: it is not there, damaged, or of another model.
    """
    if fv["load_checkpoint"].value is None:
        raise UsageError("--load_checkpoint: expected a run directory or a checkpoint.")
    strategy = _strategy(fv)
    with worker_errors(strategy):
        return _evaluate(fv, strategy)


def _evaluate(fv: Flags, strategy: Any) -> dict[str, float]:
    console = rich.console.Console(quiet=not is_chief(strategy))
    prefix = checkpoints.find(fv["load_checkpoint"].value, fv["load_step"].value)
    dataset = load_dataset(fv, to_train=False)
    with strategy.scope():
        model = build_model(fv, dataset)
    checkpoints.assign(prefix, model_variables(model), within="model/")
    row = Evaluator(model, dataset, fv["eval_batch_size"].value, strategy)()
    console.print(
        f"{prefix}: step {checkpoints.step_of(prefix):,}", highlight=False, soft_wrap=True
    )
    console.print(final_table(row, metrics.kernel_metrics(model)))
    return row


def _strategy(fv: Flags) -> Any:
    return make_strategy(
        fv["strategy"].value,
        gpu=fv["gpu"].value,
        tpu_name=fv["tpu_name"].value,
        tpu_zone=fv["tpu_zone"].value,
        gcp_project=fv["gcp_project"].value,
    )


def _check_devices(fv: Flags, strategy: Any) -> None:
    """Refuses what does not go with so many devices."""
    replicas = strategy.num_replicas_in_sync
    for flag in ("train_batch_size", "minibatch_size"):
        size = fv[flag].value
        if size is not None and size % replicas:
            raise UsageError(
                f"--{flag}: expected a multiple of the {replicas} devices. Received: {size}"
            )
    if fv["jit_compile"].value and replicas > 1 and not compiles_itself(strategy):
        raise UsageError(
            f"--jit_compile: expected one device or a TPU, as XLA cannot compile what {replicas} "
            "devices exchange within a step. Received: True"
        )


def _check_shares(fv: Flags, dataset: data.Dataset, strategy: Any) -> None:
    """Refuses data of which some worker's part is too small."""
    if compiles_itself(strategy):
        workers = strategy.extended.num_hosts  # each reads for all of its TPU cores
    else:
        workers = strategy.num_replicas_in_sync // len(strategy.extended.worker_devices)
    try:
        dataset.check_shares(fv["train_batch_size"].value, workers)
    except ValueError as error:
        raise UsageError(f"--shard_by={fv['shard_by'].value}: {error}") from error


def _plan(fv: Flags) -> Plan:
    return Plan(
        train_batch_size=fv["train_batch_size"].value,
        eval_batch_size=fv["eval_batch_size"].value,
        train_epochs=fv["train_epochs"].value,
        max_epochs=fv["max_epochs"].value,
        epochs_per_checkpoint=fv["epochs_per_checkpoint"].value,
        checkpoint_max=fv["checkpoint_max"].value,
        iterations_per_loop=fv["iterations_per_loop"].value,
        seed=fv["seed"].value,
        validate_first=fv["validate_first"].value,
    )


def run_directory(fv: Flags) -> pathlib.Path:
    """Where the run is kept.

    Args:
        fv: parsed flags.

    Returns:
        `--workdir`, or a name made of data set, model, rule and seed.
    """
    if fv["workdir"].value is not None:
        return pathlib.Path(fv["workdir"].value)
    rule = fv["alignment"].value or "backprop"
    name = f"{fv['dataset'].value}-{fv['model'].value}-{rule}-{fv['seed'].value}"
    return pathlib.Path("runs") / name


def flag_lines(fv: Flags) -> dict[str, str]:
    """The job's flags that are not at their defaults, as lines of a flagfile."""
    ours = {flag.name for flag in fv.flags_by_module_dict()["neural_alignment.training.flags"]}
    return {name: _flag_line(fv, name) for name in ours if fv[name].value != fv[name].default}


def _flag_line(fv: Flags, name: str) -> str:
    value = fv[name].value
    if isinstance(value, list):
        return f"--{name}={','.join(value)}"
    return f"--{name}={str(value).lower() if isinstance(value, bool) else value}"


def load_dataset(fv: Flags, to_train: bool = True) -> data.Dataset:
    """The data set of `--dataset`, checked.

    Args:
        fv: parsed flags.
        to_train: False: validation alone is wanted, and of data in files nothing else need be
            there.

    Returns:
        The data set.

    Raises:
        UsageError: data that are not there, damaged or not what they should be, or
            a batch larger than the data set.
        OSError: storage that failed.
    """
    name = fv["dataset"].value
    given = _given(fv, DATA_FLAGS)
    if not to_train and "splits" in data.options(name):
        given["splits"] = ("validation",)
    try:
        dataset = data.get(name, **given)
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(f"--dataset={name}: {error}") from error
    except tf.errors.OpError as error:  # what tf.io.gfile raises; never a worker's loss
        where = given.get("data_dir")
        flag = f"--dataset={name}" if where is None else f"--data_dir={where}"
        raise OSError(
            f"{flag}: Expected storage that can be read. Received: {told(error)}. See that the "
            "path is right, and that this machine reaches it and may read it."
        ) from error
    if not to_train:
        return dataset
    try:
        dataset.steps_per_epoch(fv["train_batch_size"].value)
    except ValueError as error:
        raise UsageError(f"--train_batch_size: {error}") from error
    return dataset


def model_options(fv: Flags) -> dict[str, Any]:
    """The model's options that were given by flags.

    Args:
        fv: parsed flags.

    Returns:
        Option name to value.
    """
    given = _given(fv, MODEL_FLAGS)
    for flag in LIST_FLAGS:
        if flag in given:
            given[flag] = tuple(int(size) for size in given[flag])
    return given


def _given(fv: Flags, names: Sequence[str]) -> dict[str, Any]:
    return {name: fv[name].value for name in names if fv[name].value is not None}


def make_rule(fv: Flags, steps_per_epoch: int) -> alignments.Alignment | None:
    """The learning rule of the flags, with its coefficients' schedules.

    Args:
        fv: parsed and validated flags.
        steps_per_epoch: whole steps in an epoch.

    Returns:
        The rule; None is backpropagation.
    """
    name = fv["alignment"].value
    if name in (None, "backprop"):
        return None
    rule = alignments.rule(name)
    options = given_rule_options(fv)
    for bias in ("use_bias_forward", "use_bias_backward"):
        if bias in rule.option_names():
            options.setdefault(bias, True)
    made = rule(**options)
    scheduled = {
        coefficient: schedule
        for coefficient in coefficient_names()
        if coefficient in rule.option_names()
        and (schedule := _coefficient(fv, coefficient, getattr(made, coefficient), steps_per_epoch))
    }
    return made.replace(**scheduled)


def _coefficient(
    fv: Flags, name: str, value: float, steps_per_epoch: int
) -> rate_scheduler.Coefficient | None:
    """The schedule of a coefficient; None where it is a constant."""
    settings = {
        suffix: fv[f"{name}_{suffix}"].value
        for suffix in ("start", "stop", "cycle", "schedule_rate", "schedule_type")
    }
    if all(fv[f"{name}_{suffix}"].value == fv[f"{name}_{suffix}"].default for suffix in settings):
        return None
    return rate_scheduler.Coefficient(
        value=value,
        steps_per_epoch=steps_per_epoch,
        train_epochs=fv["train_epochs"].value,
        **settings,
    )


def _epochs(fv: Flags, flag: str) -> tuple[float, ...]:
    return tuple(float(epoch) for epoch in fv[flag].value)


def learning_rate(fv: Flags, steps_per_epoch: int, of_alignment: bool = False) -> Any:
    """The learning rate of one optimizer: a number or a schedule.

    Args:
        fv: parsed and validated flags.
        steps_per_epoch: whole steps in an epoch.
        of_alignment: of the alignment loss's optimizer instead of the loss's.

    Returns:
        A float or a schedule.
    """
    prefix = "alignment_" if of_alignment else ""
    value = fv[f"{prefix}learning_rate"].value
    if fv[f"{prefix}rescale_lr"].value:
        batch, base = fv["train_batch_size"].value, fv["base_batch_size"].value
        value = rate_scheduler.rescaled(value, batch, base)
    warmup = fv[f"{prefix}warmup_epochs"].value
    if fv[f"{prefix}manual_lr"].value:
        return rate_scheduler.manual_learning_rate(
            value,
            fv[f"{prefix}drop"].value,
            boundary_step=fv[f"{prefix}boundary_step"].value,
            warmup_epochs=warmup,
            steps_per_epoch=steps_per_epoch,
        )
    if fv[f"{prefix}constant_lr"].value:
        return value
    drops = "alignment_drops" if of_alignment and fv["alignment_drops"].value else "drops"
    settings = {
        "warmup_epochs": warmup,
        "drops": _epochs(fv, drops),
        "delay_epochs": fv["delay_epochs"].value or 0.0,
        "alternate_step_freq": fv["alternate_step_freq"].value,
    }
    if of_alignment:
        return rate_scheduler.alignment_learning_rate(value, steps_per_epoch, **settings)
    alone = fv["alignment_optimizer"].value is None and has_alignment_loss(fv)
    return rate_scheduler.loss_learning_rate(
        value, steps_per_epoch, trains_alignment=alone, **settings
    )


def _optimizer(fv: Flags, steps_per_epoch: int, of_alignment: bool) -> keras.optimizers.Optimizer:
    which = "alignment" if of_alignment else "global"
    name = fv["alignment_optimizer" if of_alignment else "optimizer"].value
    made = optimizers.get(name, learning_rate=learning_rate(fv, steps_per_epoch, of_alignment))
    if not fv[f"use_noisy_{which}_opt"].value:
        return made
    variance = fv[f"noisy_{which}_opt_variance"].value
    return optimizers.Noisy(
        made,
        distribution=fv[f"noisy_{which}_opt_distribution"].value
        or fv["noisy_opt_distribution"].value,
        variance=fv["noisy_opt_variance"].value if variance is None else variance,
        apply_filter="backward" if fv["alignment"].value == "kolen_pollack" else "",
        seed=fv["seed"].value + int(of_alignment),
    )


def _loss_rates(fv: Flags, steps_per_epoch: int) -> tuple[Any, Any]:
    shared = {
        "steps_per_epoch": steps_per_epoch,
        "delay_epochs": fv["delay_epochs"].value or 0.0,
        "alternate_step_freq": fv["alternate_step_freq"].value,
        "drops": () if fv["constant_rate"].value else rate_scheduler.DROPS,
    }
    return (
        rate_scheduler.LossRate(value=fv["loss_rate"].value, **shared),
        rate_scheduler.AlignmentRate(value=fv["alignment_rate"].value, **shared),
    )


def build_model(fv: Flags, dataset: data.Dataset) -> keras.Model:
    """The model of the flags, for a data set.

    Args:
        fv: parsed and validated flags.
        dataset: gives the input's shape and the number of classes.

    Returns:
        A functional model that ends in logits.

    Raises:
        UsageError: the model cannot be built for these images.
    """
    keras.utils.set_random_seed(fv["seed"].value)
    bfloat16 = fv["dtype"].value == "bfloat16"
    keras.config.set_dtype_policy("mixed_bfloat16" if bfloat16 else "float32")
    # A batch larger than the data set is an error of training alone.
    rule = make_rule(fv, max(1, dataset.num_train // fv["train_batch_size"].value))
    try:
        return models.get(
            fv["model"].value,
            input_shape=dataset.image_shape,
            num_classes=dataset.num_classes,
            alignment=rule,
            **model_options(fv),
        )
    except ValueError as error:
        raise UsageError(f"--model={fv['model'].value}: {error}") from error


def make_trainer(
    fv: Flags,
    dataset: data.Dataset,
    plan: Plan,
    strategy: Any,
) -> Trainer:
    """Model, optimizers and step in the strategy's scope, and the loop around them.

    Args:
        fv: parsed and validated flags.
        dataset: the examples.
        plan: how long to train.
        strategy: the devices.

    Returns:
        The trainer, at step 0.
    """
    steps_per_epoch = dataset.steps_per_epoch(fv["train_batch_size"].value)
    with strategy.scope():
        model = build_model(fv, dataset)
        step = Step(
            model,
            _optimizer(fv, steps_per_epoch, of_alignment=False),
            _optimizer(fv, steps_per_epoch, of_alignment=True)
            if fv["alignment_optimizer"].value
            else None,
            *_loss_rates(fv, steps_per_epoch),
            clip=_clip(fv),
            micro_batches=_micro_batches(fv),
            seed=fv["seed"].value,
            jit_compile=fv["jit_compile"].value and not compiles_itself(strategy),
        )
        return Trainer(model, step, dataset, plan, strategy)


def _micro_batches(fv: Flags) -> int:
    size = fv["minibatch_size"].value
    return 1 if size is None else fv["train_batch_size"].value // size


def _clip(fv: Flags) -> optimizers.Clip | None:
    if not fv["grad_clip"].value:
        return None
    return optimizers.Clip(fv["grad_clipping_method"].value, fv["grad_clipping_value"].value)


def schedules(fv: Flags, trainer: Trainer) -> dict[str, Callable[[int], Any]]:
    """Every function of the global step in a run, by name, for its events."""
    # Made anew from the flags: an optimizer tells its rate at its own count of steps alone.
    named: dict[str, Any] = {
        "loss_rate": trainer.step.loss_rate,
        "alignment_rate": trainer.step.alignment_rate,
        "learning_rate": learning_rate(fv, trainer.steps_per_epoch),
    }
    if len(trainer.step.optimizers) == 2:
        named["alignment_learning_rate"] = learning_rate(
            fv, trainer.steps_per_epoch, of_alignment=True
        )
    for layer in aligned_layers(trainer.model):
        for name in layer.alignment.option_names():
            if name.endswith("_coef"):
                named[name] = getattr(layer.alignment, name)
    return {
        name: value if callable(value) else lambda step, value=value: value
        for name, value in named.items()
    }


def _summary(fv: Flags, trainer: Trainer, workdir: pathlib.Path) -> str:
    parameters = trainer.model.count_params()
    rule = fv["alignment"].value or "backprop"
    with_alignment = fv["alignment_optimizer"].value
    how = fv["optimizer"].value + (f" and {with_alignment}" if with_alignment else "")
    return (
        f"{trainer.dataset.name}: {trainer.dataset.num_train:,} training and "
        f"{trainer.dataset.num_validation:,} validation examples\n"
        f"{fv['model'].value}: {parameters:,} parameters, rule {rule}, optimized by {how}\n"
        f"{trainer.total_steps:,} steps of {trainer.plan.train_batch_size} on "
        f"{trainer.strategy.num_replicas_in_sync} device(s), run directory {workdir}"
    )
