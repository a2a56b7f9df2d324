"""Former place of the Keras callbacks for plain `fit`: see `neural_alignment.callbacks`."""

from __future__ import annotations

from neural_alignment.callbacks import AlignmentMetrics, GlobalStep
from neural_alignment.deprecation import moved

__all__ = ["AlignmentMetrics", "GlobalStep"]

__getattr__ = moved(__name__, {"TensorBoardScalars": "neural_alignment.training.events"})
