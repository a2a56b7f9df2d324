"""Keras's Dense and convolutional layers with one more argument: `alignment=`."""

from neural_alignment.layers.aligned import Aligned, aligned_layers, sites, training_step
from neural_alignment.layers.convert import align, strip
from neural_alignment.layers.convolutional import Conv1D, Conv2D, Conv3D
from neural_alignment.layers.dense import Dense
from neural_alignment.layers.report import conversion_report
from neural_alignment.layers.site import Site
from neural_alignment.maps import conv, matmul

__all__ = [
    "Aligned",
    "Conv1D",
    "Conv2D",
    "Conv3D",
    "Dense",
    "Site",
    "align",
    "aligned_layers",
    "conv",
    "conversion_report",
    "matmul",
    "sites",
    "strip",
    "training_step",
]
