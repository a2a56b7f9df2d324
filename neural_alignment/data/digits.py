"""scikit-learn's handwritten digits, embedded in the package: 1,797 images of 8x8, 10 classes."""

from __future__ import annotations

import dataclasses
import importlib.resources

import numpy as np

from neural_alignment.data.arrays import ArrayDataset
from neural_alignment.data.standardized import standardized

NUM_TRAIN = 1347  # three quarters of 1,797; the other 450 validate


def load(
    name: str = "digits",
    image_size: int | None = None,
    pixel_mean: float | None = None,
    pixel_stddev: float | None = None,
    shuffle: bool = True,
) -> ArrayDataset:
    """The digits, in a fixed split of 1,347 and 450; pixels 0 ... 16 become [0, 1].

    Args:
        name: the data set's name.
        image_size: resize to this many pixels a side, bilinearly; None keeps 8.
        pixel_mean: see `standardized`.
        pixel_stddev: see `standardized`.
        shuffle: see `ArrayDataset`.

    Returns:
        The data set, images [8, 8, 1] unless resized.

    Raises:
        ValueError: image_size < 1, or see `standardized`.
    """
    resource = importlib.resources.files("neural_alignment.data") / "digits.npz"
    with resource.open("rb") as file, np.load(file) as arrays:
        images = arrays["images"].reshape(-1, 8, 8, 1)
        labels = arrays["labels"]
    # RandomState's stream is frozen by NumPy's policy, so the split never changes.
    order = np.random.RandomState(0).permutation(len(images))
    train, validation = order[:NUM_TRAIN], order[NUM_TRAIN:]
    plain = ArrayDataset.from_arrays(
        name,
        train=(images[train], labels[train]),
        validation=(images[validation], labels[validation]),
        num_classes=10,
        scale=16.0,
        image_size=image_size,
    )
    plain = dataclasses.replace(plain, shuffle=shuffle)
    return standardized(plain, pixel_mean, pixel_stddev)
