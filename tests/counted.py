"""The network whose operations are counted, on every back end."""

import keras

from neural_alignment import layers

CONV_LAYERS, DENSE_LAYERS = 2, 1


def network(alignment):
    """Two convolutions and a Dense layer: small, as XLA takes seconds to compile it."""
    inputs = keras.Input((8, 8, 3))
    x = inputs
    for filters, strides in ((4, 1), (6, 2)):
        x = layers.Conv2D(
            filters, 3, strides=strides, padding="same", activation="relu", alignment=alignment
        )(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, alignment=alignment)(x))
