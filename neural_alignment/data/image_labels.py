"""A file with the class of each image, where no folder tells it: ImageNet's validation images."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

_SYNSET = re.compile(r"\bn\d{8}\b")


def read_labels(path: str, names: Sequence[str]) -> list[str]:
    """The class of each image.

    Args:
        path: of the file.
        names: of the images, sorted.

    Returns:
        Names of classes, in the order of the images.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line without a class, not a class for each image, or a file that is no text.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"Expected a file with the images' classes. Received: {path}.")
    # Names of images may be of any encoding, and a heading, too; of UTF-16 every other byte is 0.
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        text = file.read()
    if "\0" in text:
        raise ValueError(f"{path}: Expected text in UTF-8. Received: another encoding, or no text.")
    lines = [line for line in text.splitlines() if line.strip()]
    if lines and not _SYNSET.search(lines[0]):
        lines = lines[1:]  # a heading, as in LOC_val_solution.csv
    stems = [os.path.splitext(os.path.basename(name))[0] for name in names]
    owners = {}
    for number, line in enumerate(lines):
        synset = _SYNSET.search(line)
        if synset is None:
            raise ValueError(
                f"{path}: Expected a class like n01440764 in every line. Received: {line[:60]!r}. "
                "Numbers of the development kit are in another order than the classes."
            )
        stem = os.path.splitext(re.split(r"[\s,]", line.strip())[0])[0]
        if stem == synset[0] and number < len(stems):
            stem = stems[number]
        owners[stem] = synset[0]
    missing = [stem for stem in stems if stem not in owners]
    if missing or len(lines) != len(names):
        raise ValueError(
            f"{path}: Expected the classes of {len(names)} images. Received: {len(lines)} lines"
            f"{f', none for {missing[0]}' if missing else ''}."
        )
    return [owners[stem] for stem in stems]
