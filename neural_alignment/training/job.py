"""A training job: runs what its settings say, in its run directory."""

from __future__ import annotations

import contextlib
import pathlib
from typing import Any

import rich.console
from absl import flags

from neural_alignment import config, data, metrics
from neural_alignment.config import Settings, UsageError
from neural_alignment.config.flags import default_of, flag_text, on_resume, run_folder
from neural_alignment.deprecation import moved
from neural_alignment.layers.aligned import sites
from neural_alignment.lock import FileLock
from neural_alignment.runs import checkpoints, folders
from neural_alignment.runs.directory import (
    check_flags,
    compiled_before,
    devices_before,
    recorded,
    write_flags,
)
from neural_alignment.training import keras_settings
from neural_alignment.training.build import (
    build_model,
    doubts,
    load_dataset,
    make_trainer,
    schedules,
)
from neural_alignment.training.compilation import is_compiled
from neural_alignment.training.console import Progress, final_table
from neural_alignment.training.evaluate import Evaluator
from neural_alignment.training.events import TensorBoardScalars
from neural_alignment.training.loop import Trainer
from neural_alignment.training.strategy import (
    compiles_itself,
    is_chief,
    make_strategy,
    worker_errors,
)
from neural_alignment.training.times import Times
from neural_alignment.training.too_late import stretched, too_late
from neural_alignment.training.variables import model_variables

__getattr__ = moved(
    __name__,
    {
        "learning_rate": "neural_alignment.training.build:learning_rate_of_flags",
        "make_rule": "neural_alignment.training.build:rule_of_flags",
    },
)


def _settings(given: flags.FlagValues | Settings) -> Settings:
    return config.read(given) if isinstance(given, flags.FlagValues) else given


def train(given: flags.FlagValues | Settings) -> dict[str, float]:
    """Trains, or takes a run up where it was left, as the settings say.

    Args:
        given: settings, or parsed flags, that were checked.

    Returns:
        The last epoch's row.

    Raises:
        UsageError: settings that do not fit the data set, the model or the devices.
        FolderError: the run directory is full of something else.
        DeviceError: devices that are not there, or a worker that was lost.
        LockedError: the run directory is in use.
        RunDirectoryError: it holds a run with other flags.
        DivergenceError: a loss became NaN or infinite.
        InterruptedRun: a signal came; the run is saved.
        CheckpointError: a checkpoint cannot be written, or none is whole.
    """
    settings = _settings(given)
    folders.check_run(run_directory(settings))
    strategy = _strategy(settings)  # before any operation: it decides what devices there are
    with worker_errors(strategy), keras_settings.of_a_run(settings.devices.tf32):
        return _train(settings, strategy)


def _train(settings: Settings, strategy: Any) -> dict[str, float]:
    # Every worker takes the same way through the run; the first alone writes and speaks.
    chief = is_chief(strategy)
    console = rich.console.Console(quiet=not chief)
    _check_devices(settings, strategy)
    workdir = run_directory(settings)
    loaded = settings.run.load_checkpoint
    if loaded is not None:
        loaded = checkpoints.find(loaded, settings.run.load_step)
    with contextlib.ExitStack() as stack:
        # An existing run is locked and compared before the data are gone through, which may take
        # minutes; a new one is made after the model, so that flags which fit none leave nothing.
        lock = FileLock(workdir / "lock", "workdir")
        # What auto decided holds for the run, wherever it goes on.
        if settings.devices.jit_compile == "auto" and (before := compiled_before(workdir)):
            settings = settings.compiled(before)
        given = config.flag_lines(settings)
        if chief and workdir.exists():
            stack.enter_context(lock)
            epochs = {"train_epochs": default_of("train_epochs")}
            check_flags(workdir, given, on_resume(), epochs, settings.given)
        dataset = load_dataset(settings)
        _check_shares(settings, dataset, strategy)
        trainer = make_trainer(settings, dataset, strategy)
        if chief and not workdir.exists():
            stack.enter_context(lock)
        compiled = is_compiled(settings.devices.jit_compile, strategy, trainer.model)
        settings = settings.compiled(str(compiled).lower())
        before = recorded(workdir, "train_epochs"), devices_before(workdir)
        if chief:
            replicas = strategy.num_replicas_in_sync
            write_flags(workdir, config.flag_lines(settings), replicas)
        trainer.keep_in(workdir)
        progress = stack.enter_context(contextlib.closing(Progress(console, trainer)))
        if chief:
            events = TensorBoardScalars(
                str(workdir / "events"), schedules(settings, trainer), lambda: trainer.global_step
            )
            trainer.add_callbacks(progress, events, Times(workdir / "times.csv", trainer))
        console.print(_summary(settings, trainer, workdir), highlight=False, soft_wrap=True)
        for doubt in [*doubts(settings, len(sites(trainer.model))), *too_late(settings)]:
            console.print(f"warning: {doubt}", highlight=False, soft_wrap=True)
        if trainer.restore():
            console.print(f"resumed at step {trainer.global_step:,}", highlight=False)
            for told in _of_going_on(settings, trainer, *before):
                console.print(f"warning: {told}", highlight=False, soft_wrap=True)
        elif loaded is not None:
            trainer.load_weights(loaded)
            console.print(f"weights from {loaded}", highlight=False, soft_wrap=True)
        row = trainer.fit()
        console.print(final_table(row, trainer.layer_metrics(), settings.rule.name))
        return row


def _of_going_on(
    settings: Settings, trainer: Trainer, epochs_before: str | None, devices: int | None
) -> list[str]:
    """What a run that goes on cannot have any more: checkpoints to be kept, the same numbers."""
    there = trainer.checkpoints.steps()
    kept = settings.plan.kept_steps(trainer.steps_per_epoch)
    past = [step for step in kept if step < trainer.global_step and step not in there]
    lost = [f"--keep_epochs: step {step:,} is past and was not kept" for step in past]
    before = default_of("train_epochs") if epochs_before is None else float(epochs_before)
    now = trainer.strategy.num_replicas_in_sync
    if devices not in (None, now):
        lost.append(
            f"the run was on {devices} device(s) and goes on on {now}: what sees a device's part "
            "of the batch (BatchNorm, noise, centring over the batch) is not what it was"
        )
    return lost + stretched(settings, before)


def evaluate(given: flags.FlagValues | Settings) -> dict[str, float]:
    """Validates a checkpoint.

    Args:
        given: settings, or parsed flags, that were checked, those of the run among them;
            `load_checkpoint` names it.

    Returns:
        val_loss, val_top1, val_top5.

    Raises:
        UsageError: no checkpoint is named, or settings do not fit the data set or the model.
        CheckpointError: it is not there, damaged, or of another model.
    """
    settings = _settings(given)
    if settings.run.load_checkpoint is None:
        raise UsageError(
            "--load_checkpoint: expected a run directory or a checkpoint. Received: none"
        )
    strategy = _strategy(settings)
    with worker_errors(strategy), keras_settings.of_a_run(settings.devices.tf32):
        return _evaluate(settings, strategy)


def _evaluate(settings: Settings, strategy: Any) -> dict[str, float]:
    console = rich.console.Console(quiet=not is_chief(strategy))
    prefix = checkpoints.find(settings.run.load_checkpoint, settings.run.load_step)
    dataset = load_dataset(settings, to_train=False)
    with strategy.scope():
        model = build_model(settings, dataset)
    checkpoints.assign(prefix, model_variables(model), within="model/")
    batch, loss = settings.plan.eval_batch_size, settings.optimizers.loss
    row = Evaluator(model, dataset, batch, strategy, loss)()
    console.print(
        f"{prefix}: step {checkpoints.step_of(prefix):,}", highlight=False, soft_wrap=True
    )
    console.print(final_table(row, metrics.kernel_metrics(model), settings.rule.name))
    return row


def _strategy(settings: Settings) -> Any:
    devices = settings.devices
    return make_strategy(
        devices.strategy,
        gpu=devices.gpu,
        tpu_name=devices.tpu_name,
        tpu_zone=devices.tpu_zone,
        gcp_project=devices.gcp_project,
    )


def _check_devices(settings: Settings, strategy: Any) -> None:
    """Refuses what does not go with so many devices."""
    replicas = strategy.num_replicas_in_sync
    sizes = {
        "train_batch_size": settings.plan.train_batch_size,
        "minibatch_size": settings.devices.minibatch_size,
    }
    for flag, size in sizes.items():
        if size is not None and size % replicas:
            raise UsageError(
                f"--{flag}: expected a multiple of the {replicas} devices. Received: {size}"
            )


def _check_shares(settings: Settings, dataset: data.Dataset, strategy: Any) -> None:
    """Refuses data of which some worker's part is too small."""
    if compiles_itself(strategy):
        workers = strategy.extended.num_hosts  # each reads for all of its TPU cores
    else:
        workers = strategy.num_replicas_in_sync // len(strategy.extended.worker_devices)
    try:
        dataset.check_shares(settings.plan.train_batch_size, workers)
    except ValueError as error:
        raise UsageError(f"--shard_by={settings.data.shard_by}: {error}") from error


def run_directory(settings: Settings) -> pathlib.Path:
    """Where the run is kept.

    Args:
        settings: of the job.

    Returns:
        `--workdir`, or a name made of data set, model, rule and seed.
    """
    return run_folder(
        settings.run.workdir,
        settings.data.dataset,
        settings.model.model,
        settings.rule.name,
        settings.plan.seed,
    )


def _summary(settings: Settings, trainer: Trainer, workdir: pathlib.Path) -> str:
    parameters = trainer.model.count_params()
    with_alignment = settings.optimizers.alignment_optimizer
    how = settings.optimizers.optimizer + (f" and {with_alignment}" if with_alignment else "")
    compiled = "" if settings.devices.jit_compile == "true" else "not "
    filled = [f"{n}={flag_text(settings.values[n])}" for n in settings.filled]
    of = f"{settings.data.dataset}, {settings.model.model}, {settings.rule.name}"
    return (f"defaults of {of} (flags win): {' '.join(filled)}\n" if filled else "") + (
        f"{trainer.dataset.name}: {trainer.dataset.num_train:,} training and "
        f"{trainer.dataset.num_validation:,} validation examples\n"
        f"{settings.model.model}: {parameters:,} parameters, rule {settings.rule.name}, "
        f"optimized by {how}\n"
        f"{trainer.total_steps:,} steps of {trainer.plan.train_batch_size} on "
        f"{trainer.strategy.num_replicas_in_sync} device(s), "
        f"{compiled}compiled with XLA, run directory {workdir}"
    )
