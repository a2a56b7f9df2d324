"""Dense layer with a backward kernel."""

from __future__ import annotations

import keras

from neural_alignment.layers.aligned import Aligned
from neural_alignment.maps import Matmul


@keras.saving.register_keras_serializable(package="neural_alignment")
class Dense(Aligned, keras.layers.Dense):
    """Keras's Dense with a learning rule of its own.

    `y = activation(x W + bias)`, `dx = dy B^T`; the rule makes B and adds the loss R ([K]).

    Args:
        *args: as of `keras.layers.Dense`.
        alignment: a rule's name, its config, an `Alignment`; None is backpropagation.
        **kwargs: every other argument of `keras.layers.Dense`.

    Raises:
        ValueError: an unknown rule.
        TypeError: an unknown option of a rule.
    """

    def map_of(self, site: str) -> Matmul:
        del site
        return Matmul()
