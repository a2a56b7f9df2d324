"""CIFAR-10 and CIFAR-100 with the usual augmentation and standardised channels."""

from __future__ import annotations

import dataclasses

from neural_alignment.data import local
from neural_alignment.data.preprocessing import pad_crop_flip
from neural_alignment.data.published import SETS
from neural_alignment.data.standardized import StandardizedDataset

# Mean and standard deviation of the training images' channels, pixels in [0, 1].
STATISTICS = {name: (each.mean, each.stddev) for name, each in SETS.items() if each.mean}


def load(
    name: str,
    data_dir: str | None = None,
    download: bool = False,
    image_size: int | None = None,
    augment: bool = True,
    shuffle: bool = True,
) -> StandardizedDataset:
    """CIFAR, its channels standardised in both splits; the test split validates.

    Training images are padded by 4 pixels of zeros (the mean colour, as they are standardised
    already), cropped to 32 at random and flipped every other time: the usual augmentation, of He
    et al. 2016, section 4.2, and [P].

    Args:
        name: "cifar10" or "cifar100".
        data_dir: see `local.load`.
        download: see `local.load`.
        image_size: resize to this many pixels a side, bilinearly; None keeps 32.
        augment: False leaves the training images as they are.
        shuffle: see `ArrayDataset`.

    Returns:
        The data set.

    Raises:
        ValueError: another name, or see `local.load`.
        FileNotFoundError: see `local.load`.
        ConnectionError: see `local.load`.
    """
    if name not in STATISTICS:
        raise ValueError(f"Expected one of {', '.join(STATISTICS)}. Received: {name!r}.")
    plain = local.load(name, data_dir, download, image_size, pad_crop_flip if augment else None)
    plain = dataclasses.replace(plain, shuffle=shuffle)
    return StandardizedDataset.of(plain, *STATISTICS[name])
