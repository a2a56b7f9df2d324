"""How far the backward path is from the forward path: angles and norms ([K] section 4, [A] fig. 3).

Angles are in degrees between flattened tensors; 0 where both point the same way, 90 where one of
them is zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from neural_alignment.layers.aligned import aligned_layers, probe
from neural_alignment.maps import Linear


def angle(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Angle between two tensors as vectors: `2 atan2(|a - b|, |a + b|)` of their unit vectors.

    The form keeps small angles that `acos` of a float32 cosine would lose.

    Args:
        first: any shape.
        second: the same shape.

    Returns:
        A float32 scalar, degrees in [0, 180].
    """
    a, b = (_unit(_float32(t)) for t in (first, second))
    apart, along = tf.norm(a - b), tf.norm(a + b)
    degrees = 2.0 * tf.atan2(apart, along) * (180.0 / math.pi)
    return tf.where(apart + along > 0.0, degrees, 90.0)


def _float32(x: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.convert_to_tensor(x), "float32")


def _unit(x: tf.Tensor) -> tf.Tensor:
    # Scaled by the largest element first, so that squares neither overflow nor vanish.
    x = tf.math.divide_no_nan(x, tf.reduce_max(tf.abs(x)))
    return tf.math.divide_no_nan(x, tf.norm(x))


def squared_norm(x: tf.Tensor) -> tf.Tensor:
    """Squared norm, `sum x^2`.

    Args:
        x: any shape.

    Returns:
        A scalar.
    """
    return tf.reduce_sum(tf.square(x))


def mean_square(x: tf.Tensor) -> tf.Tensor:
    """Mean square, `mean x^2`.

    Args:
        x: any shape.

    Returns:
        A scalar.
    """
    return tf.reduce_mean(tf.square(x))


def weight_angle(forward_kernel: tf.Tensor, backward_kernel: tf.Tensor) -> tf.Tensor:
    """Angle between vec(W) and vec(B) ([K] figure 3).

    Args:
        forward_kernel: W.
        backward_kernel: B, W's shape.

    Returns:
        A scalar, degrees.
    """
    return angle(forward_kernel, backward_kernel)


def norm_ratio(forward_kernel: tf.Tensor, backward_kernel: tf.Tensor) -> tf.Tensor:
    """Size of the backward kernel over the forward kernel's, `|B|_F / |W|_F`.

    Args:
        forward_kernel: W.
        backward_kernel: B.

    Returns:
        A scalar; 0 where both are zero.
    """
    backward_norm, forward_norm = (
        tf.norm(_float32(kernel)) for kernel in (backward_kernel, forward_kernel)
    )
    return tf.math.divide_no_nan(backward_norm, forward_norm)


def projection_angle(
    linear: Linear,
    inputs: tf.Tensor,
    forward_kernel: tf.Tensor,
    backward_kernel: tf.Tensor,
) -> tf.Tensor:
    """Angle between `x W` and `x B` ([K] section 4).

    Args:
        linear: the layer's bilinear map.
        inputs: x, `[batch, ...]`.
        forward_kernel: W.
        backward_kernel: B.

    Returns:
        A scalar, degrees.
    """
    return angle(linear.apply(inputs, forward_kernel), linear.apply(inputs, backward_kernel))


def local_gradient_angle(
    linear: Linear,
    inputs: tf.Tensor,
    upstream: tf.Tensor,
    forward_kernel: tf.Tensor,
    backward_kernel: tf.Tensor,
) -> tf.Tensor:
    """Angle between the pseudogradient `dy B^T` and `dy W^T` of the same upstream ([K] section 4).

    Args:
        linear: the layer's bilinear map.
        inputs: x, for its shape.
        upstream: dy, the error at the layer's output before bias and activation.
        forward_kernel: W.
        backward_kernel: B.

    Returns:
        A scalar, degrees.
    """
    return angle(
        linear.input_gradient(inputs, backward_kernel, upstream),
        linear.input_gradient(inputs, forward_kernel, upstream),
    )


def kernel_metrics(model: keras.Model) -> dict[str, dict[str, float]]:
    """Weight angle and norm ratio of every layer with an alignment.

    Args:
        model: a built model.

    Returns:
        Layer path to `{"weight_angle": degrees, "norm_ratio": |B| / |W|}`.
    """
    measured = {}
    for layer in aligned_layers(model):
        kernel, backward = _float32(layer.kernel), layer.backward_kernel_value()
        measured[layer.path] = {
            "weight_angle": float(weight_angle(kernel, backward)),
            "norm_ratio": float(norm_ratio(kernel, backward)),
        }
    return measured


def path_metrics(
    model: keras.Model,
    inputs: Any,
    labels: Any,
    loss: Callable[[Any, Any], tf.Tensor],
) -> dict[str, dict[str, float]]:
    """Projection and local gradient angle of every layer with an alignment, on one batch.

    The model runs in inference mode; the upstream errors are those the rule delivers.

    Args:
        model: a built model.
        inputs: a batch; a list or dict of arrays where the model has several inputs.
        labels: its labels, as loss takes them.
        loss: `loss(labels, outputs)`.

    Returns:
        Layer path to `{"projection_angle": degrees, "local_gradient_angle": degrees}`. A layer
        called more than once counts with its last call; one that the loss does not depend on has no
        local gradient angle.
    """
    with tf.GradientTape() as tape, probe() as calls:
        inputs = keras.tree.map_structure(tf.convert_to_tensor, inputs)
        tape.watch(inputs)
        value = loss(labels, model(inputs, training=False))
    upstreams = tape.gradient(value, [call.projection for call in calls])
    measured = {}
    for call, upstream in zip(calls, upstreams, strict=True):
        kernel, backward = _float32(call.layer.kernel), call.layer.backward_kernel_value()
        linear, x = call.layer.linear(), _float32(call.inputs)
        angles = {"projection_angle": projection_angle(linear, x, kernel, backward)}
        if upstream is not None:
            angles["local_gradient_angle"] = local_gradient_angle(
                linear, x, _float32(upstream), kernel, backward
            )
        measured[call.layer.path] = {name: float(value) for name, value in angles.items()}
    return measured
