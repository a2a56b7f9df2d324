"""What a job is made of, from its settings: data set, rule, model, optimizers, step, trainer."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import keras
from absl import flags

from neural_alignment import alignments, data, models, optimizers
from neural_alignment.config import Plan, Settings, UsageError, read
from neural_alignment.config.flags import DATA_FLAGS, MODEL_FLAGS
from neural_alignment.config.made import (
    learning_rate,
    loss_rates,
    make_optimizer,
    make_rule,
    weight_decay,
)
from neural_alignment.layers import aligned_layers
from neural_alignment.lazy import tf
from neural_alignment.messages import one_line
from neural_alignment.optimizers import stability
from neural_alignment.training.compilation import is_compiled
from neural_alignment.training.loop import Trainer
from neural_alignment.training.step import Step
from neural_alignment.training.strategy import compiles_itself


def _of_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """Lets a function take parsed flags in the place of settings, as it did in 0.1."""

    @functools.wraps(function)
    def call(settings: Settings | flags.FlagValues, *rest: Any, **more: Any) -> Any:
        if isinstance(settings, flags.FlagValues):
            settings = read(settings)
        return function(settings, *rest, **more)

    return call


# By these names `training.job` still has them.
rule_of_flags, learning_rate_of_flags = _of_flags(make_rule), _of_flags(learning_rate)


@_of_flags
def load_dataset(settings: Settings, to_train: bool = True) -> data.Dataset:
    """The data set of `--dataset`, checked.

    Args:
        settings: of the job.
        to_train: False: validation alone is wanted, and of data in files nothing else need be
            there.

    Returns:
        The data set.

    Raises:
        UsageError: data that are not there, damaged or not what they should be, or
            a batch larger than the data set.
        OSError: storage that failed.
    """
    name = settings.data.dataset
    given = _given(settings.data, DATA_FLAGS)
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
            f"{flag}: Expected storage that can be read. Received: {type(error).__name__}, "
            f"{one_line(error)}. See that the path is right, and that this machine reaches it and "
            "may read it."
        ) from error
    if not to_train:
        return dataset
    try:
        dataset.steps_per_epoch(settings.plan.train_batch_size)
    except ValueError as error:
        raise UsageError(f"--train_batch_size: {error}") from error
    return dataset


def _given(group: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(group, name) for name in names if getattr(group, name) is not None}


def doubts(settings: Settings, layers: int = 1) -> list[str]:
    """Why the rule's settings cannot align, where they cannot.

    Args:
        settings: of the job, checked.
        layers: how many the rule is in.

    Returns:
        A sentence or two for each reason.
    """
    rule = make_rule(settings, 1)
    if rule is None:
        return []
    found = [*rule.doubts(), *_doubts_of_optimizers(settings, rule, layers)]
    return [f"--alignment={rule.name}: {doubt}" for doubt in found]


def _doubts_of_optimizers(settings: Settings, rule: Any, layers: int) -> list[str]:
    apart = settings.optimizers.alignment_optimizer is not None
    optimizer = make_optimizer(settings, 1, of_alignment=apart)
    if not rule.has_loss:
        return []
    if apart and rule.tie_grad and stability.momentum_and_limit(optimizer)[1] is None:
        name = settings.optimizers.alignment_optimizer
        return [
            f"R is a decay of both kernels, and {name} makes steps of its rate's size of it "
            "whatever decay_coef: both are driven to 0. Expected no alignment_optimizer, or gd or "
            f"momentum. Received: alignment_optimizer={name}"
        ]
    rate = learning_rate(settings, 1, of_alignment=apart)
    values = getattr(rate, "values", None) or (getattr(rate, "value", rate),)
    largest = max(value for value in values if isinstance(value, (int, float)))
    taken = rule, optimizer, largest, settings.timing.alignment_rate
    found = [
        stability.overshoot(*taken),
        stability.amplification([stability.swing(*taken)] * layers),
    ]
    return [doubt for doubt in found if doubt is not None]


@_of_flags
def build_model(settings: Settings, dataset: data.Dataset) -> keras.Model:
    """The model, for a data set.

    Args:
        settings: of the job, checked.
        dataset: gives the input's shape and the number of classes.

    Returns:
        A functional model that ends in logits.

    Raises:
        UsageError: the model cannot be built for these images.
    """
    keras.utils.set_random_seed(settings.plan.seed)
    bfloat16 = settings.devices.dtype == "bfloat16"
    keras.config.set_dtype_policy("mixed_bfloat16" if bfloat16 else "float32")
    # A batch larger than the data set is an error of training alone.
    rule = make_rule(settings, max(1, dataset.num_train // settings.plan.train_batch_size))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", alignments.AlignmentWarning)
            return models.get(
                settings.model.model,
                input_shape=dataset.image_shape,
                num_classes=dataset.num_classes,
                alignment=rule,
                **_model_options(settings),
            )
    except ValueError as error:
        raise UsageError(f"--model={settings.model.model}: {error}") from error


def _model_options(settings: Settings) -> dict[str, Any]:
    given = _given(settings.model, MODEL_FLAGS)
    if settings.optimizers.decays_weights and "l2" in models.options(settings.model.model):
        given["l2"] = 0.0
    return given


def make_trainer(
    settings: Settings,
    dataset: data.Dataset,
    strategy: Any,
    plan: Plan | None = None,
) -> Trainer:
    """Model, optimizers and step in the strategy's scope, and the loop around them.

    Args:
        settings: of the job, checked.
        dataset: the examples.
        strategy: the devices.
        plan: how long to train, where it is not the settings' own.

    Returns:
        The trainer, at step 0.
    """
    steps_per_epoch = dataset.steps_per_epoch(settings.plan.train_batch_size)
    two = settings.optimizers.alignment_optimizer is not None
    with strategy.scope():
        model = build_model(settings, dataset)
        step = Step(
            model,
            make_optimizer(settings, steps_per_epoch, of_alignment=False),
            make_optimizer(settings, steps_per_epoch, of_alignment=True) if two else None,
            *loss_rates(settings, steps_per_epoch),
            loss=settings.optimizers.loss,
            bias_rate=settings.optimizers.bias_rate,
            weight_decay=weight_decay(settings, steps_per_epoch),
            clip=_clip(settings),
            micro_batches=_micro_batches(settings),
            seed=settings.plan.seed,
            jit_compile=is_compiled(settings.devices.jit_compile, strategy, model)
            and not compiles_itself(strategy),
        )
        return Trainer(model, step, dataset, plan or settings.plan, strategy)


def _micro_batches(settings: Settings) -> int:
    size = settings.devices.minibatch_size
    return 1 if size is None else settings.plan.train_batch_size // size


def _clip(settings: Settings) -> optimizers.Clip | None:
    o = settings.optimizers
    return optimizers.Clip(o.grad_clipping_method, o.grad_clipping_value) if o.grad_clip else None


@_of_flags
def schedules(settings: Settings, trainer: Trainer) -> dict[str, Callable[[int], Any]]:
    """Every function of the global step in a run, by name, for its events.

    Args:
        settings: of the job, checked.
        trainer: of the same job.

    Returns:
        Name to function.
    """
    # Made anew from the settings: an optimizer tells its rate at its own count of steps alone.
    steps = trainer.steps_per_epoch
    named: dict[str, Any] = {
        "loss_rate": trainer.step.loss_rate,
        "alignment_rate": trainer.step.alignment_rate,
        "learning_rate": learning_rate(settings, steps),
    }
    if len(trainer.step.optimizers) == 2:
        named["alignment_learning_rate"] = learning_rate(settings, steps, of_alignment=True)
    if trainer.step.weight_decay is not None:
        named["weight_decay"] = trainer.step.weight_decay
    for layer in aligned_layers(trainer.model):
        for name in layer.alignment.option_names():
            if name.endswith("_coef"):
                named[name] = getattr(layer.alignment, name)
    return {
        name: value if callable(value) else lambda step, value=value: value
        for name, value in named.items()
    }
