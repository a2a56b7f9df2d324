"""The training loop: epochs of steps on any strategy, validation, checkpoints, exact resume."""

from __future__ import annotations

import logging
import math
import pathlib
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from neural_alignment import connection_metrics, error_metrics, metrics
from neural_alignment.config.groups import Plan
from neural_alignment.data import Dataset
from neural_alignment.runs.checkpoints import CheckpointError, Checkpoints, assign, not_finite
from neural_alignment.runs.steps import whole_steps
from neural_alignment.runs.table import (
    KERNEL_METRICS,
    LAYER_METRICS,
    METRICS,
    PATH_METRICS,
    Table,
)
from neural_alignment.training.batches import distribute, split
from neural_alignment.training.divergence import DivergenceError, advice
from neural_alignment.training.evaluate import Evaluator, as_is
from neural_alignment.training.signals import STOP_SIGNALS, noted
from neural_alignment.training.step import Step
from neural_alignment.training.strategy import is_chief, mean_over_workers
from neural_alignment.training.variables import model_variables

_log = logging.getLogger(__name__)

_SECONDS_PER_CHUNK = 1.0


class InterruptedRun(Exception):
    """A stop signal came; the step was finished and saved."""


class Trainer:
    """Trains a model by a step; `keep_in` gives it a run directory.

    Args:
        model: made in the strategy's scope.
        step: of the two losses.
        dataset: train and validation examples.
        plan: how long and how often.
        strategy: the devices.
        callbacks: Keras callbacks; a "batch" is the steps between two looks.
    """

    def __init__(
        self,
        model: keras.Model,
        step: Step,
        dataset: Dataset,
        plan: Plan,
        strategy: tf.distribute.Strategy,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> None:
        self.model = model
        self.step = step
        self.dataset = dataset
        self.plan = plan
        self.strategy = strategy
        self.steps_per_epoch = dataset.steps_per_epoch(plan.train_batch_size)
        self.epochs = min(plan.train_epochs, plan.max_epochs or plan.train_epochs)
        self.total_steps = max(1, whole_steps(self.epochs, self.steps_per_epoch))
        self._kept_steps = plan.kept_steps(self.steps_per_epoch)
        self._global_step = tf.Variable(0, dtype="int64", trainable=False, name="global_step")
        self._sums = tf.Variable(tf.zeros(len(step.measured)), trainable=False, name="sums")
        self._evaluator = Evaluator(model, dataset, plan.eval_batch_size, strategy, step.loss)
        self._signal_here: int | None = None
        self._stop_signal: int | None = None  # of any worker
        self._seconds_per_step = math.inf
        self._train_chunk = tf.function(self._run_steps)
        self._given_callbacks = list(callbacks)
        self.checkpoints: Checkpoints | None = None
        self._metrics: Table | None = None
        self._layer_metrics: Table | None = None

    def keep_in(self, workdir: pathlib.Path) -> None:
        """Keeps checkpoints and tables of metrics in a run directory from now on.

        Every worker reads it, the first alone writes.

        Args:
            workdir: the run directory.
        """
        self.checkpoints = Checkpoints(
            f"{workdir}/checkpoints", self.plan.checkpoint_max, self._kept_steps
        )
        self._metrics = Table(workdir / "metrics.csv", METRICS)
        columns = LAYER_METRICS + PATH_METRICS * self.plan.path_metrics
        self._layer_metrics = Table(workdir / "layers.csv", columns)

    def add_callbacks(self, *callbacks: keras.callbacks.Callback) -> None:
        """Adds Keras callbacks that need the trainer."""
        self._given_callbacks += callbacks

    @property
    def global_step(self) -> int:
        """Steps taken so far."""
        return int(self._global_step.numpy())

    def variables(self) -> dict[str, Any]:
        """Everything that a checkpoint holds, by name."""
        named: dict[str, Any] = {"global_step": self._global_step, "sums": self._sums}
        named |= model_variables(self.model)
        for i, optimizer in enumerate(self.step.optimizers):
            for variable in optimizer.variables:
                path = variable.path.partition("/")[2] or variable.path
                name = f"optimizer_{i}/{path}"
                if name in named:  # an optimizer inside another counts its steps too
                    name = f"optimizer_{i}/inner/{path}"
                if name in named:
                    raise ValueError(f"Expected variables of different names. Received: {name}")
                named[name] = variable
        return named

    def restore(self) -> bool:
        """Takes up the run where its newest whole checkpoint left it.

        Returns:
            Whether there was one.

        Raises:
            CheckpointError: every checkpoint is damaged or lost, or it does not fit.
        """
        if self.checkpoints is None:
            return False
        step = self.checkpoints.newest_whole()
        if step is None:
            self._check_that_none_is_lost()
        else:
            self.checkpoints.restore(step, self.variables())
        # The row of a part of an epoch is the last one; going on, the epoch gets a whole row.
        every = 1 if self._is_last() else self.steps_per_epoch
        kept = [self._metrics, self._layer_metrics]
        if is_chief(self.strategy):
            kept += [each for each in self._given_callbacks if hasattr(each, "truncate")]
        for each in kept:
            each.truncate(self.global_step, every)
        self._check_that_workers_agree()
        return step is not None

    def _check_that_workers_agree(self) -> None:
        (step,) = mean_over_workers(self.strategy, [self.global_step])
        if step != self.global_step:
            raise CheckpointError(
                "Expected every worker to see the same checkpoints. Received: step "
                f"{self.global_step} here, in {self.checkpoints.folder}, and another elsewhere. "
                "Give a --workdir that all of them share."
            )

    def _check_that_none_is_lost(self) -> None:
        """A run killed before its first checkpoint was whole may have rows up to there."""
        rows = self._metrics.rows
        first = max(self._steps_per_checkpoint(), self.steps_per_epoch)
        if rows and int(rows[-1]["global_step"]) > first:
            raise CheckpointError(
                f"{self._metrics.path} has rows up to step {rows[-1]['global_step']}, but there is "
                f"no checkpoint in {self.checkpoints.folder}. Put the checkpoints back, or give "
                "another --workdir to start anew."
            )

    def load_weights(self, prefix: str) -> None:
        """Starts from the weights of another run's checkpoint.

        Args:
            prefix: of the checkpoint.

        Raises:
            CheckpointError: it does not fit the model.
        """
        assign(prefix, model_variables(self.model), within="model/")

    def fit(self) -> dict[str, float]:
        """Trains from the present step to the last.

        Returns:
            The last epoch's row: loss, alignment_loss, val_loss, val_top1, val_top5.

        Raises:
            DivergenceError: a loss or a weight is NaN or infinite; the last finite checkpoint is
                kept.
            InterruptedRun: SIGTERM, SIGINT or SIGHUP; the step was finished and saved.
            CheckpointError: a checkpoint could not be written.
        """
        self.model.stop_training = False
        self._signal_here = self._stop_signal = None
        logs = self._last_row()
        if self.global_step == 0 and self.plan.validate_first:
            logs = self.evaluate()
            _log.info("before the first step: %s", logs)
        if self.global_step == 0 and 0 in self._kept_steps:
            self._save()
        self._callbacks = keras.callbacks.CallbackList(self._given_callbacks, model=self.model)
        self._callbacks.on_train_begin()
        with noted(self._note_signal):
            while self.global_step < self.total_steps and not self._told_to_stop():
                logs = self._epoch()
        self._callbacks.on_train_end(logs)
        return logs or self.evaluate()

    def _note_signal(self, number: int) -> None:
        self._signal_here = number

    def _told_to_stop(self) -> bool:
        """Whether a callback, on any worker, wants no further epoch."""
        return any(mean_over_workers(self.strategy, [self.model.stop_training]))

    def _last_row(self) -> dict[str, float]:
        if self._metrics is None or not self._metrics.rows:
            return {}
        return {name: float(self._metrics.rows[-1][name]) for name in METRICS[2:]}

    def _epoch(self) -> dict[str, float]:
        epoch, done = divmod(self.global_step, self.steps_per_epoch)
        end = min((epoch + 1) * self.steps_per_epoch, self.total_steps)
        self._callbacks.on_epoch_begin(epoch)
        iterator = iter(self._training_data(epoch, done))
        while self.global_step < end:
            self._chunk(iterator, self._chunk_size(end))
            at_end = self.global_step == end
            saves = self._stop_signal is not None or self._checkpoint_due() or self._is_last()
            if at_end:
                if saves:  # a run with its last row is done: nothing may be wrong with it
                    self._check_variables()
                logs = self._end_epoch(epoch)
            if saves:
                self._save()
            if self._stop_signal is not None and not (at_end and self._is_last()):
                raise InterruptedRun(
                    f"{signal.Signals(self._stop_signal).name} came: step {self.global_step} was "
                    "finished and saved"
                )
        return logs

    def _is_last(self) -> bool:
        return self.global_step >= self.total_steps

    def _steps_per_checkpoint(self) -> int:
        return max(1, round(self.plan.epochs_per_checkpoint * self.steps_per_epoch))

    def _checkpoint_due(self) -> bool:
        due = self.global_step % self._steps_per_checkpoint() == 0
        return due or self.global_step in self._kept_steps

    def _chunk_size(self, end: int) -> int:
        now, every = self.global_step, self._steps_per_checkpoint()
        looks = (end, now + every - now % every, now + self.plan.iterations_per_loop)
        kept = [step for step in self._kept_steps if step > now]
        by_clock = max(1.0, _SECONDS_PER_CHUNK / self._seconds_per_step)
        return int(min(min(*looks, *kept) - now, by_clock))

    def _chunk(self, iterator: Iterator[Any], count: int) -> None:
        self._callbacks.on_train_batch_begin(self.global_step)
        traced, began = self.global_step, time.perf_counter()
        first = math.isinf(self._seconds_per_step)
        self._train_chunk(iterator, tf.constant(count))
        sums = self._sums.numpy()
        self._agree((time.perf_counter() - began) / count)
        if first:  # that was mostly tracing; look at the clock again after one more step
            self._seconds_per_step = _SECONDS_PER_CHUNK
        self._check_losses(sums, traced)
        self._callbacks.on_train_batch_end(self.global_step - 1, self._means(sums))

    def _agree(self, seconds_per_step: float) -> None:
        """Takes the same clock and the same signal on every worker: they decide what follows."""
        here = [self._signal_here == number for number in STOP_SIGNALS]
        seconds, *came = mean_over_workers(self.strategy, [seconds_per_step, *here])
        self._seconds_per_step = seconds
        for number, share in zip(STOP_SIGNALS, came, strict=True):
            if share:
                self._stop_signal = number

    def _check_losses(self, sums: np.ndarray, since: int) -> None:
        if np.isfinite(sums).all():
            return
        wrong = [str(name) for name in np.array(self.step.measured)[~np.isfinite(sums)]]
        weights = not_finite(model_variables(self.model))
        where = f"; weights not finite: {', '.join(weights[:6])}" if weights else ""
        when = f"between step {since} and {self.global_step}"
        raise self._divergence(f"{when}: {', '.join(wrong)}{where}", wrong)

    def _divergence(self, what: str, losses: list[str]) -> DivergenceError:
        return DivergenceError(f"NaN or infinite {what}.{self._kept()} {advice(self.step, losses)}")

    def _kept(self) -> str:
        steps = self.checkpoints.steps() if self.checkpoints else []
        return f" The last finite checkpoint is of step {steps[-1]}." if steps else ""

    def _means(self, sums: np.ndarray) -> dict[str, float]:
        steps = (self.global_step - 1) % self.steps_per_epoch + 1
        return {
            name: float(value) / steps for name, value in zip(self.step.measured, sums, strict=True)
        }

    def _end_epoch(self, epoch: int) -> dict[str, float]:
        means = self._means(self._sums.numpy())
        logs = {name: means[name] for name in ("loss", "alignment_loss")} | self.evaluate()
        whole, rest = divmod(self.global_step, self.steps_per_epoch)
        if not rest:
            self._sums.assign(tf.zeros_like(self._sums))
        row = logs | {
            "epoch": whole if not rest else self.global_step / self.steps_per_epoch,
            "global_step": self.global_step,
        }
        layers = [
            {
                "epoch": row["epoch"],
                "global_step": row["global_step"],
                "layer": path,
                "alignment_loss": means.get(f"alignment_loss/{path}", 0.0),
                **measured,
            }
            for path, measured in self.layer_metrics().items()
        ]
        if self._metrics is not None and is_chief(self.strategy):
            self._layer_metrics.append(layers)
            self._metrics.append([row])
        for measured in layers:
            for name in measured.keys() - {"epoch", "global_step", "layer"}:
                logs[f"{name}/{measured['layer']}"] = measured[name]
        self._callbacks.on_epoch_end(epoch, logs)
        return logs

    def layer_metrics(self) -> dict[str, dict[str, float]]:
        """What is measured of every layer with a rule, as the plan says."""
        found = metrics.kernel_metrics(self.model)
        if not self.plan.path_metrics:
            return found
        images, labels = next(iter(self.dataset.validation(self.plan.eval_batch_size)))
        loss = self.step.mean_loss
        parts = [
            metrics.path_metrics(self.model, images, labels, loss),
            error_metrics.error_metrics(self.model, images, labels, loss),
            connection_metrics.connection_metrics(self.model),
        ]
        # Of a layer that no error reaches, or that has no backward kernel but a point.
        missing = dict.fromkeys((*KERNEL_METRICS, *PATH_METRICS), math.nan)
        paths = dict.fromkeys(path for part in (found, *parts) for path in part)
        return {
            path: missing
            | {k: v for part in (found, *parts) for k, v in part.get(path, {}).items()}
            for path in paths
        }

    def _check_variables(self) -> None:
        wrong = not_finite(self.variables()) if self.checkpoints else []
        if wrong:
            raise self._divergence(f"after step {self.global_step}: {', '.join(wrong[:6])}", [])

    def _save(self) -> None:
        if self.checkpoints is None:
            return
        self._check_variables()
        if is_chief(self.strategy):
            self.checkpoints.save(self.global_step, self.variables())
        mean_over_workers(self.strategy, [0.0])  # nobody goes on, or ends, before it is whole

    def evaluate(self) -> dict[str, float]:
        """Loss and accuracy over every validation example, each once.

        Returns:
            val_loss (the mean), val_top1, val_top5 (fractions).
        """
        return self._evaluator()

    def _training_data(self, epoch: int, skip: int) -> Any:
        def shard(context: tf.distribute.InputContext) -> tf.data.Dataset:
            pipelines = context.num_input_pipelines
            batches = self.dataset.train(
                self.plan.train_batch_size,
                epoch,
                self.plan.seed,
                skip,
                (context.input_pipeline_id, pipelines),
            )
            return split(batches, self.strategy.num_replicas_in_sync // pipelines)

        return distribute(self.strategy, shard)

    def _run_steps(self, iterator: Any, count: tf.Tensor) -> None:
        for _ in tf.range(count):
            images, labels = next(iterator)
            per_replica = self.strategy.run(
                as_is(self.step), args=(images, labels, self._global_step.read_value())
            )
            self._sums.assign_add(
                self.strategy.reduce(tf.distribute.ReduceOp.MEAN, per_replica, axis=None)
            )
            self._global_step.assign_add(1)
