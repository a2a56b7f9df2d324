"""The parts of residual networks: one place for convolution, normalisation, stages and head."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras

from neural_alignment.alignments import Alignment
from neural_alignment.layers import Conv2D, Dense
from neural_alignment.models.normalization import BatchNormalization
from neural_alignment.models.parts import head_dtype, weight_decay, with_relu
from neural_alignment.models.registry import RESNET_DEPTHS

Tensor = Any
# `block(x, site, width, strides, projects) -> x`
Block = Callable[[Tensor, str, int, int, bool], Tensor]

# Blocks in each of the four groups.
_GROUPS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
_WIDTHS = (64, 128, 256, 512)
_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class Convolution:
    """One convolution of a block.

    Args:
        filters: number of filters.
        window: its side.
        strides: its stride.
    """

    filters: int
    window: int
    strides: int = 1


def basic_branch(width: int, strides: int) -> tuple[Convolution, ...]:
    """The two convolutions of a basic block."""
    return Convolution(width, 3, strides), Convolution(width, 3)


def bottleneck_branch(width: int, strides: int) -> tuple[Convolution, ...]:
    """The three convolutions of a bottleneck block; the middle one strides."""
    return Convolution(width, 1), Convolution(width, 3, strides), Convolution(4 * width, 1)


Branch = Callable[[int, int], tuple[Convolution, ...]]


def architecture(depth: int) -> tuple[Branch, tuple[tuple[int, int], ...]]:
    """What a depth stands for.

    Args:
        depth: 18, 34, 50, 101, 152 or 200.

    Returns:
        The block's branch, and (width, number of blocks) of each group.

    Raises:
        ValueError: another depth.
    """
    if depth not in _GROUPS:
        raise ValueError(
            f"Expected a depth of {', '.join(map(str, RESNET_DEPTHS))}. Received: {depth!r}"
        )
    branch = basic_branch if depth < 50 else bottleneck_branch
    return branch, tuple(zip(_WIDTHS, _GROUPS[depth], strict=True))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """Makes the layers of a residual network, with its settings.

    A layer is named by where it sits, `block_group2_0_conv1`: Keras takes no "/" in a name, and
    PyTorch no ".".

    Args:
        alignment: the rule of every convolution and of the head.
        l2: lambda of the weight decay on forward kernels and the head's bias.
        momentum: of the moving statistics.
        bn_trainable: False freezes the normalisations (see `BatchNormalization`).
        unbiased_variance: as of `BatchNormalization`.
    """

    alignment: Alignment | None
    l2: float
    momentum: float
    bn_trainable: bool
    unbiased_variance: bool

    def convolution(
        self, x: Tensor, site: str, spec: Convolution, relu_follows: bool = False
    ) -> Tensor:
        """A convolution without bias; with a stride it is padded first, by its window alone.

        Args:
            x: `[batch, height, width, channels]`.
            site: name of the layer.
            spec: filters, window, stride.
            relu_follows: normalisation and ReLU come next, so relu is the rule's activation.

        Returns:
            `[batch, ceil(height / strides), ceil(width / strides), filters]`.
        """
        if spec.strides > 1 and spec.window > 1:
            before = (spec.window - 1) // 2
            margin = (before, spec.window - 1 - before)
            x = keras.layers.ZeroPadding2D((margin, margin), name=f"{site}_padding")(x)
        return Conv2D(
            spec.filters,
            spec.window,
            strides=spec.strides,
            padding="same" if spec.strides == 1 else "valid",
            use_bias=False,
            # A new object each time: one initializer gives the same values at every call.
            kernel_initializer=keras.initializers.VarianceScaling(),
            kernel_regularizer=weight_decay(self.l2),
            alignment=with_relu(self.alignment) if relu_follows else self.alignment,
            name=site,
        )(x)

    def normalization(self, x: Tensor, site: str, zero_gamma: bool = False) -> Tensor:
        """Batch normalisation over the last axis.

        Args:
            x: `[..., channels]`.
            site: of the layer it belongs to.
            zero_gamma: gamma starts at 0, not 1.

        Returns:
            A tensor of x's shape.
        """
        return BatchNormalization(
            momentum=self.momentum,
            epsilon=_EPSILON,
            gamma_initializer="zeros" if zero_gamma else "ones",
            unbiased_variance=self.unbiased_variance,
            frozen=not self.bn_trainable,
            name=f"{site}_batch_normalization",
        )(x)

    def relu(self, x: Tensor, site: str) -> Tensor:
        """`max(x, 0)`."""
        return keras.layers.ReLU(name=f"{site}_relu")(x)

    def head(self, x: Tensor, num_classes: int, kernel_initializer: Any) -> Tensor:
        """Global average pooling and the Dense layer that makes the logits.

        Args:
            x: `[batch, height, width, channels]`.
            num_classes: number of logits.
            kernel_initializer: of the Dense kernel.

        Returns:
            `[batch, num_classes]`.
        """
        x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
        return Dense(
            num_classes,
            kernel_initializer=kernel_initializer,
            kernel_regularizer=weight_decay(self.l2),
            bias_regularizer=weight_decay(self.l2),
            alignment=self.alignment,
            dtype=head_dtype(),
            name="dense",
        )(x)


def block_groups(x: Tensor, block: Block, groups: Sequence[tuple[int, int]]) -> Tensor:
    """Groups of blocks `block_group1_0`, ...; the first block of each group projects its shortcut.

    Every group but the first halves the image in its first block.

    Args:
        x: `[batch, height, width, channels]`.
        block: makes one block.
        groups: (width, number of blocks) of each group.

    Returns:
        The last block's output.
    """
    for group, (width, blocks) in enumerate(groups, start=1):
        for i in range(blocks):
            strides = 2 if group > 1 and i == 0 else 1
            x = block(x, f"block_group{group}_{i}", width, strides, i == 0)
    return x


def image_input(input_shape: Sequence[int | None]) -> Tensor:
    """The input of a residual network: images of any size.

    Args:
        input_shape: `[height, width, channels]`; None for a size that is not known yet.

    Returns:
        A Keras tensor.

    Raises:
        ValueError: not an image's shape.
    """
    if len(input_shape) != 3 or input_shape[-1] is None:
        raise ValueError(
            "Expected the shape of an image, [height, width, channels]. "
            f"Received: input_shape={tuple(input_shape)}"
        )
    return keras.Input(tuple(input_shape), name="inputs")
