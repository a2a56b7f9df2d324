"""Residual networks for 32-pixel images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras

from neural_alignment import alignments
from neural_alignment.models.registry import CIFAR_RESNET_DEPTHS
from neural_alignment.models.residual import (
    Convolution,
    Tensor,
    basic_branch,
    block_groups,
    image_input,
)
from neural_alignment.models.resnet_v1 import PostActivation

_WIDTHS = (16, 32, 64)
_SHORTCUTS = ("identity", "projection")


def resnet_cifar(
    depth: int,
    input_shape: Sequence[int | None],
    num_classes: int = 10,
    alignment: Any = None,
    l2: float = 1e-4,
    shortcut: str = "identity",
    bn_after_relu: bool = False,
    bn_trainable: bool = True,
    unbiased_variance: bool = True,
) -> keras.Model:
    """ResNet-20/32/44/56 for 32-pixel images (He et al. 2015, section 4.2; [P]).

    Three groups of (depth - 2) / 6 basic blocks with 16, 32 and 64 filters on a 3x3 convolution,
    no pooling before the head.

    Args:
        depth: 20, 32, 44 or 56.
        input_shape: `[height, width, channels]`, any size.
        num_classes: number of logits.
        alignment: a rule's name, its config, an `Alignment`; None is backpropagation.
        l2: lambda of the weight decay `lambda * sum(w^2) / 2` on forward kernels and the head's
            bias; 0 for none.
        shortcut: "identity" takes every second pixel and fills up with zero channels where a
            group begins, without weights ([P]); "projection" is a 1x1 convolution there.
        bn_after_relu: ReLU before normalisation wherever one follows the other ([A] C.3).
        bn_trainable: False normalises by the batch's statistics without training gamma and beta
            and without updating moving statistics.
        unbiased_variance: the moving variance is fed with n / (n - 1) times the batch's.

    Returns:
        A functional model, `[batch, height, width, channels]` to logits `[batch, num_classes]`.

    Raises:
        ValueError: an unknown depth, shortcut or rule, not an image's shape, or l2 is negative.
    """
    if depth not in CIFAR_RESNET_DEPTHS:
        raise ValueError(
            f"Expected a depth of {', '.join(map(str, CIFAR_RESNET_DEPTHS))}. Received: {depth!r}"
        )
    if shortcut not in _SHORTCUTS:
        raise ValueError(f"Expected a shortcut: {', '.join(_SHORTCUTS)}. Received: {shortcut!r}")
    parts = _CifarBlocks(
        alignment=alignments.get(alignment),
        l2=l2,
        momentum=0.9,
        bn_trainable=bn_trainable,
        unbiased_variance=unbiased_variance,
        branch=basic_branch,
        bn_after_relu=bn_after_relu,
        zero_gamma=False,
        projection=shortcut == "projection",
    )
    inputs = image_input(input_shape)
    x = parts.unit(inputs, "conv0", Convolution(_WIDTHS[0], 3))
    x = block_groups(x, parts.block, [(width, (depth - 2) // 6) for width in _WIDTHS])
    logits = parts.head(x, num_classes, "glorot_uniform")
    return keras.Model(inputs, logits, name=f"resnet{depth}")


@keras.saving.register_keras_serializable(package="neural_alignment")
class IdentityShortcut(keras.layers.Layer):
    """Every n-th pixel, and zero channels on both sides up to a number of channels.

    Args:
        filters: channels of the output.
        strides: n.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, filters: int, strides: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.strides = strides

    def call(self, inputs: Tensor) -> Tensor:
        """`[batch, height, width, channels]` to `[batch, height / n, width / n, filters]`."""
        missing = self.filters - inputs.shape[-1]
        before = missing // 2
        x = inputs[:, :: self.strides, :: self.strides, :]
        return keras.ops.pad(x, [(0, 0), (0, 0), (0, 0), (before, missing - before)])

    def get_config(self) -> dict[str, Any]:
        """Every constructor argument."""
        return {**super().get_config(), "filters": self.filters, "strides": self.strides}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _CifarBlocks(PostActivation):
    projection: bool

    def shortcut(self, x: Tensor, site: str, spec: Convolution) -> Tensor:
        if spec.strides == 1 and x.shape[-1] == spec.filters:
            return x
        if self.projection:
            return PostActivation.shortcut(self, x, site, spec)
        name = f"{site.rpartition('_')[0]}_shortcut"
        return IdentityShortcut(spec.filters, spec.strides, name=name)(x)
