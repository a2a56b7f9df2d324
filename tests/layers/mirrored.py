"""Run as a program: every rule on one device and on two logical ones; prints what differs.

TensorFlow makes its devices once in a process, so the test starts a process of its own.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

from neural_alignment import layers
from neural_alignment.layers import training_step
from tests.layers.conformance import PLAIN_RULES, RULES, draw, rule


def make(variants):
    """A model with a branch for every rule, the same weights every time."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 5, 2))
    outputs = []
    for variant in variants:
        x = layers.Conv2D(3, 3, strides=2, activation="tanh", alignment=rule(variant))(inputs)
        x = keras.layers.Flatten()(x)
        outputs.append(layers.Dense(2, alignment=rule(variant))(x))
    return keras.Model(inputs, outputs)


def train(variants, strategy, x, targets):
    """Weights and losses of two steps of a plain `fit`."""
    with strategy.scope():
        model = make(variants)
        model.compile(keras.optimizers.SGD(0.1), ["mse"] * len(variants))
    y = tuple(targets for _ in variants)
    data = tf.data.Dataset.from_tensors((x, y)).unbatch().batch(len(x)).repeat(2)
    history = model.fit(data, steps_per_epoch=1, epochs=2, verbose=0).history["loss"]
    return model.get_weights(), history


def noise_of_replicas(strategy, x):
    """R of a rule on noise, by replica, twice at one step and once at the next."""
    with strategy.scope():
        model = make(["mirror:noise"])
    values = strategy.experimental_distribute_values_from_function(lambda _: tf.constant(x))

    @tf.function
    def step(global_step):
        def replica(x):
            with training_step(global_step, seed=1) as active:
                model(x, training=True)
            return tf.add_n([loss for _, loss in active.losses])

        return strategy.run(replica, args=(values,))

    runs = [step(tf.constant(i)) for i in (0, 0, 1)]
    return [[float(v) for v in strategy.experimental_local_results(run)] for run in runs]


def main():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    one = tf.distribute.OneDeviceStrategy("/cpu:0")
    two = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
    variants = [*PLAIN_RULES, *(v for v in RULES if v.startswith("sign_symmetry:fixed"))]
    x, targets = draw((4, 6, 5, 2)), draw((4, 2), 1)
    weights, losses = train(variants, one, x, targets)
    mirrored, mirrored_losses = train(variants, two, x, targets)
    random, _ = train([v for v in RULES if v in ("mirror:noise",)], two, x, targets)
    start = make(variants).get_weights()
    result = {
        "replicas": two.num_replicas_in_sync,
        "losses": [losses, mirrored_losses],
        "largest": max(float(np.abs(a - b).max()) for a, b in zip(weights, mirrored, strict=True)),
        "moved": max(float(np.abs(a - b).max()) for a, b in zip(weights, start, strict=True)),
        "finite": all(np.all(np.isfinite(w)) for w in random),
        "noise": noise_of_replicas(two, x),
    }
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
