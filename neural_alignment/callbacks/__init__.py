"""Keras callbacks for plain `fit`, the same on every back end."""

from neural_alignment.callbacks.alignment_losses import AlignmentLosses
from neural_alignment.callbacks.alignment_metrics import AlignmentMetrics
from neural_alignment.callbacks.global_step import GlobalStep

__all__ = ["AlignmentLosses", "AlignmentMetrics", "GlobalStep"]
