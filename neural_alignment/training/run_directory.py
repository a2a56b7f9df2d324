"""The former place of `neural_alignment.runs.directory` and `neural_alignment.runs.table`."""

from neural_alignment.deprecation import moved

_DIRECTORY = "neural_alignment.runs.directory"
_TABLE = "neural_alignment.runs.table"

__getattr__ = moved(
    __name__,
    {
        "METRICS": _TABLE,
        "RunDirectoryError": _DIRECTORY,
        "Table": _TABLE,
        "check_flags": _DIRECTORY,
        "write_flags": _DIRECTORY,
    },
)
