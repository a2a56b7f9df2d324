"""What a network's layers give for images, for neural predictivity ([K] appendix B.5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from neural_alignment.figures.assembly import AssemblyError

if TYPE_CHECKING:
    import keras


def layer_features(
    model: keras.Model, images: np.ndarray, layers: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """The outputs of layers for images.

    Args:
        model: functional or Sequential, built.
        images: as the model takes them, `[images, ...]`.
        layers: names; () is every layer but those that hand their input on.

    Returns:
        Layer to `[images, features]`, in the model's order.

    Raises:
        AssemblyError: images of another shape, or a layer that the model does not have.
    """
    import keras

    expected = tuple(model.input_shape[1:])
    if images.ndim != len(expected) + 1 or any(
        size not in (None, given) for size, given in zip(expected, images.shape[1:], strict=True)
    ):
        raise AssemblyError(
            f"Expected images [images, {', '.join(map(str, expected))}] for the model. "
            f"Received: shape {images.shape}"
        )
    passing = (keras.layers.InputLayer, keras.layers.Dropout)
    known = {layer.name: layer for layer in model.layers if not isinstance(layer, passing)}
    unknown = [name for name in layers if name not in known]
    if unknown:
        raise AssemblyError(f"Expected layers of {', '.join(known)}. Received: {unknown[0]!r}")
    wanted = [name for name in known if name in layers] if layers else list(known)
    # Keras 3.8 warns of an array where the model has a list of one input.
    inputs = model.inputs[0] if len(model.inputs) == 1 else model.inputs
    of_layers = keras.Model(inputs, [known[name].output for name in wanted])
    found = of_layers.predict(images, batch_size=256, verbose=0)
    found = found if isinstance(found, list) else [found]
    return {
        name: np.asarray(values).reshape(len(images), -1)
        for name, values in zip(wanted, found, strict=True)
    }
