"""Transposed convolutions with a backward kernel."""

from __future__ import annotations

import keras

from neural_alignment.layers.aligned import Aligned
from neural_alignment.maps import ConvTranspose


class _AlignedConvTranspose(Aligned):
    def map_of(self, site: str) -> ConvTranspose:
        del site
        return ConvTranspose(
            self.strides, self.padding, self.data_format, self.dilation_rate, self.output_padding
        )


@keras.saving.register_keras_serializable(package="neural_alignment")
class Conv1DTranspose(_AlignedConvTranspose, keras.layers.Conv1DTranspose):
    """Keras's Conv1DTranspose with a learning rule of its own.

    Args:
        *args: as of `keras.layers.Conv1DTranspose`.
        alignment: a rule's name, its config, an `Alignment`; None is backpropagation.
        **kwargs: every other argument of `keras.layers.Conv1DTranspose`.

    Raises:
        ValueError: an unknown rule.
        TypeError: an unknown option of a rule.
    """


@keras.saving.register_keras_serializable(package="neural_alignment")
class Conv2DTranspose(_AlignedConvTranspose, keras.layers.Conv2DTranspose):
    """Keras's Conv2DTranspose with a learning rule of its own.

    `y = activation(conv_transpose(x, W) + bias)`, `dx = dy * B`; W and B are
    `[*window, filters, in]`, outputs on the last axis but one.

    Args:
        *args: as of `keras.layers.Conv2DTranspose`.
        alignment: a rule's name, its config, an `Alignment`; None is backpropagation.
        **kwargs: every other argument of `keras.layers.Conv2DTranspose`.

    Raises:
        ValueError: an unknown rule.
        TypeError: an unknown option of a rule.
    """


@keras.saving.register_keras_serializable(package="neural_alignment")
class Conv3DTranspose(_AlignedConvTranspose, keras.layers.Conv3DTranspose):
    """Keras's Conv3DTranspose with a learning rule of its own.

    Args:
        *args: as of `keras.layers.Conv3DTranspose`.
        alignment: a rule's name, its config, an `Alignment`; None is backpropagation.
        **kwargs: every other argument of `keras.layers.Conv3DTranspose`.

    Raises:
        ValueError: an unknown rule.
        TypeError: an unknown option of a rule.
    """
