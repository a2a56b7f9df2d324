"""Small models and data for the callbacks, on any back end."""

import keras
import numpy as np

from neural_alignment import layers

X = np.random.default_rng(0).normal(size=(8, 5)).astype("float32")
LABELS = np.arange(8) % 3


def nested(alignment, **compile_options):
    """One layer, one in a model inside, one more."""
    keras.utils.set_random_seed(0)
    inner = keras.Sequential(
        [keras.Input((6,)), layers.Dense(6, "relu", alignment=alignment, name="deep")], name="inner"
    )
    inputs = keras.Input((5,))
    x = layers.Dense(6, "relu", alignment=alignment, name="first")(inputs)
    made = keras.Model(inputs, layers.Dense(3, alignment=alignment, name="last")(inner(x)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(**{"optimizer": keras.optimizers.SGD(0.02), "loss": loss} | compile_options)
    return made


def fit(made, *callbacks, epochs=2, **options):
    options = {"batch_size": 4, "shuffle": False, "verbose": 0} | options
    return made.fit(X, LABELS, epochs=epochs, callbacks=list(callbacks), **options).history


def value(variable):
    return keras.ops.convert_to_numpy(variable)
