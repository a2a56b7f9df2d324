"""What the folders of a set's splits are called."""

from __future__ import annotations

from collections.abc import Iterable

# By preference, in small or capital letters.
TRAIN = ("train", "training")
VALIDATION = ("validation", "val", "valid", "test", "testing")


def check_no_classes(source: str, classes: Iterable[str]) -> None:
    """Refuses splits for classes: a network would learn which images are for training.

    Args:
        source: a folder or an archive.
        classes: the folders in it that have images directly in them.

    Raises:
        ValueError: they are the splits, all of them.
    """
    names = sorted(classes)
    lower = {name.lower() for name in names}
    if lower & {*TRAIN} and lower & {*VALIDATION} and lower <= {*TRAIN, *VALIDATION}:
        raise ValueError(
            f"Expected class folders of images in {source}, or folders of splits that hold class "
            f"folders. Received: images directly in {', '.join(names)}, with nothing to tell their "
            "classes. Put the images of each into folders of their classes."
        )
