"""The one table of what the common tests run over: every rule's variants and every layer's."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest

from neural_alignment import alignments, layers

# Options by variant, from the rules' own `examples`; the part before the first ":" is the name.
EVERY: dict[str, Mapping[str, Any]] = {
    variant: options
    for name in alignments.layer_names()
    for variant, options in {
        name: {},
        **{f"{name}:{word}": given for word, given in alignments.rule(name).examples.items()},
    }.items()
}
# Those whose outputs are the equations' in training, too; tests/layers/test_phaseless.py has the
# outputs of the others.
RULES = {
    variant: options
    for variant, options in EVERY.items()
    if not alignments.rule(variant.partition(":")[0]).disturbs_input
}


@dataclasses.dataclass(frozen=True)
class LayerCase:
    """A layer's class, its arguments and the shape of an input, the batch first."""

    cls: type
    arguments: dict[str, Any]
    input_shape: tuple[int, ...]

    def make(self, alignment: Any, **changes: Any) -> Any:
        return self.cls(**{**self.arguments, "alignment": alignment, **changes})

    @property
    def stock(self) -> type:
        """Keras's class that ours extends."""
        return next(c for c in self.cls.__mro__ if c.__module__.startswith("keras.src.layers"))


_SHARED = {"activation": "tanh", "bias_initializer": "random_normal"}


def _case(cls: type, input_shape: tuple[int, ...], **arguments: Any) -> LayerCase:
    return LayerCase(cls, _SHARED | arguments, input_shape)


# Without bias: in this layout XLA on a CPU adds another channel's bias, to stock layers too.
_FIRST = {"data_format": "channels_first", "bias_initializer": "zeros"}

LAYERS: dict[str, LayerCase] = {
    "dense": _case(layers.Dense, (3, 5), units=4),
    "dense_rank3": _case(layers.Dense, (3, 2, 5), units=4),
    "conv1d": _case(layers.Conv1D, (3, 7, 2), filters=4, kernel_size=3, strides=2, padding="same"),
    "conv1d_causal": _case(
        layers.Conv1D, (3, 7, 2), filters=4, kernel_size=2, padding="causal", dilation_rate=2
    ),
    "conv2d_same": _case(
        layers.Conv2D, (3, 6, 5, 2), filters=4, kernel_size=3, strides=2, padding="same"
    ),
    "conv2d_valid": _case(
        layers.Conv2D, (3, 6, 5, 2), filters=4, kernel_size=(3, 2), strides=(1, 2)
    ),
    "conv2d_dilated": _case(
        layers.Conv2D, (3, 6, 5, 2), filters=4, kernel_size=2, dilation_rate=2, padding="same"
    ),
    "conv3d": _case(layers.Conv3D, (3, 3, 4, 3, 2), filters=3, kernel_size=2, padding="same"),
    # Keras compiles these with XLA at every eager call on a CPU.
    "conv2d_groups": _case(layers.Conv2D, (3, 4, 4, 4), filters=4, kernel_size=2, groups=2),
    "conv2d_first": _case(layers.Conv2D, (3, 2, 4, 4), filters=3, kernel_size=2, **_FIRST),
    "einsum": _case(
        layers.EinsumDense,
        (3, 2, 5),
        equation="abc,cde->abde",
        output_shape=(2, 2, 3),
        bias_axes="de",
    ),
    # The way back out of the heads, W's axes in another order.
    "einsum_heads": _case(
        layers.EinsumDense, (3, 4, 2, 3), equation="...de,fed->...f", output_shape=5, bias_axes="f"
    ),
    # A kernel for each place.
    "einsum_grouped": _case(
        layers.EinsumDense, (3, 4, 5), equation="abc,bcd->abd", output_shape=(4, 2), bias_axes="d"
    ),
    "depthwise1d": _case(layers.DepthwiseConv1D, (3, 7, 2), kernel_size=3, strides=2),
    "depthwise2d": _case(
        layers.DepthwiseConv2D,
        (3, 6, 5, 2),
        kernel_size=(3, 2),
        depth_multiplier=3,
        strides=2,
        padding="same",
    ),
    "depthwise2d_dilated": _case(
        layers.DepthwiseConv2D, (3, 6, 5, 2), kernel_size=2, dilation_rate=2
    ),
    "separable1d": _case(
        layers.SeparableConv1D, (3, 7, 2), filters=4, kernel_size=3, padding="same", dilation_rate=2
    ),
    "separable2d": _case(
        layers.SeparableConv2D,
        (3, 6, 5, 2),
        filters=4,
        kernel_size=3,
        depth_multiplier=2,
        strides=2,
        padding="same",
    ),
    "conv1d_transpose": _case(
        layers.Conv1DTranspose, (3, 4, 2), filters=3, kernel_size=2, strides=3
    ),
    "conv2d_transpose": _case(
        layers.Conv2DTranspose,
        (3, 3, 4, 2),
        filters=4,
        kernel_size=(3, 4),
        strides=2,
        padding="same",
    ),
    "conv2d_transpose_output_padding": _case(
        layers.Conv2DTranspose,
        (3, 3, 4, 2),
        filters=3,
        kernel_size=3,
        strides=(2, 3),
        padding="same",
        output_padding=(1, 2),
    ),
    "conv2d_transpose_dilated": _case(
        layers.Conv2DTranspose, (3, 3, 4, 2), filters=3, kernel_size=2, dilation_rate=2
    ),
    "conv3d_transpose": _case(
        layers.Conv3DTranspose, (2, 2, 3, 2, 2), filters=3, kernel_size=2, strides=2
    ),
    "depthwise2d_first": _case(
        layers.DepthwiseConv2D, (3, 2, 4, 4), kernel_size=2, depth_multiplier=2, **_FIRST
    ),
    "separable2d_first": _case(
        layers.SeparableConv2D, (3, 2, 4, 4), filters=3, kernel_size=2, **_FIRST
    ),
    "conv2d_transpose_first": _case(
        layers.Conv2DTranspose, (3, 2, 4, 4), filters=3, kernel_size=2, strides=2, **_FIRST
    ),
}

COMPILED_BY_KERAS = (
    "conv2d_groups",
    "conv2d_first",
    "depthwise2d_first",
    "separable2d_first",
    "conv2d_transpose_first",
)

# One layer of every map: every variant goes through these, every rule through all.
REPRESENTATIVES = (
    "dense",
    "dense_rank3",
    "conv1d_causal",
    "conv2d_same",
    "conv3d",
    "einsum",
    "depthwise2d",
    "separable2d",
    "conv2d_transpose",
)

PLAIN_RULES = tuple(name for name in RULES if ":" not in name)


def rule(variant: str) -> alignments.Alignment:
    """The rule object of a variant."""
    return alignments.get({"name": variant.partition(":")[0], **EVERY[variant]})


# Of what takes seconds a layer, these maps are quick tests and all others slow ones.
QUICK_LAYERS = ("dense", "conv2d_same", "einsum", "separable2d")


def quick(names: Iterable[str]) -> list[Any]:
    """Names as parameters, the others than QUICK_LAYERS marked slow."""
    return [n if n in QUICK_LAYERS else pytest.param(n, marks=pytest.mark.slow) for n in names]


def draw(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """A float32 normal array."""
    return np.random.default_rng(seed).normal(size=shape).astype("float32")
