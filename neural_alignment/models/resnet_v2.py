"""ResNet v2: pre-activation residual networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras

from neural_alignment import alignments
from neural_alignment.models.residual import (
    Branch,
    Convolution,
    Parts,
    Tensor,
    architecture,
    block_groups,
    image_input,
)


def resnet_v2(
    depth: int,
    input_shape: Sequence[int | None],
    num_classes: int = 1000,
    alignment: Any = None,
    l2: float = 1e-4,
    bn_trainable: bool = True,
    unbiased_variance: bool = True,
) -> keras.Model:
    """ResNet v2 (He et al. 2016) as [K] trains it: normalisation, ReLU, convolution.

    `y = x + F(relu(bn(x)))`; the shortcut of the first block of every group is a 1x1 convolution
    of `relu(bn(x))`, also in the first group. No normalisation follows the first convolution.

    Args:
        depth: 18, 34, 50, 101, 152 or 200.
        input_shape: `[height, width, channels]`, any size; [K] uses 299, 224 and 128.
        num_classes: number of logits.
        alignment: a rule's name, its config, an `Alignment`; None is backpropagation.
        l2: lambda of the weight decay `lambda * sum(w^2) / 2` on forward kernels and the head's
            bias; 0 for none.
        bn_trainable: False normalises by the batch's statistics without training gamma and beta
            and without updating moving statistics.
        unbiased_variance: the moving variance is fed with n / (n - 1) times the batch's.

    Returns:
        A functional model, `[batch, height, width, channels]` to logits `[batch, num_classes]`.

    Raises:
        ValueError: an unknown depth or rule, not an image's shape, or l2 is negative.
    """
    branch, groups = architecture(depth)
    parts = PreActivation(
        alignment=alignments.get(alignment),
        l2=l2,
        momentum=0.997,
        bn_trainable=bn_trainable,
        unbiased_variance=unbiased_variance,
        branch=branch,
    )
    inputs = image_input(input_shape)
    x = parts.convolution(inputs, "conv0", Convolution(64, 7, 2))
    x = keras.layers.MaxPooling2D(3, strides=2, padding="same", name="max_pool")(x)
    x = block_groups(x, parts.block, groups)
    x = parts.activated(x, "bnl4")
    logits = parts.head(x, num_classes, "glorot_uniform")
    return keras.Model(inputs, logits, name=f"resnet{depth}_v2")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreActivation(Parts):
    """The blocks of ResNet v2.

    Args:
        branch: the convolutions of a block.
    """

    branch: Branch

    def activated(self, x: Tensor, site: str) -> Tensor:
        """Normalisation, then ReLU."""
        return self.relu(self.normalization(x, site), site)

    def block(self, x: Tensor, site: str, width: int, strides: int, projects: bool) -> Tensor:
        """`shortcut(x) + F(relu(bn(x)))`."""
        *inner, last = self.branch(width, strides)
        shortcut = x
        x = self.activated(x, f"{site}_bn0")
        if projects:
            spec = Convolution(last.filters, 1, strides)
            shortcut = self.convolution(x, f"{site}_conv0", spec)
        for i, spec in enumerate(inner, start=1):
            name = f"{site}_conv{i}"
            x = self.activated(self.convolution(x, name, spec, relu_follows=True), name)
        x = self.convolution(x, f"{site}_conv{len(inner) + 1}", last)
        return keras.layers.Add(name=f"{site}_add")([x, shortcut])
