"""Run as a program: every rule through every layer on this back end, to an .npz file.

KERAS_BACKEND=jax python -m tests.backends.compute FILE [RULE/LAYER ...]
"""

import sys

import keras
import numpy as np

from neural_alignment.layers import training_step
from tests.backends.gradients import gradients
from tests.layers.conformance import EVERY, LAYERS, PLAIN_RULES, REPRESENTATIVES, draw, rule

STEP, SEED = 7, 3
# One rule of each kind goes through every layer in the fast tests; every rule goes through Dense.
SAMPLE = ("symmetric", "mirror:noise", "information", "product", "sign_symmetry")


def every_case():
    """Names of all cases."""
    return [f"{variant}/{name}" for name in LAYERS for variant in EVERY]


def sample():
    """Names of the cases of the fast tests."""
    cases = [f"{variant}/{name}" for name in REPRESENTATIVES for variant in SAMPLE]
    more = ("product:composite", "phaseless:batch")
    cases += [f"{variant}/{name}" for variant in more for name in ("dense", "conv2d_same")]
    return cases + [f"{variant}/dense" for variant in PLAIN_RULES if variant not in SAMPLE]


def made(case_name):
    """The layer of a case with weights that do not depend on the back end."""
    variant, name = case_name.split("/")
    case = LAYERS[name]
    layer = case.make(rule(variant), name=f"{name}_{variant}".replace(":", "_"))
    layer.build(case.input_shape)
    for i, weight in enumerate(layer.weights):
        if weight.name.endswith("mask"):
            value = (draw(tuple(weight.shape), i) > 0).astype("float32")
        elif "int" in keras.backend.standardize_dtype(weight.dtype):
            value = np.array([17, 4])
        elif weight.name == "bias" and getattr(layer, "data_format", "") == "channels_first":
            # XLA on a CPU adds another channel's bias in this layout, to TensorFlow's stock layers.
            value = np.zeros(weight.shape)
        else:
            value = 0.5 * draw(tuple(weight.shape), i)
        weight.assign(value)
    return layer, case


def compute(case_name):
    """Outputs, R and their gradients by name."""
    layer, case = made(case_name)
    x = draw(case.input_shape)
    dy = keras.ops.convert_to_tensor(draw(tuple(layer.compute_output_shape(case.input_shape)), 1))
    floats = [
        w
        for w in layer.weights
        if keras.backend.is_float_dtype(keras.backend.standardize_dtype(w.dtype))
    ]
    sources = {"x": x} | {weight.name: weight for weight in floats}

    def run(values):
        with training_step(STEP, SEED) as active:
            outputs = layer(values["x"], training=True)
        losses = [loss for _, loss in active.losses]
        return outputs, sum(losses[1:], losses[0]) if losses else None

    def j(values):
        outputs, _ = run(values)
        return keras.ops.sum(outputs * dy), {"outputs": outputs}

    found = {}
    value, other, of_j = gradients(j, sources)
    found |= {"J": value, "outputs": other["outputs"]}
    found |= {f"dJ/d{name}": g for name, g in of_j.items()}
    if layer.alignment.has_loss:
        value, _, of_r = gradients(lambda values: (run(values)[1], {}), sources)
        found |= {"R": value} | {f"dR/d{name}": g for name, g in of_r.items()}
    if getattr(layer, "data_format", "") == "channels_first":
        found.pop("dJ/dbias")  # for the same reason
    zeros = {name: 0.0 for name, value in found.items() if value is None}
    return {name: np.asarray(value) for name, value in (found | zeros).items()}


def main(path, *cases):
    results = {
        f"{case}|{name}": value
        for case in cases or every_case()
        for name, value in compute(case).items()
    }
    np.savez(path, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
