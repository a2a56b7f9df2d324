"""Convolutions with a backward kernel."""

from __future__ import annotations

import keras

from neural_alignment.layers.aligned import Aligned
from neural_alignment.maps import Conv


class _AlignedConv(Aligned):
    def map_of(self, site: str) -> Conv:
        del site
        return Conv(self.strides, self.padding, self.data_format, self.dilation_rate)


@keras.saving.register_keras_serializable(package="neural_alignment")
class Conv1D(_AlignedConv, keras.layers.Conv1D):
    """Keras's Conv1D with a learning rule of its own.

    Args:
        *args: as of `keras.layers.Conv1D`.
        alignment: a rule's name, its config, an `Alignment`; None is backpropagation.
        **kwargs: every other argument of `keras.layers.Conv1D`.

    Raises:
        ValueError: an unknown rule.
        TypeError: an unknown option of a rule.
    """


@keras.saving.register_keras_serializable(package="neural_alignment")
class Conv2D(_AlignedConv, keras.layers.Conv2D):
    """Keras's Conv2D with a learning rule of its own.

    `y = activation(x * W + bias)`, `dx = conv_transpose(dy, B)`; the rule makes B and adds the
    loss R ([K]).

    Args:
        *args: as of `keras.layers.Conv2D`.
        alignment: a rule's name, its config, an `Alignment`; None is backpropagation.
        **kwargs: every other argument of `keras.layers.Conv2D`.

    Raises:
        ValueError: an unknown rule.
        TypeError: an unknown option of a rule.
    """


@keras.saving.register_keras_serializable(package="neural_alignment")
class Conv3D(_AlignedConv, keras.layers.Conv3D):
    """Keras's Conv3D with a learning rule of its own.

    Args:
        *args: as of `keras.layers.Conv3D`.
        alignment: a rule's name, its config, an `Alignment`; None is backpropagation.
        **kwargs: every other argument of `keras.layers.Conv3D`.

    Raises:
        ValueError: an unknown rule.
        TypeError: an unknown option of a rule.
    """
