"""Golden cases of the operations and of the measures."""

import keras

from neural_alignment import maps, metrics
from tests.backends.gradients import gradients


def run(case, inputs, golden):
    return _RUN[case["op"]](case, inputs)


def _gradients(case, inputs, operation, transpose):
    sources = {name: inputs[name] for name in ("x", "w1", "w2")}
    if transpose:
        sources["w2"] = sources["w2"].T
    dy = keras.ops.convert_to_tensor(inputs["dy"])

    def function(values):
        y = operation(values["x"], values["w1"], values["w2"])
        return keras.ops.sum(y * dy), {"y": y}

    _, outputs, found = gradients(function, sources)
    if found["w2"] is not None and transpose:
        found["w2"] = found["w2"].T
    return outputs | {f"d{name}": gradient for name, gradient in found.items()}


def _matmul(case, inputs):
    def operation(x, w1, w2):
        return maps.matmul(x, w1, w2, case["tie_grad"])

    return _gradients(case, inputs, operation, transpose=True)


def _conv2d(case, inputs):
    def operation(x, w1, w2):
        strides, padding = case["strides"][1:3], case["padding"].lower()
        return maps.conv(x, w1, w2, strides, padding, tie_grad=case["tie_grad"])

    return _gradients(case, inputs, operation, transpose=False)


def _tensor_angle(case, inputs):
    return {"angle_deg": metrics.angle(inputs["a"], inputs["b"])}


def _stats(case, inputs):
    return {
        "sq_norm": metrics.squared_norm(inputs["t"]),
        "sq_mean": metrics.mean_square(inputs["t"]),
    }


_RUN = {
    "custom_matmul": _matmul,
    "custom_conv2d": _conv2d,
    "tensor_angle": _tensor_angle,
    "stats": _stats,
}
