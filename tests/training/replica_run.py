"""Trains one network with every rule on the devices that it is told, for test_replicas.py."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from neural_alignment import alignments, data, optimizers
from neural_alignment.layers import Conv2D, Dense, align
from neural_alignment.layers.aligned import aligned_layers, training_step
from neural_alignment.models.normalization import BatchNormalization
from neural_alignment.optimizers.optimizers import Clip
from neural_alignment.training.loop import Plan, Trainer
from neural_alignment.training.step import Step
from neural_alignment.training.strategy import is_chief, make_strategy

BATCH, STEPS = 32, 4
EVAL_BATCH = 104  # 450 examples: the last batch is a part, and smaller than the replicas' share

# What does not see the batch: kernel-only losses and projections of the layer's own input, without
# noise and without batch centring, and with no draw of a kernel at every step.
OWN_INPUT = {"input_distribution": None}
OPTIONS = {
    "activation": {"activation_forward": True, "activation_backward": True},
    "mirror": OWN_INPUT | {"use_bias_forward": True},
    "information": OWN_INPUT | {"center_input": True, "normalize_forward_output": True},
}
VARIANTS = {
    "mirror": (OWN_INPUT | {"normalize_input": True, "center_forward_output": True},),
    "information": (
        OWN_INPUT
        | {"reconstruction_reversal": True, "reconstruction_amp": True, "use_sparse": True},
    ),
    "sign_symmetry": ({"magnitude": "fixed_random"},),
}


def rules() -> list[alignments.Alignment]:
    """One object for each rule of the registry, and more for some."""
    made = [
        alignments.rule(name)(**OPTIONS.get(name, {}))
        for name in alignments.layer_names()
        if not alignments.rule(name).disturbs_input  # every replica has noise of its own
    ]
    for name, variants in VARIANTS.items():
        made += [alignments.rule(name)(**options) for options in variants]
    return made


def network(every: list[alignments.Alignment], convolutions: bool) -> keras.Model:
    """A Dense layer for each rule, after a convolution for each where wanted; named after it."""
    inputs = x = keras.Input((8, 8, 1))
    for i, rule in enumerate(every if convolutions else ()):
        name = f"conv{i}_{rule.name}"
        x = Conv2D(4, 3, padding="same", activation="relu", alignment=rule, name=name)(x)
    x = keras.layers.Flatten()(x)
    for i, rule in enumerate(every):
        x = Dense(24, activation="tanh", alignment=rule, name=f"dense{i}_{rule.name}")(x)
    return keras.Model(inputs, Dense(10, name="logits")(x))


def train(
    strategy: tf.distribute.Strategy, convolutions: bool, compiled: bool
) -> dict[str, np.ndarray]:
    """A few steps with two optimizers and clipping; losses, weights, slots, validation."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = network(rules(), convolutions)
        step = Step(
            model,
            optimizers.get("momentum", learning_rate=0.3),
            optimizers.get("adam", learning_rate=1e-3),
            lambda step: 1.0,
            lambda step: 1.0,
            clip=Clip("norm", 1.0),
            jit_compile=compiled,
        )
        plan = Plan(train_batch_size=BATCH, eval_batch_size=EVAL_BATCH, iterations_per_loop=3)
        trainer = Trainer(model, step, data.get("digits"), plan, strategy)
    trainer.total_steps = STEPS
    start = {f"start/{weight.path}": np.asarray(weight) for weight in model.weights}
    logs = trainer.fit()
    values = start | {name: np.asarray(variable) for name, variable in trainer.variables().items()}
    return values | {f"logs/{name}": np.asarray(value) for name, value in logs.items()}


def of_models(strategy: tf.distribute.Strategy, compiled: bool) -> dict[str, np.ndarray]:
    """Weights and losses of a small network with every rule of whole models, after some steps."""
    found = {}
    for name in sorted(set(alignments.names()) - set(alignments.layer_names())):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            x = inputs = keras.Input((8, 8, 1))
            x = keras.layers.Conv2D(4, 3, strides=2, activation="relu", name="conv")(x)
            x = keras.layers.Dense(10, name="logits")(keras.layers.Flatten()(x))
            model = align(keras.Model(inputs, x), name)
            rate = lambda step: 1.0  # noqa: E731
            optimizer = optimizers.get("momentum", learning_rate=0.3)
            step = Step(model, optimizer, None, rate, rate, jit_compile=compiled)
            plan = Plan(train_batch_size=BATCH, eval_batch_size=EVAL_BATCH)
            trainer = Trainer(model, step, data.get("digits"), plan, strategy)
        trainer.total_steps = STEPS
        logs = trainer.fit()
        found |= {f"{name}/{v.path}": np.asarray(v) for v in model.weights}
        found |= {f"{name}/{key}": np.asarray(value) for key, value in logs.items()}
    return found


def noise(strategy: tf.distribute.Strategy) -> dict[str, np.ndarray]:
    """Each replica's alignment losses of noisy rules, on the same batch and the same weights."""
    keras.utils.set_random_seed(0)
    noisy = [
        alignments.rule("mirror")(input_distribution="normal", input_stddev=1.0),
        alignments.rule("information")(input_distribution="uniform", input_stddev=1.0),
        alignments.rule("activation")(input_distribution="normal", input_stddev=1.0),
        alignments.rule("phaseless")(),
    ]
    with strategy.scope():
        model = network(noisy, convolutions=True)
    images = tf.ones((4, 8, 8, 1))

    @tf.function
    def losses(step: tf.Tensor):
        def replica() -> tf.Tensor:
            with training_step(step, seed=3) as active:
                model(images, training=True)
            assert len(active.losses) == len(aligned_layers(model))
            return tf.stack([loss for _, loss in active.losses])

        return strategy.experimental_local_results(strategy.run(replica))

    return {f"noise_{step}": np.stack(losses(tf.constant(step))) for step in range(2)}


def statistics(strategy: tf.distribute.Strategy, compiled: bool) -> dict[str, np.ndarray]:
    """BatchNorm's moving statistics of each replica of this process, after a step at rate 0."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        x = inputs = keras.Input((8, 8, 1))
        normalization = BatchNormalization()
        x = keras.layers.Flatten()(normalization(Conv2D(4, 3)(x)))
        model = keras.Model(inputs, Dense(10)(x))
        optimizer = optimizers.get("gd", learning_rate=0.0)
        rate = lambda step: 1.0  # noqa: E731
        step = Step(model, optimizer, None, rate, rate, jit_compile=compiled)
        plan = Plan(train_batch_size=BATCH, eval_batch_size=EVAL_BATCH)
        trainer = Trainer(model, step, data.get("digits"), plan, strategy)
    trainer.total_steps = 1
    logs = trainer.fit()
    found = {"bn/val_top1": np.asarray(logs["val_top1"])}
    for variable in (normalization.moving_mean, normalization.moving_variance):
        copies = strategy.experimental_local_results(variable.value)
        found[f"bn/{variable.name}"] = np.stack([np.asarray(copy) for copy in copies])
    return found


def main(folder: pathlib.Path, kinds: Sequence[str], convolutions: bool, task: str = "") -> None:
    """Writes FOLDER/KIND.npz for each kind of strategy.

    Args:
        folder: for results, and for what the process says.
        kinds: one_device, mirrored_2, mirrored_8; or multi_worker alone; each with "_compiled" for
            XLA.
        convolutions: in the network.
        task: TF_CONFIG of a worker.
    """
    name = "-".join(kinds)
    for stream in (1, 2):
        os.dup2(os.open(folder / f"{name}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    if task:
        os.environ["TF_CONFIG"] = task
    else:
        cpu = tf.config.list_physical_devices("CPU")[0]
        configuration = [tf.config.LogicalDeviceConfiguration()] * 8
        tf.config.set_logical_device_configuration(cpu, configuration)
    for kind in kinds:
        name, mark, _ = kind.partition("_compiled")
        if name.startswith("mirrored"):
            devices = [f"CPU:{i}" for i in range(int(name.removeprefix("mirrored_")))]
            strategy = tf.distribute.MirroredStrategy(devices)
        else:
            strategy = make_strategy(name)
        compiled = bool(mark)
        values = train(strategy, convolutions, compiled) | statistics(strategy, compiled)
        values |= of_models(strategy, compiled) if convolutions else {}
        values |= noise(strategy) if not compiled else {}
        chief = "" if is_chief(strategy) else "_other"
        np.savez(folder / f"{kind}{chief}.npz", **values)
    sys.stdout.flush()
