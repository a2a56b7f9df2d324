"""Class folders of images as ImageNet's records, kept encoded in memory: for small sets."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import logging
import os
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from neural_alignment import extras
from neural_alignment.data import folders
from neural_alignment.data.encode import FORMATS, example, to_jpeg
from neural_alignment.data.record_pipeline import ImageNet
from neural_alignment.data.sources import Image
from neural_alignment.data.tfrecords import Shard
from neural_alignment.lazy import tf
from neural_alignment.messages import one_line, size

_log = logging.getLogger(__name__)

LIMIT = 1 << 30  # bytes of encoded images; a larger set is prepared, and read as it is trained on
_LAYOUT = "original"  # of the records made here


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FolderImageNet(ImageNet):
    """`ImageNet` with its records in memory; build it with `load`.

    Args:
        records: the serialised examples of each split.
    """

    records: dict[str, Sequence[bytes]]

    def _records(self, split: str, order: np.ndarray) -> tf.data.Dataset:
        records = self.records[split]
        with tf.device("CPU:0"):
            table = (
                np.zeros(len(records), np.int64),
                np.arange(len(records), dtype=np.int64),
                tf.constant(records),
            )
        return tf.data.Dataset.from_tensor_slices(table)


def load(
    name: str,
    found: folders.Folders,
    splits: Sequence[str],
    expected: dict[str, int | None],
    **options: Any,
) -> FolderImageNet:
    """Reads the images of class folders; each is decoded once, to see that it can be.

    Args:
        name: the data set's name.
        found: where the images are.
        splits: those to read.
        expected: the number of "classes", and of "train" and "validation" images; None: any.
        **options: those of `ImageNet`: `preprocessing`, `bad_records` and the like.

    Returns:
        The data set.

    Raises:
        ValueError: see `folders.load`; or there are other numbers than expected.
    """
    extras.require(f"the data set {name!r}, from images in folders,", "PIL")
    train, validation, classes, said = folders.listing(found)
    listed = {"train": train, "validation": validation}
    needed = sum(image.size for split in splits for image in listed[split])
    if needed > LIMIT:
        raise ValueError(
            f"Expected class folders of {size(LIMIT)} at most, to be kept in memory. Received: "
            f"{size(needed)} in {found.train}. Prepare the set: {folders.preparation(found)}."
        )
    records = {split: _encoded(listed[split], options["bad_records"].limit) for split in splits}
    counts = {split: len(records.get(split, listed[split])) for split in listed}
    there = {"classes": len(classes), **counts}
    for key, number in expected.items():
        if number not in (None, there[key]):
            raise ValueError(
                f"Expected num_{key} {number}. Received: {there[key]} in {found.train} and "
                f"{found.validation or 'what is held out of it'}."
            )
    side = options["preprocessing"].image_size
    return FolderImageNet(
        name=name,
        num_classes=len(classes),
        image_shape=(side, side, 3),
        num_train=counts["train"],
        num_validation=counts["validation"],
        source=said,
        shards={
            split: (Shard(found.train, counts[split], FORMATS[_LAYOUT], 0, len(classes) - 1),)
            for split in splits
        },
        records=records,
        **options,
    )


def _encoded(split: Sequence[Image], limit: int) -> list[bytes]:
    # Mixed as prepared shards are: a shuffle buffer is smaller than a set that is sorted by class.
    order = list(split)
    random.Random(0).shuffle(order)
    records, unreadable = [], 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for image, record in zip(order, pool.map(_record, order), strict=True):
            if isinstance(record, bytes):
                records.append(record)
                continue
            unreadable += 1
            if unreadable > limit:
                raise ValueError(
                    f"{image.path}: Expected an image that can be decoded. Received: "
                    f"{one_line(record)}. Replace it, or allow more such images with "
                    f"max_bad_records (now {limit})."
                )
            _log.warning("%s: corrupt image, left out: %s", image.path, one_line(record))
    if not records:
        raise ValueError("Expected images that can be decoded. Received: none.")
    return records


def _record(image: Image) -> bytes | Exception:
    try:
        return example(to_jpeg(image.read())[0], image.label, _LAYOUT)
    except (OSError, tf.errors.OpError) as error:
        return error
