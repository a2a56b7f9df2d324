"""EinsumDense with a backward kernel."""

from __future__ import annotations

import keras

from neural_alignment.layers.aligned import Aligned
from neural_alignment.maps import Einsum


@keras.saving.register_keras_serializable(package="neural_alignment")
class EinsumDense(Aligned, keras.layers.EinsumDense):
    """Keras's EinsumDense with a learning rule of its own.

    `y = activation(einsum(equation, x, W) + bias)`; the error goes back through B along the same
    equation. Axes of W that y has too are outputs, all others inputs.

    Args:
        *args: as of `keras.layers.EinsumDense`.
        alignment: a rule's name, its config, an `Alignment`; None is backpropagation.
        **kwargs: every other argument of `keras.layers.EinsumDense`.

    Raises:
        ValueError: an unknown rule.
        TypeError: an unknown option of a rule.
    """

    def map_of(self, site: str) -> Einsum:
        del site
        return Einsum(self.equation)
