"""ResNet v1: post-activation residual networks."""

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


def resnet_v1(
    depth: int,
    input_shape: Sequence[int | None],
    num_classes: int = 1000,
    alignment: Any = None,
    l2: float = 1e-4,
    bn_after_relu: bool = False,
    bn_trainable: bool = True,
    unbiased_variance: bool = True,
) -> keras.Model:
    """ResNet v1 (He et al. 2015) as [K] trains it: convolution, normalisation, ReLU.

    `y = relu(x + F(x))`; the shortcut of the first block of every group is a 1x1 convolution, also
    in the first group, and the last normalisation of a block starts at gamma = 0.

    Args:
        depth: 18, 34, 50, 101, 152 or 200.
        input_shape: `[height, width, channels]`, any size; [K] uses 224 and 128.
        num_classes: number of logits.
        alignment: a rule's name, its config, an `Alignment`; None is backpropagation.
        l2: lambda of the weight decay `lambda * sum(w^2) / 2` on forward kernels and the head's
            bias; 0 for none.
        bn_after_relu: ReLU before normalisation wherever one follows the other ([A] C.3). The
            normalisations with no ReLU (a block's last, the shortcut's) stay in place.
        bn_trainable: False normalises by the batch's statistics without training gamma and beta
            and without updating moving statistics.
        unbiased_variance: the moving variance is fed with n / (n - 1) times the batch's.

    Returns:
        A functional model, `[batch, height, width, channels]` to logits `[batch, num_classes]`.

    Raises:
        ValueError: an unknown depth or rule, not an image's shape, or l2 is negative.
    """
    branch, groups = architecture(depth)
    parts = PostActivation(
        alignment=alignments.get(alignment),
        l2=l2,
        momentum=0.9,
        bn_trainable=bn_trainable,
        unbiased_variance=unbiased_variance,
        branch=branch,
        bn_after_relu=bn_after_relu,
    )
    inputs = image_input(input_shape)
    x = parts.unit(inputs, "conv0", Convolution(64, 7, 2))
    x = keras.layers.MaxPooling2D(3, strides=2, padding="same", name="max_pool")(x)
    x = block_groups(x, parts.block, groups)
    logits = parts.head(x, num_classes, keras.initializers.RandomNormal(stddev=0.01))
    return keras.Model(inputs, logits, name=f"resnet{depth}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PostActivation(Parts):
    """The units and blocks of ResNet v1.

    Args:
        branch: the convolutions of a block.
        bn_after_relu: ReLU, then normalisation.
        zero_gamma: a block's last normalisation starts at gamma = 0.
    """

    branch: Branch
    bn_after_relu: bool = False
    zero_gamma: bool = True

    def unit(self, x: Tensor, site: str, spec: Convolution) -> Tensor:
        """Convolution, normalisation, ReLU; the last two in the order asked for."""
        x = self.convolution(x, site, spec, relu_follows=True)
        steps = [self.normalization, self.relu]
        for step in reversed(steps) if self.bn_after_relu else steps:
            x = step(x, site)
        return x

    def shortcut(self, x: Tensor, site: str, spec: Convolution) -> Tensor:
        """A 1x1 convolution and its normalisation."""
        return self.normalization(self.convolution(x, site, spec), site)

    def block(self, x: Tensor, site: str, width: int, strides: int, projects: bool) -> Tensor:
        """`relu(shortcut(x) + F(x))`."""
        *inner, last = self.branch(width, strides)
        shortcut = x
        if projects:
            shortcut = self.shortcut(x, f"{site}_conv0", Convolution(last.filters, 1, strides))
        for i, spec in enumerate(inner, start=1):
            x = self.unit(x, f"{site}_conv{i}", spec)
        name = f"{site}_conv{len(inner) + 1}"
        x = self.normalization(self.convolution(x, name, last), name, self.zero_gamma)
        return self.relu(keras.layers.Add(name=f"{site}_add")([x, shortcut]), site)
