"""Small models: fully connected, convolutional, LeNet-5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from neural_alignment import alignments
from neural_alignment.layers import Conv2D, Dense
from neural_alignment.models.parts import glorot, head_dtype, weight_decay


def fc(
    input_shape: Sequence[int],
    num_classes: int = 10,
    layers_list: Sequence[int] = (64,),
    activation: Any = "sigmoid",
    alignment: Any = None,
    l2: float = 1e-6,
    kernel_scale: float = 1.0,
) -> keras.Model:
    """A fully connected network: `dense0`, `dense1`, ..., `dense_output`.

    The kernels have weight decay `l2 * sum(W^2) / 2`, the biases none.

    Args:
        input_shape: of one example; it is flattened.
        num_classes: number of logits.
        layers_list: units of the hidden layers.
        activation: of the hidden layers.
        alignment: a rule's name, its config, an `Alignment`; None is backpropagation.
        l2: lambda of the weight decay; 0 for none.
        kernel_scale: of kernels as they are drawn, over Glorot's.

    Returns:
        A functional model, `[batch, *input_shape]` to logits `[batch, num_classes]`.

    Raises:
        ValueError: an unknown rule, l2 is negative, or kernel_scale is not above 0.
    """
    rule = alignments.get(alignment)
    inputs = keras.Input(tuple(input_shape), name="inputs")
    x = keras.layers.Flatten(name="flatten")(inputs)
    for i, units in enumerate(layers_list):
        x = Dense(
            units,
            activation=activation,
            kernel_initializer=glorot(kernel_scale),
            kernel_regularizer=weight_decay(l2),
            alignment=rule,
            name=f"dense{i}",
        )(x)
    logits = _output(num_classes, rule, l2, kernel_scale)(x)
    return keras.Model(inputs, logits, name="fc")


def conv(
    input_shape: Sequence[int],
    num_classes: int = 10,
    filters_list: Sequence[int] = (16, 32),
    kernels_list: Sequence[int] = (5, 3),
    activation: Any = "sigmoid",
    alignment: Any = None,
    l2: float = 0.0,
    kernel_scale: float = 1.0,
) -> keras.Model:
    """Convolutions without padding and a Dense head: `conv0`, `conv1`, ..., `dense_output`.

    Args:
        input_shape: of one image, `[height, width, channels]`.
        num_classes: number of logits.
        filters_list: filters of the convolutions.
        kernels_list: their window, one number each.
        activation: of the convolutions.
        alignment: a rule's name, its config, an `Alignment`; None is backpropagation.
        l2: lambda of the kernels' weight decay; 0 for none.
        kernel_scale: of kernels as they are drawn, over Glorot's.

    Returns:
        A functional model, `[batch, height, width, channels]` to logits `[batch, num_classes]`.

    Raises:
        ValueError: the two lists differ in length, an unknown rule, l2 is negative, or
            kernel_scale is not above 0.
    """
    if len(filters_list) != len(kernels_list):
        raise ValueError(
            "Expected as many windows as filters. Received: "
            f"filters_list={tuple(filters_list)}, kernels_list={tuple(kernels_list)}"
        )
    rule = alignments.get(alignment)
    inputs = keras.Input(tuple(input_shape), name="inputs")
    x = inputs
    for i, (filters, window) in enumerate(zip(filters_list, kernels_list, strict=True)):
        x = Conv2D(
            filters,
            window,
            activation=activation,
            kernel_initializer=glorot(kernel_scale),
            kernel_regularizer=weight_decay(l2),
            alignment=rule,
            name=f"conv{i}",
        )(x)
    x = keras.layers.Flatten(name="flatten")(x)
    logits = _output(num_classes, rule, l2, kernel_scale)(x)
    return keras.Model(inputs, logits, name="conv")


def lenet5(
    input_shape: Sequence[int],
    num_classes: int = 10,
    activation: Any = "tanh",
    alignment: Any = None,
    l2: float = 0.0,
    kernel_scale: float = 1.0,
) -> keras.Model:
    """LeNet-5 (LeCun et al. 1998): two convolutions with average pooling, three Dense layers.

    The first convolution is padded, so 28-pixel images need no frame.

    Args:
        input_shape: of one image, `[height, width, channels]`, at least 12 pixels a side.
        num_classes: number of logits.
        activation: of the hidden layers.
        alignment: a rule's name, its config, an `Alignment`; None is backpropagation.
        l2: lambda of the kernels' weight decay; 0 for none.
        kernel_scale: of kernels as they are drawn, over Glorot's.

    Returns:
        A functional model, `[batch, height, width, channels]` to logits `[batch, num_classes]`.

    Raises:
        ValueError: the image is too small, an unknown rule, l2 is negative, or kernel_scale is
            not above 0.
    """
    if len(input_shape) != 3 or min(input_shape[:2]) < 12:
        raise ValueError(
            "Expected images [height, width, channels] of at least 12 pixels a side for lenet5. "
            f"Received: input_shape={tuple(input_shape)}"
        )
    rule = alignments.get(alignment)
    shared = {"activation": activation, "alignment": rule}
    inputs = keras.Input(tuple(input_shape), name="inputs")
    x = inputs
    for i, (filters, padding) in enumerate(((6, "same"), (16, "valid"))):
        x = Conv2D(
            filters,
            5,
            padding=padding,
            kernel_initializer=glorot(kernel_scale),
            kernel_regularizer=weight_decay(l2),
            name=f"conv{i}",
            **shared,
        )(x)
        x = keras.layers.AveragePooling2D(2, name=f"pool{i}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    for i, units in enumerate((120, 84)):
        x = Dense(
            units,
            kernel_initializer=glorot(kernel_scale),
            kernel_regularizer=weight_decay(l2),
            name=f"dense{i}",
            **shared,
        )(x)
    logits = _output(num_classes, rule, l2, kernel_scale)(x)
    return keras.Model(inputs, logits, name="lenet5")


def _output(
    num_classes: int, rule: alignments.Alignment | None, l2: float, kernel_scale: float
) -> Dense:
    return Dense(
        num_classes,
        kernel_initializer=glorot(kernel_scale),
        kernel_regularizer=weight_decay(l2),
        alignment=rule,
        dtype=head_dtype(),
        name="dense_output",
    )
