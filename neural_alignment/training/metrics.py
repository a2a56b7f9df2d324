"""The former place of `neural_alignment.metrics`."""

from neural_alignment.deprecation import moved

_METRICS = "neural_alignment.metrics"

__getattr__ = moved(
    __name__,
    {
        name: _METRICS
        for name in (
            "angle",
            "kernel_metrics",
            "local_gradient_angle",
            "mean_square",
            "norm_ratio",
            "path_metrics",
            "projection_angle",
            "squared_norm",
            "weight_angle",
        )
    },
)
