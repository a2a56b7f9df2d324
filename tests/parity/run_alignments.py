"""Golden cases of the rules: R and its gradients on one layer's tensors."""

import keras
import tensorflow as tf

from neural_alignment.maps import Conv, Matmul
from tests.parity.rules import dense_layout, rule


def run(case, inputs, golden):
    is_dense = case["layer_type"] == "fc"
    alignment = rule(case["rule"], case["coeffs"], case["options"], case["rule_options"])
    tensors = {
        name: tf.constant(dense_layout(name, value) if is_dense else value)
        for name, value in inputs.items()
    }
    linear = Matmul() if is_dense else _conv(case["conv"])
    activation = case["activation"] and keras.activations.get(case["activation"])
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        loss = alignment(
            tensors["x"],
            forward_kernel=tensors["W"],
            backward_kernel=tensors["B"],
            linear=linear,
            bias=tensors.get("b"),
            activation=activation,
            forward_projection=linear.apply(tensors["x"], tensors["W"]),
        )
    gradients = tape.gradient(loss, tensors)
    outputs = {f"dR_d{name}": gradient for name, gradient in gradients.items()}
    if is_dense and outputs["dR_dB"] is not None:
        outputs["dR_dB"] = tf.transpose(outputs["dR_dB"])
    return {"R": loss, **outputs}


def _conv(settings):
    strides = settings.get("strides", 1)
    strides = strides[1:3] if isinstance(strides, list) and len(strides) == 4 else strides
    return Conv(strides, settings.get("padding", "VALID").lower())
