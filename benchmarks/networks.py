"""The networks that are timed, and the same ones of stock Keras layers."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras

from neural_alignment import alignments, models
from neural_alignment.layers import Aligned, DirectFeedback, aligned_layers


@dataclasses.dataclass(frozen=True)
class Network:
    """A model by name and what it is built with.

    Args:
        model: name for `models.get`.
        input_shape: of one example.
        num_classes: number of logits.
        options: the builder's other options.
    """

    model: str
    input_shape: tuple[int, ...]
    num_classes: int
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def build(self, alignment: Any) -> keras.Model:
        """The model with a rule; None is backpropagation in this package's layers.

        A rule whose R trains the forward kernel too gives it its weight decay: there is no second.
        """
        rule = alignments.get(alignment)
        options = self.options | ({"l2": 0.0} if rule is not None and rule.update_forward else {})
        return models.get(
            self.model,
            input_shape=self.input_shape,
            num_classes=self.num_classes,
            alignment=rule,
            **options,
        )


NETWORKS = {
    "resnet20": Network("resnet20", (32, 32, 3), 10),
    "lenet5": Network("lenet5", (28, 28, 1), 10),
    "mlp": Network("fc", (784,), 10, {"layers_list": (512, 512), "activation": "relu"}),
    "resnet18": Network("resnet18", (128, 128, 3), 1000),
}


def stock_twin(model: keras.Model) -> keras.Model:
    """The same architecture made of Keras's own layers.

    Every layer is replaced by the nearest Keras class that it extends.

    Args:
        model: a functional model built without an alignment.

    Returns:
        A new functional model.

    Raises:
        ValueError: the twin has another number of parameters.
    """
    twin = keras.models.clone_model(model, clone_function=_stock, call_function=_call_stock)
    if twin.count_params() != model.count_params():
        raise ValueError(
            f"Expected a twin of {model.count_params()} parameters. "
            f"Received: {twin.count_params()}. Build the model with alignment=None."
        )
    return twin


def _call_stock(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
    kwargs.pop("mask", None)  # which Keras's own have no argument for
    return layer(*args, **kwargs)


def _stock(layer: keras.layers.Layer) -> keras.layers.Layer:
    stock = next(c for c in type(layer).__mro__ if c.__module__.startswith("keras."))
    if stock is keras.layers.Layer:  # a layer that Keras has no counterpart of
        return type(layer).from_config(layer.get_config())
    return stock.from_config(stock.get_config(layer))


def floor(model: keras.Model, batch: int) -> float:
    """Least multiplications of a training step, over those of backpropagation.

    Backpropagation takes three operations a layer: output, dx (not in the first), dW. Product
    feedback adds `R Q` and `dR = dW Q^T`, matrix products of kernels, or in Dense `dy Q^T` and what
    it multiplies; kept as one kernel `dW G` or `x^T (dy G)`, whichever is less. Direct feedback
    needs no dx.

    Args:
        model: with a rule, or none.
        batch: examples of a step.

    Returns:
        The ratio.
    """
    layers = aligned_layers(model)
    if not layers:
        direct = any(isinstance(layer, DirectFeedback) for layer in model.layers)
        sizes = [batch * _multiplications(x) for x in model.layers if hasattr(x, "kernel")]
        return 2 * sum(sizes) / (3 * sum(sizes) - sizes[0]) if direct else 1.0
    sizes = [batch * _multiplications(layer) for layer in layers]
    backprop = 3 * sum(sizes) - sizes[0]
    extra = sum(
        size * layer.alignment.extra_operations + _products(layer, size)
        for layer, size in zip(layers, sizes, strict=True)
    )
    return 1.0 + extra / backprop


def backpropagation(model: keras.Model, batch: int) -> int:
    """Multiplications of a training step in the convolutions and Dense layers.

    Args:
        model: of this package's layers or of stock ones.
        batch: examples of a step.

    Returns:
        Three operations a layer, two in the first.
    """
    kinds = (keras.layers.Dense, keras.layers.Conv2D)
    sizes = [batch * _multiplications(one) for one in model.layers if isinstance(one, kinds)]
    return 3 * sum(sizes) - sizes[0]


def _multiplications(layer: Aligned | keras.layers.Layer) -> int:
    positions = math.prod(layer.output.shape[1:-1])
    return positions * math.prod(layer.kernel.shape)


def _products(layer: Aligned, size: int) -> float:
    """What product feedback adds to a layer whose operations take so many multiplications."""
    variables, total = layer.sites[0].variables, 0.0
    for name, variable in variables.items():
        outputs = variable.shape[-1]
        if name == "backward_kernel_q" and len(layer.kernel.shape) == 2:
            (fan_in, units), expanded = layer.kernel.shape, variable.shape[0]
            places = size // (fan_in * units)
            through = places * expanded * (units + 2 * fan_in) - size  # R^T stands for B^T
            total += min(through, 2 * fan_in * expanded * units)
        elif name.startswith("backward_kernel_q"):
            factor = variables[name.replace("kernel_q", "kernel_r")]
            total += 2 * math.prod(factor.shape) * outputs
        if name.startswith("backward_kernel_g"):
            kernel = math.prod(variables[name.replace("kernel_g", "kernel_rq")].shape)
            of_the_error = size / math.prod(layer.kernel.shape) * (kernel + outputs**2)
            total += min(kernel * outputs, of_the_error)
    return total
