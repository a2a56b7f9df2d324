"""The former place of what is in `neural_alignment.maps`."""

import warnings

from neural_alignment.maps import Conv, Linear, Matmul, conv, matmul, two_kernels

__all__ = ["Conv", "Linear", "Matmul", "conv", "matmul", "two_kernels"]

warnings.warn(
    "neural_alignment.layers.operations has moved: import from neural_alignment.maps.",
    DeprecationWarning,
    stacklevel=2,
)
