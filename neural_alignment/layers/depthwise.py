"""Depthwise convolutions with a backward kernel."""

from __future__ import annotations

import keras

from neural_alignment.layers.aligned import Aligned
from neural_alignment.maps import DepthwiseConv


class _AlignedDepthwiseConv(Aligned):
    def map_of(self, site: str) -> DepthwiseConv:
        del site
        return DepthwiseConv(self.strides, self.padding, self.data_format, self.dilation_rate)


@keras.saving.register_keras_serializable(package="neural_alignment")
class DepthwiseConv1D(_AlignedDepthwiseConv, keras.layers.DepthwiseConv1D):
    """Keras's DepthwiseConv1D with a learning rule of its own.

    Args:
        *args: as of `keras.layers.DepthwiseConv1D`.
        alignment: a rule's name, its config, an `Alignment`; None is backpropagation.
        **kwargs: every other argument of `keras.layers.DepthwiseConv1D`.

    Raises:
        ValueError: an unknown rule.
        TypeError: an unknown option of a rule.
    """


@keras.saving.register_keras_serializable(package="neural_alignment")
class DepthwiseConv2D(_AlignedDepthwiseConv, keras.layers.DepthwiseConv2D):
    """Keras's DepthwiseConv2D with a learning rule of its own.

    To a rule it is the grouped convolution with one input channel a group.

    Args:
        *args: as of `keras.layers.DepthwiseConv2D`.
        alignment: a rule's name, its config, an `Alignment`; None is backpropagation.
        **kwargs: every other argument of `keras.layers.DepthwiseConv2D`.

    Raises:
        ValueError: an unknown rule.
        TypeError: an unknown option of a rule.
    """
