"""Maps that are linear in their input and in their kernel, and what goes back through another one.

A map knows its two transposes and what its kernel's axes are. Importing it imports no Keras.
"""

from neural_alignment.maps.conv import Conv, ConvTranspose, DepthwiseConv
from neural_alignment.maps.einsum import Einsum
from neural_alignment.maps.factored import Factored
from neural_alignment.maps.linear import Linear
from neural_alignment.maps.matmul import Matmul
from neural_alignment.maps.narrow import Narrow
from neural_alignment.maps.operations import conv, matmul, two_kernels
from neural_alignment.maps.units import Units

__all__ = [
    "Conv",
    "ConvTranspose",
    "DepthwiseConv",
    "Einsum",
    "Factored",
    "Linear",
    "Matmul",
    "Narrow",
    "Units",
    "conv",
    "matmul",
    "two_kernels",
]
