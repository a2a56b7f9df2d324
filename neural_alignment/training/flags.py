"""The former place of what `neural_alignment.config` holds."""

from neural_alignment.deprecation import moved

_FLAGS = "neural_alignment.config.flags"
_GROUPS = "neural_alignment.config.groups"
_PRESETS = "neural_alignment.config.presets"

__getattr__ = moved(
    __name__,
    {
        "DATA_FLAGS": _FLAGS,
        "MODEL_FLAGS": _FLAGS,
        "PRESETS": _PRESETS,
        "STRATEGIES": _GROUPS,
        "UsageError": "neural_alignment.config.options",
        "coefficient_names": _GROUPS,
        "command_line": f"{_PRESETS}:expand",
        "define_flags": _FLAGS,
        "expand_presets": f"{_PRESETS}:expand",
        "preset_names": _PRESETS,
        "rule_options": _GROUPS,
        "validate": "neural_alignment.config.checks",
        "with_flags_of_run": _PRESETS,
    },
)
