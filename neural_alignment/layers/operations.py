"""The former place of what is in `neural_alignment.maps`."""

from neural_alignment.deprecation import moved

_MAPS = "neural_alignment.maps"

__getattr__ = moved(
    __name__,
    {name: _MAPS for name in ("Conv", "Linear", "Matmul", "conv", "matmul", "two_kernels")},
)
