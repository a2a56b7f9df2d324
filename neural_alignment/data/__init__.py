"""Data sets by name: `names()`, `get(name, **options)`; nothing here imports TensorFlow.

A data set yields batches (images float32 in [0, 1] unless its preprocessing says otherwise,
labels int32) from two methods, `train` and `validation`; see `Dataset`.
"""

from neural_alignment.data.registry import get, names, options, register

__all__ = ["ArrayDataset", "Dataset", "get", "names", "options", "register"]


def __getattr__(name: str) -> type:
    if name == "Dataset":
        from neural_alignment.data.dataset import Dataset

        return Dataset
    if name == "ArrayDataset":
        from neural_alignment.data.arrays import ArrayDataset

        return ArrayDataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
