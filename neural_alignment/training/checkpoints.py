"""The former place of `neural_alignment.runs.checkpoints`."""

from neural_alignment.deprecation import moved

_PLACE = "neural_alignment.runs.checkpoints"

__getattr__ = moved(
    __name__,
    {
        name: _PLACE
        for name in (
            "CheckpointError",
            "Checkpoints",
            "assign",
            "differences",
            "find",
            "not_finite",
            "step_of",
        )
    },
)
