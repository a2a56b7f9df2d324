"""What the models share: weight decay, the head's dtype, and the rule's activation."""

from __future__ import annotations

import math
from typing import Any

import keras

from neural_alignment.alignments import Alignment


def weight_decay(l2: float) -> keras.regularizers.Regularizer | None:
    """The regularizer `l2 * sum(w^2) / 2`; None where l2 is 0.

    Args:
        l2: lambda, at least 0.

    Returns:
        A Keras regularizer.

    Raises:
        ValueError: l2 is negative.
    """
    if l2 < 0:
        raise ValueError(f"Expected l2 >= 0, the factor of sum(w^2) / 2. Received: l2={l2!r}")
    return keras.regularizers.L2(l2 / 2) if l2 else None


def glorot(scale: float) -> keras.initializers.Initializer:
    """Draws kernels uniformly, of `scale` times the standard deviation that Glorot's have.

        Var = scale^2 2 / (in + out)

    Args:
        scale: above 0.

    Returns:
        A Keras initializer, another one in each call.

    Raises:
        ValueError: scale is not above 0.
    """
    if not 0.0 < scale < math.inf:
        raise ValueError(f"Expected kernel_scale > 0. Received: {scale!r}")
    if scale == 1.0:
        return keras.initializers.GlorotUniform()
    return keras.initializers.VarianceScaling(scale**2, mode="fan_avg", distribution="uniform")


def head_dtype() -> Any:
    """The dtype of the layer that makes the logits: float32 where the policy computes in less."""
    policy = keras.config.dtype_policy()
    return "float32" if policy.compute_dtype in ("bfloat16", "float16") else policy


def with_relu(alignment: Alignment | None) -> Alignment | None:
    """The rule for a layer whose output goes through a ReLU that is a layer of its own.

    Such a layer has no activation, so `activation_forward` and `activation_backward` would do
    nothing: they take relu, unless the rule names a function itself ([K] appendix A.3).

    Args:
        alignment: the model's rule.

    Returns:
        The rule; unchanged where it has no projections.
    """
    return None if alignment is None else alignment.before("relu")
