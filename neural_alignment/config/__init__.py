"""The settings of a training job: groups of options, their flags, checks and presets.

`define_flags` declares the flags, `read` makes `Settings` of them, `check` refuses combinations
without sense, `presets.expand` puts presets and flagfiles in their places. Imports no TensorFlow.
"""

from neural_alignment.config.checks import check, validate
from neural_alignment.config.defaults import fill, filled
from neural_alignment.config.flags import Rule, Settings, define_flags, flag_lines, parsed, read
from neural_alignment.config.groups import Plan
from neural_alignment.config.options import UsageError
from neural_alignment.config.presets import expand, preset_names, with_flags_of_run

__all__ = [
    "Plan",
    "Rule",
    "Settings",
    "UsageError",
    "check",
    "define_flags",
    "expand",
    "fill",
    "filled",
    "flag_lines",
    "parsed",
    "preset_names",
    "read",
    "validate",
    "with_flags_of_run",
]
