"""The settings of a training job, group by group. `flags.py` makes flags of them."""

from __future__ import annotations

import dataclasses

from neural_alignment import alignments, data, models, optimizers
from neural_alignment.config.options import ByEpochText, ModuleText, PathText, Switch, option
from neural_alignment.config.presets import preset_names
from neural_alignment.runs.steps import whole_steps

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker", "tpu")
_REQUIRED = dataclasses.MISSING
_NOISES = ("normal", "uniform")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """Where a run is kept, and where it comes from."""

    workdir: PathText | None = option(
        None,
        "run directory: flags, metrics, events, checkpoints; the same command again resumes it "
        "(default: runs/DATASET-MODEL-ALIGNMENT-SEED)",
        main=True,
        on_resume="any",
    )
    preset: str | None = option(
        None,
        "published setting to start from; flags after it win",
        preset_names,
        main=True,
        on_resume="any",
    )
    defaults: tuple[str, ...] | None = option(
        None,
        "none: nothing is filled in where a flag is not given (default: what is known to work for "
        "the data set, the model and the rule; a run's flags.cfg names what was filled in)",
        on_resume="any",
    )
    modules: tuple[ModuleText, ...] = option(
        (),
        "module, or .py file, that registers a rule, a model, a data set or an optimizer; may be "
        "repeated",
        flag="import",
        repeat=True,
        main=True,
        on_resume="any",
    )
    load_checkpoint: PathText | None = option(
        None,
        "start from the weights of another run: a checkpoint, or a run directory (its newest)",
        main=True,
        on_resume="any",
    )
    load_step: int | None = option(
        None, "step of the checkpoint to load from a run directory", low=0, on_resume="any"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """How long to train, and how often to look and to save.

    Args:
        train_batch_size: global.
        eval_batch_size: global.
        train_epochs: epochs, whole or not.
        max_epochs: stop after so many of them; None is all.
        epochs_per_checkpoint: epochs between checkpoints.
        checkpoint_max: checkpoints kept.
        keep_epochs: epochs whose checkpoints are kept beside those.
        iterations_per_loop: most steps between two looks at signals and losses.
        seed: of the order of the examples.
        validate_first: validate before the first step too.
        path_metrics: measure what takes a batch, too, for layers.csv.
    """

    seed: int = option(0, "seed of everything random", low=0, high=2**31 - 1, main=True)
    train_epochs: float = option(
        1.0, "epochs to train, and to schedule for", above=0, by_flag=90.0, main=True,
        on_resume="more",
    )  # fmt: skip
    max_epochs: float | None = option(
        None,
        "stop after so many of the train_epochs; schedules stay as they are",
        above=0,
        main=True,
        on_resume="any",
    )
    train_batch_size: int = option(_REQUIRED, "global batch size", low=1, by_flag=256, main=True)
    eval_batch_size: int = option(1024, "global batch of validation", low=1)
    epochs_per_checkpoint: float = option(
        1.0, "epochs between two checkpoints", above=0, main=True, on_resume="any"
    )
    checkpoint_max: int = option(5, "checkpoints kept", low=1, on_resume="any")
    keep_epochs: tuple[float, ...] = option(
        (), "epochs whose checkpoints are kept beside those, comma-separated; 0 is the start",
        low=0, on_resume="any",
    )  # fmt: skip
    validate_first: bool = option(False, "validate before the first step", on_resume="any")
    path_metrics: bool = option(
        False,
        "measure error angles and more in every epoch, on the first validation batch, for "
        "layers.csv and the final table",
    )
    iterations_per_loop: int = option(
        100, "most steps between two looks at the clock and at signals", low=1, on_resume="any"
    )

    def kept_steps(self, steps_per_epoch: int) -> tuple[int, ...]:
        """The last steps of the epochs whose checkpoints are kept.

        Args:
            steps_per_epoch: whole steps in an epoch.

        Returns:
            A step for each of `keep_epochs`.
        """
        return tuple(whole_steps(epoch, steps_per_epoch) for epoch in self.keep_epochs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """The data set, and the options that its loader takes."""

    dataset: str = option("digits", "examples to train on", data.names, main=True)
    data_dir: PathText | None = option(
        None, "folder (or gs:// path) of the data", main=True, on_resume="any"
    )
    download: bool | None = option(
        None, "fetch the data if it is not there", main=True, on_resume="any"
    )
    image_size: int | None = option(None, "pixels a side to resize to", low=1, main=True)
    pixel_mean: float | None = option(
        None, "taken off the pixels, which are from 0 to 1 (MNIST's is 0.1307)"
    )
    pixel_stddev: float | None = option(
        None, "that the pixels are divided by then (MNIST's is 0.3081)", above=0
    )
    preprocessing: str | None = option(None, "of ImageNet's images", ("resnet", "inception"))
    augment: bool | None = option(None, "crop and flip CIFAR's training images (default: yes)")
    max_bad_records: int | None = option(
        None,
        "corrupt images that each process may leave out before it is an error (default: 0)",
        low=0,
    )
    shuffle: bool | None = option(
        None, "training images in another order in every epoch (default: yes)"
    )
    shuffle_buffer: int | None = option(
        None, "images of ImageNet that are shuffled at a time", low=1
    )
    shard_by: str | None = option(None, "what workers divide among them", ("record", "file"))
    num_classes: int | None = option(None, "of the TFRecords", low=2)
    num_train: int | None = option(None, "training images there should be", low=1)
    num_validation: int | None = option(None, "validation images there should be", low=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """The network, and the options that its builder takes."""

    model: str = option("fc", "network to train", models.names, main=True)
    layers_list: tuple[int, ...] | None = option(
        None, "units of fc's hidden layers, comma-separated", low=1, main=True
    )
    filters_list: tuple[int, ...] | None = option(
        None, "filters of conv's convolutions, comma-separated", low=1
    )
    kernels_list: tuple[int, ...] | None = option(
        None, "windows of conv's convolutions, comma-separated", low=1
    )
    activation: str | None = option(
        None, "activation of hidden layers (default: the model's)", main=True
    )
    l2: float | None = option(
        None, "lambda of lambda/2 |W|^2 on forward kernels (default: the model's)", low=0, main=True
    )
    kernel_scale: float | None = option(
        None, "of kernels as they are drawn, over Glorot's (default: 1)", above=0
    )
    bn_trainable: bool | None = option(None, "train BatchNorm and its statistics")
    bn_after_relu: bool | None = option(
        None, "BatchNorm after ReLU instead of before it (default: no)"
    )
    unbiased_variance: bool | None = option(
        None, "feed BatchNorm's moving variance with n/(n-1), as TensorFlow 1 (default: yes)"
    )
    shortcut: str | None = option(None, "of ResNets for 32 pixels", ("identity", "projection"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoefficientSchedule:
    """How a coefficient of R changes over training."""

    start: float = option(0.0, "it is 0 before this fraction of training", low=0, high=1)
    stop: float = option(1.0, "it is 0 after this fraction of training", low=0, high=1)
    cycle: float | None = option(None, "epochs of its triangular cycle", above=0)
    schedule_rate: float = option(0.0, "its growth an epoch")
    schedule_type: str | None = option(None, "its growth", ("linear", "exponential"))
    schedule: ByEpochText | None = option(
        None, "its value by epoch, in its own place: 0:0.5,10:0.1 is 0.1 from epoch 10 on"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearningRate:
    """The learning rate of one of the two losses."""

    learning_rate: float = option(0.02, "learning rate", low=0, main=True)
    rescale_lr: bool = option(False, "multiply it by batch / base_batch_size")
    constant_lr: bool = option(True, "no warm-up and no drops", main=True)
    warmup_epochs: float = option(5.0, "epochs of linear warm-up", low=0, main=True)
    drops: tuple[float, ...] | None = option(
        (30, 60, 80), "epochs at which the rate drops, comma-separated", above=0, main=True,
    )  # fmt: skip
    drop_factor: float = option(0.1, "what a drop multiplies the rate with", above=0, main=True)
    cosine_lr: bool = option(
        False, "after the warm-up a cosine down to 0 at train_epochs, in the drops' place"
    )
    learning_rate_schedule: ByEpochText | None = option(
        None,
        "the rate by epoch, in learning_rate's place: 0:0.01,20:0.005 is 0.005 from epoch 20 on",
        low=0,
    )
    manual_lr: bool = option(False, "one drop, `drop`, after `boundary_step`")
    drop: int = option(
        0, "number of the drop before the boundary step: rate x drop_factor^drop", low=0
    )
    boundary_step: int | None = option(None, "last step before the rate drops once more", low=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignmentLearningRate(LearningRate):
    """The learning rate of the alignment loss, where it has an optimizer of its own."""

    learning_rate: float = option(0.001, "learning rate for the alignment loss", low=0, main=True)
    constant_lr: bool = option(True, "no warm-up and no drops of the alignment loss's rate")
    warmup_epochs: float = option(5.0, "epochs of linear warm-up for the alignment loss", low=0)
    drops: tuple[float, ...] | None = option(
        None, "the same for the alignment loss (default: as drops)", above=0
    )
    drop_factor: float | None = option(
        None, "the same for the alignment loss (default: as drop_factor)", above=0
    )
    cosine_lr: bool = option(False, "the same cosine for the alignment loss's rate")
    learning_rate_schedule: ByEpochText | None = option(
        None, "the alignment loss's rate by epoch, in alignment_learning_rate's place", low=0
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizers:
    """What minimises the two losses, and how their gradients and updates are treated."""

    loss: str = option(
        "softmax",
        "cross-entropy of the logits: of their softmax, or of each one's sigmoid, summed over "
        "classes",
        ("softmax", "sigmoid"),
    )
    optimizer: str = option("momentum", "minimises the loss", optimizers.names, main=True)
    alignment_optimizer: str | None = option(
        None,
        "minimises the alignment loss; without it `optimizer` minimises the total",
        optimizers.names,
        main=True,
    )
    bias_rate: float = option(1.0, "factor of the loss's learning rate on biases", low=0)
    momentum: float | None = option(None, "of the optimizer momentum (default: 0.9)", low=0, high=1)
    nesterov: bool | None = option(None, "the optimizer momentum looks ahead (default: yes)")
    weight_decay: float = option(
        0.0,
        "lambda of lambda/2 |w|^2 on every weight but the rule's, biases too, in l2's place",
        low=0,
        main=True,
    )
    weight_decay_schedule: ByEpochText | None = option(
        None, "the same by epoch, in its place: 0:0.03,1:9e-5", low=0
    )
    base_batch_size: int = option(256, "that learning rates are for", low=1)
    grad_clip: bool = option(False, "clip gradients", main=True)
    grad_clipping_value: float = option(1.0, "bound of clipping", above=0)
    grad_clipping_method: str = option("norm", "each value, or the global norm", ("value", "norm"))
    use_noisy_global_opt: bool = option(False, "noisy updates of the loss's optimizer")
    noisy_global_opt_distribution: str | None = option(
        None, "of its noise (default: noisy_opt_distribution)", _NOISES
    )
    noisy_global_opt_variance: float | None = option(
        None, "of its noise (default: noisy_opt_variance)", low=0
    )
    use_noisy_alignment_opt: bool = option(False, "noisy updates of the alignment optimizer")
    noisy_alignment_opt_distribution: str | None = option(
        None, "of its noise (default: noisy_opt_distribution)", _NOISES
    )
    noisy_alignment_opt_variance: float | None = option(
        None, "of its noise (default: noisy_opt_variance)", low=0
    )
    noisy_opt_distribution: str = option("normal", "of the noise of updates", _NOISES)
    noisy_opt_variance: float = option(1.0, "of the noise, times the rate", low=0)

    @property
    def decays_weights(self) -> bool:
        """Whether every weight decays, in the place of the model's l2."""
        return self.weight_decay > 0.0 or self.weight_decay_schedule is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """When each of the two losses trains, and with what weight."""

    loss_rate: float = option(1.0, "factor of the loss", low=0)
    alignment_rate: float = option(1.0, "factor of the alignment loss", low=0)
    delay_epochs: float | None = option(
        None, "epochs at the start with the alignment loss alone", low=0
    )
    alternate_step_freq: int | None = option(None, "loss steps after each alignment step", low=1)
    constant_rate: bool = option(True, "loss_rate and alignment_rate stay; else x0.1 at 30, 60, 80")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Devices:
    """Where a job runs, and how the step is computed there."""

    strategy: str = option("auto", "devices to train on", STRATEGIES, main=True)
    logical_cpus: int | None = option(
        None,
        "split the CPU in so many devices, and train on them: to try strategy=mirrored",
        low=1,
    )
    gpu: str | None = option(
        None, "indices of the GPUs to use, comma-separated", main=True, on_resume="any"
    )
    tpu_name: str | None = option(None, "name of the TPU, or local", on_resume="any")
    tpu_zone: str | None = option(None, "zone of the TPU", on_resume="any")
    gcp_project: str | None = option(None, "project of the TPU", on_resume="any")
    minibatch_size: int | None = option(
        None,
        "split each batch in micro-batches of so many examples; gradients are averaged",
        low=1,
    )
    dtype: str = option("float32", "what the layers compute in", ("float32", "bfloat16"))
    jit_compile: Switch = option(
        "auto",
        "compile the step with XLA; auto: on GPUs and TPUs",
        ("auto", "true", "false"),
    )
    tf32: bool = option(
        True, "float32 products of GPUs in TensorFloat-32: 10 bits of mantissa, and faster"
    )


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
