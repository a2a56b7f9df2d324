"""Run as a program: every rule on one device and on two logical ones; prints what differs.

TensorFlow makes its devices once in a process, so the test starts a process of its own.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

from neural_alignment import alignments, layers
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
    # One output: with several, Keras 3.8 updates metrics, for which replicas take turns, before it
    # collects the layers' losses.
    return keras.Model(inputs, keras.layers.Concatenate()(outputs))


def train(variants, strategy, x, targets):
    """Weights and losses of two steps of a plain `fit`."""
    with strategy.scope():
        model = make(variants)
        error = keras.losses.mean_squared_error
        model.compile(keras.optimizers.SGD(0.01), lambda y, p: len(variants) * error(y, p))
    y = np.tile(targets, len(variants))
    data = tf.data.Dataset.from_tensors((x, y)).unbatch().batch(len(x)).repeat(2)
    history = model.fit(data, steps_per_epoch=1, epochs=2, verbose=0).history["loss"]
    return model.get_weights(), history


def symmetric_beside_noise(strategy, x, targets):
    """How far R moves B, over what it should, in a layer before one with a noise state."""
    with strategy.scope():
        inputs = keras.Input(x.shape[1:])
        slow = alignments.Symmetric(decay_coef=1e-3, self_coef=2e-3)
        hidden = layers.Conv2D(3, 3, alignment=slow)
        noisy = layers.Conv2D(3, 3, alignment=rule("mirror:noise"))(hidden(inputs))
        outputs = layers.Dense(2, alignment="symmetric")(keras.layers.Flatten()(noisy))
        model = keras.Model(inputs, outputs)
        model.compile(keras.optimizers.SGD(10.0), "mse")
    kernel, before = hidden.kernel.numpy(), hidden.backward_kernel.numpy()
    model.fit(x, targets, batch_size=len(x), verbose=0)
    moved = hidden.backward_kernel.numpy() - before
    return float(np.median(moved / (10.0 * 2e-3 * (kernel - before))))


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
    # Noise is another on every replica.
    plain = [name for name in PLAIN_RULES if not rule(name).is_random]
    variants = [*plain, "mirror:forward", "information:reversal", "sign_symmetry:fixed_random"]
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
        "symmetric": symmetric_beside_noise(two, x, targets),
    }
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
