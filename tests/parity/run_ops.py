"""Golden cases of the operations and of the measures."""

import tensorflow as tf

from neural_alignment import maps as operations
from neural_alignment import metrics


def run(case, inputs, golden):
    return _RUN[case["op"]](case, inputs)


def _gradients(case, inputs, operation, transpose):
    x, w1, w2, dy = (tf.constant(inputs[name]) for name in ("x", "w1", "w2", "dy"))
    w2 = tf.transpose(w2) if transpose else w2
    with tf.GradientTape() as tape:
        tape.watch([x, w1, w2])
        y = operation(x, w1, w2)
    dx, dw1, dw2 = tape.gradient(y, [x, w1, w2], dy)
    if dw2 is not None and transpose:
        dw2 = tf.transpose(dw2)
    return {"y": y, "dx": dx, "dw1": dw1, "dw2": dw2}


def _matmul(case, inputs):
    def operation(x, w1, w2):
        return operations.matmul(x, w1, w2, case["tie_grad"])

    return _gradients(case, inputs, operation, transpose=True)


def _conv2d(case, inputs):
    def operation(x, w1, w2):
        strides, padding = case["strides"][1:3], case["padding"].lower()
        return operations.conv(x, w1, w2, strides, padding, tie_grad=case["tie_grad"])

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
