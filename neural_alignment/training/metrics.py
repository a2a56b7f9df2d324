"""Former place of `neural_alignment.metrics`; goes with the next version."""

import warnings

from neural_alignment.metrics import *  # noqa: F403

warnings.warn(
    "neural_alignment.training.metrics has moved: import neural_alignment.metrics.",
    DeprecationWarning,
    stacklevel=2,
)
