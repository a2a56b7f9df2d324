"""Run as a program: 50 steps on the digits with every rule, on this back end, and their files.

KERAS_BACKEND=torch python -m tests.backends.train FOLDER RULE ...
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np

from neural_alignment import data, layers
from tests.layers.conformance import draw, rule

STEPS, BATCH = 50, 32


def digits():
    """Images in [0, 1] as `[examples, 8, 8, 1]` and labels."""
    loaded = data.get("digits")
    images = (loaded.train_images / loaded.scale).astype("float32")
    return images.reshape(len(images), 8, 8, 1), loaded.train_labels


def made(variant):
    """A small network whose weights do not depend on the back end."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, strides=2, activation="relu", alignment=rule(variant)),
            keras.layers.Flatten(),
            layers.Dense(10, alignment=rule(variant)),
        ]
    )
    for i, weight in enumerate(model.weights):
        shape = tuple(weight.shape)
        if "int" in keras.backend.standardize_dtype(weight.dtype):
            weight.assign(np.array([11 + i, 0]))
        elif weight.name.endswith("mask"):
            weight.assign((draw(shape, i) > 0).astype("float32"))
        else:
            weight.assign(draw(shape, i) / np.sqrt(np.prod(shape[:-1])))
    return model


def train(variant):
    """Model and the loss of every step."""
    model = made(variant)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss)
    images, labels = digits()
    losses = []
    for i in range(STEPS):
        batch = slice(i * BATCH % 1024, i * BATCH % 1024 + BATCH)
        losses.append(float(model.train_on_batch(images[batch], labels[batch])))
        model.reset_metrics()
    return model, losses


def main(folder, *variants):
    folder = Path(folder)
    found = {}
    for variant in variants:
        model, losses = train(variant)
        outputs = keras.ops.convert_to_numpy(model(digits()[0][:8]))
        model.save(folder / f"{variant.replace(':', '-')}.keras")
        found[variant] = {"losses": losses, "outputs": outputs.tolist()}
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
