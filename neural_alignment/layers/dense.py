"""Dense layer with a backward kernel."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from neural_alignment.layers.aligned import Aligned
from neural_alignment.layers.operations import Matmul


@keras.saving.register_keras_serializable(package="neural_alignment")
class Dense(Aligned, keras.layers.Dense):
    """Keras's Dense with a learning rule of its own.

    `y = activation(x W + bias)`, `dx = dy B^T`; the rule makes B and adds the loss R ([K]).

    Args:
        units: size of the output.
        alignment: a rule's name, its config, an `Alignment`; None is backpropagation.
        **kwargs: every other argument of `keras.layers.Dense`.

    Raises:
        ValueError: an unknown rule.
        TypeError: an unknown option of a rule.
    """

    def __init__(self, units: int, *args: Any, alignment: Any = None, **kwargs: Any) -> None:
        super().__init__(units, *args, **kwargs)
        self._set_alignment(alignment)

    def linear(self) -> Matmul:
        return Matmul()

    def _bias_for_outputs(self) -> tf.Tensor | None:
        return None if self.bias is None else tf.convert_to_tensor(self.bias)
