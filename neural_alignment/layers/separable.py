"""Separable convolutions with two backward kernels: depthwise and pointwise."""

from __future__ import annotations

from typing import ClassVar

import keras

from neural_alignment.layers.aligned import Aligned
from neural_alignment.layers.site import Place
from neural_alignment.maps import Conv, DepthwiseConv, Linear


class _AlignedSeparableConv(Aligned):
    places: ClassVar[tuple[Place, ...]] = (
        Place("depthwise_kernel", "depthwise", ends=False),
        Place("pointwise_kernel", "pointwise"),
    )

    def map_of(self, site: str) -> Linear:
        if site == "depthwise":
            return DepthwiseConv(self.strides, self.padding, self.data_format, self.dilation_rate)
        return Conv(data_format=self.data_format)


@keras.saving.register_keras_serializable(package="neural_alignment")
class SeparableConv1D(_AlignedSeparableConv, keras.layers.SeparableConv1D):
    """Keras's SeparableConv1D with a learning rule of its own.

    Args:
        *args: as of `keras.layers.SeparableConv1D`.
        alignment: a rule's name, its config, an `Alignment`; None is backpropagation.
        **kwargs: every other argument of `keras.layers.SeparableConv1D`.

    Raises:
        ValueError: an unknown rule.
        TypeError: an unknown option of a rule.
    """


@keras.saving.register_keras_serializable(package="neural_alignment")
class SeparableConv2D(_AlignedSeparableConv, keras.layers.SeparableConv2D):
    """Keras's SeparableConv2D with a learning rule of its own.

    `y = activation((x * W_depthwise) * W_pointwise + bias)`; each kernel is a site of its own, with
    its B and its R.

    Args:
        *args: as of `keras.layers.SeparableConv2D`.
        alignment: a rule's name, its config, an `Alignment`; None is backpropagation.
        **kwargs: every other argument of `keras.layers.SeparableConv2D`.

    Raises:
        ValueError: an unknown rule.
        TypeError: an unknown option of a rule.
    """
