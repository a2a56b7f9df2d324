"""Keras's layers that have kernels, with one more argument: `alignment=`."""

from neural_alignment.layers.aligned import Aligned, aligned_layers, sites, training_step
from neural_alignment.layers.attention import GroupQueryAttention, MultiHeadAttention
from neural_alignment.layers.conv_transpose import (
    Conv1DTranspose,
    Conv2DTranspose,
    Conv3DTranspose,
)
from neural_alignment.layers.convert import align, strip
from neural_alignment.layers.convolutional import Conv1D, Conv2D, Conv3D
from neural_alignment.layers.dense import Dense
from neural_alignment.layers.depthwise import DepthwiseConv1D, DepthwiseConv2D
from neural_alignment.layers.direct import DirectFeedback, StopError
from neural_alignment.layers.einsum_dense import EinsumDense
from neural_alignment.layers.report import conversion_report
from neural_alignment.layers.separable import SeparableConv1D, SeparableConv2D
from neural_alignment.layers.site import Site
from neural_alignment.maps import conv, matmul

__all__ = [
    "Aligned",
    "Conv1D",
    "Conv1DTranspose",
    "Conv2D",
    "Conv2DTranspose",
    "Conv3D",
    "Conv3DTranspose",
    "Dense",
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "DirectFeedback",
    "EinsumDense",
    "GroupQueryAttention",
    "MultiHeadAttention",
    "SeparableConv1D",
    "SeparableConv2D",
    "Site",
    "StopError",
    "align",
    "aligned_layers",
    "conv",
    "conversion_report",
    "matmul",
    "sites",
    "strip",
    "training_step",
]
