"""Golden cases of the rules: R and its gradients on one layer's tensors."""

import keras

from neural_alignment.maps import Conv, Matmul
from tests.backends.gradients import gradients
from tests.parity.rules import dense_layout, rule


def run(case, inputs, golden):
    is_dense = case["layer_type"] == "fc"
    alignment = rule(case["rule"], case["coeffs"], case["options"], case["rule_options"])
    sources = {
        name: dense_layout(name, value) if is_dense else value for name, value in inputs.items()
    }
    linear = Matmul() if is_dense else _conv(case["conv"])
    activation = case["activation"] and keras.activations.get(case["activation"])

    def function(values):
        loss = alignment(
            values["x"],
            forward_kernel=values["W"],
            backward_kernel=values["B"],
            linear=linear,
            bias=values.get("b"),
            activation=activation,
            forward_projection=linear.apply(values["x"], values["W"]),
        )
        return loss, {}

    loss, _, found = gradients(function, sources)
    outputs = {f"dR_d{name}": gradient for name, gradient in found.items()}
    if is_dense and outputs["dR_dB"] is not None:
        outputs["dR_dB"] = outputs["dR_dB"].T
    return {"R": loss, **outputs}


def _conv(settings):
    strides = settings.get("strides", 1)
    strides = strides[1:3] if isinstance(strides, list) and len(strides) == 4 else strides
    return Conv(strides, settings.get("padding", "VALID").lower())
