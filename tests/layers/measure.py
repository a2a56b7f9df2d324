"""One call of one layer with everything the tests look at."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from neural_alignment.layers import training_step


@dataclasses.dataclass
class Measured:
    """Outputs, R and the gradients of J = sum(dy * y) and of R; None is no gradient."""

    outputs: tf.Tensor
    loss: tf.Tensor | None
    of_j: dict
    of_r: dict


def sources(layer, x) -> dict:
    """The input and every float weight by name, as tensors a tape can watch."""
    weights = {w.name: w.value for w in layer.weights if "int" not in w.dtype}
    return {"x": x, **weights}


def measure(layer, x, dy, step=0, seed=0) -> Measured:
    """Runs the layer in training mode inside a `training_step`."""
    named = sources(layer, x)
    with tf.GradientTape(persistent=True) as tape:
        for tensor in named.values():
            tape.watch(tensor)
        with training_step(step, seed) as active:
            outputs = layer(x, training=True)
        j = tf.reduce_sum(tf.cast(outputs, "float32") * tf.cast(dy, "float32"))
        loss = active.losses[0][1] if active.losses else None
    of_r = dict.fromkeys(named) if loss is None else tape.gradient(loss, named)
    return Measured(outputs, loss, tape.gradient(j, named), of_r)


def built(case, alignment, seed=0, **changes):
    """The layer of a case, built, with reproducible weights."""
    keras.utils.set_random_seed(seed)
    layer = case.make(alignment, **changes)
    layer.build(case.input_shape)
    return layer


def output_shape(case):
    """Shape of the layer's output, the batch first."""
    return case.make(None).compute_output_shape(case.input_shape)


def numpy(value) -> np.ndarray | None:
    """A float64 array of a tensor; None stays None."""
    return None if value is None else np.asarray(tf.cast(value, "float64"))
