"""One call of one layer with everything the tests look at."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from neural_alignment.layers import training_step
from tests.alignments import reference

# Where `measure` and what it is compared with take their random numbers.
STEP, SEED = 7, 3


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


def measure(layer, x, dy, step=STEP, seed=SEED) -> Measured:
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


def weights(layer) -> dict:
    """Every float weight by name, as a float64 array."""
    return {w.name: np.asarray(w.value, "float64") for w in layer.weights if w.dtype != "int32"}


def trained(layer) -> list[str]:
    """Names of what the rule trains."""
    return [w.name for w in layer.trainable_weights if w.name.startswith("backward_")]


def backward_kernel(layer, values):
    """B from the weights; for rules that derive it from W, as the layer gives it."""
    mask = values.get("backward_mask", 1.0)
    if "backward_kernel_rq" in values:
        return values["backward_kernel_rq"]
    if layer.alignment.name == "product":
        return (values["backward_kernel_r"] * mask) @ values["backward_kernel_q"]
    if layer.alignment.name == "sign_symmetry":
        with training_step(STEP, SEED):
            return numpy(layer.backward_kernel_value())
    return values["backward_kernel"] * mask


def noise(layer, shape):
    """The noise input of the step, made from its random bits; None is no noise."""
    distribution = getattr(layer.alignment, "input_distribution", None)
    if distribution is None:
        return None
    with training_step(STEP, SEED):
        seed = layer.sites[0].noise_seed(training=False)
    words = shape if distribution == "uniform" else (2, (np.prod(shape) + 1) // 2)
    bits = tf.random.stateless_uniform(
        words, seed, minval=None, maxval=None, dtype="uint32", alg="philox"
    )
    return reference.noise(layer.alignment, shape, bits.numpy())


def bias_for_outputs(layer, values):
    """The bias, broadcastable to the output."""
    bias = values["bias"]
    first = getattr(layer, "data_format", None) == "channels_first"
    return bias.reshape(-1, *(1,) * layer.rank) if first else bias


def reference_loss(layer, x, values):
    """R of the layer at other weights, in float64."""
    mask = values.get("backward_mask", 1.0)
    if "backward_kernel_r" in values:
        trained = values["backward_kernel_r"] * mask
    else:
        trained = values.get("backward_kernel_rq")
    return reference.alignment_loss(
        layer.alignment,
        reference.Map(layer),
        x.astype("float64"),
        values["kernel"],
        backward_kernel(layer, values),
        bias=bias_for_outputs(layer, values),
        activation=layer.activation.__name__,
        noise=noise(layer, x.shape),
        r=trained,
    )
