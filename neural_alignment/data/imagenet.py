"""ImageNet, or any image folder prepared like it, from TFRecords on a disk or on gs://.

The records are found, counted and checked here, before step 1; `record_pipeline` reads them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from neural_alignment.data import folder_records, folders, tfds, tfrecords
from neural_alignment.data import preprocessing as preprocess
from neural_alignment.data.bad_records import BadRecordError, BadRecords, describe_error
from neural_alignment.data.claim import MANIFEST
from neural_alignment.data.published import IMAGENET
from neural_alignment.data.record_pipeline import ImageNet
from neural_alignment.data.tfrecords import LAYOUTS, Shard
from neural_alignment.lazy import tf

__all__ = [
    "BadRecordError", "BadRecords", "ImageNet", "check", "describe_error", "load", "load_tfds",
]  # fmt: skip

IMAGE_SIZE = {"resnet": 224, "inception": 299}  # where none is asked for
PATTERNS = {
    "train": ("train-*", "train/train-*", "train/*.tfrecord*"),
    "validation": ("validation-*", "validation/validation-*", "validation/*.tfrecord*"),
}
SPLITS = ("train", "validation")


def load(
    name: str,
    data_dir: str | None = None,
    download: bool = False,
    image_size: int | None = None,
    preprocessing: str = "resnet",
    num_classes: int | None = None,
    num_train: int | None = None,
    num_validation: int | None = None,
    max_bad_records: int = 0,
    shuffle_buffer: int = 8192,
    shard_by: str = "record",
    splits: Sequence[str] = SPLITS,
) -> ImageNet:
    """Finds the shards train-* and validation-* in a folder, and checks them.

    The features are [K]'s `images`, `labels` from 0; or `image/encoded`, `image/class/label` from
    1; or `image`, `label` from 0. The first record of a shard tells which. Where there are no
    shards but class folders of images, these are read into memory, if they are few enough.

    Args:
        name: the data set's name.
        data_dir: the folder, local or gs://; class folders: local.
        download: must be False: ImageNet is not to be had without registration.
        image_size: pixels a side; None: `IMAGE_SIZE` of the preprocessing.
        preprocessing: "resnet" or "inception".
        num_classes: None: what the folder's manifest.json says, 1,000 without one.
        num_train: images there should be; None: the manifest's count, ILSVRC 2012's without one.
        num_validation: the same for validation.
        max_bad_records: see `BadRecords`.
        shuffle_buffer: see `ImageNet`.
        shard_by: see `ImageNet`.
        splits: those to look for and check; ("validation",) to evaluate without training shards.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: no folder given, or no matching file in it.
        ValueError: an option makes no sense; or a shard is missing, empty, cut short or damaged; or
            the number of images is wrong, or a label is out of range.
    """
    if download:
        raise ValueError(
            "Expected a folder of ImageNet TFRecords. Received: download. ImageNet can only be had "
            "from image-net.org; `neural-alignment prepare` then makes the TFRecords."
        )
    if data_dir is None:
        raise FileNotFoundError(
            f"Expected the folder (or gs:// path) of {name}'s TFRecords. Received: none. Give it "
            "with --data_dir."
        )
    data_dir = os.path.expanduser(data_dir)
    options = _options(preprocessing, image_size, max_bad_records, shuffle_buffer, shard_by)
    expected = {"classes": num_classes, "train": num_train, "validation": num_validation}
    found = _class_folders(data_dir)
    if found is not None:
        return folder_records.load(name, found, splits, expected, **options)
    return _from_records(name, data_dir, splits, expected, options)


def _from_records(
    name: str,
    data_dir: str,
    splits: Sequence[str],
    expected: dict[str, int | None],
    options: dict[str, Any],
) -> ImageNet:
    manifest = _manifest(data_dir)
    due = {"classes": manifest.get("num_classes", IMAGENET["classes"])}
    counts = {split: manifest.get("splits", {}).get(split, {}) for split in SPLITS}
    for split in SPLITS:
        due[split] = sum(counts[split].values()) or IMAGENET[split]
    due |= {key: number for key, number in expected.items() if number is not None}
    shards = {}
    for split in splits:
        paths = tfrecords.find_shards(data_dir, PATTERNS[split])
        shards[split] = check(paths, split, due["classes"], due[split], counts[split])
    side = options["preprocessing"].image_size
    return ImageNet(
        name=name,
        num_classes=due["classes"],
        image_shape=(side, side, 3),
        num_train=due["train"],
        num_validation=due["validation"],
        shards=shards,
        source=f"{sum(map(len, shards.values()))} TFRecord files in {data_dir}",
        **options,
    )


def load_tfds(
    name: str,
    data_dir: str | None = None,
    download: bool = False,
    image_size: int | None = None,
    preprocessing: str = "resnet",
    max_bad_records: int = 0,
    shuffle_buffer: int = 8192,
    shard_by: str = "record",
    splits: Sequence[str] = SPLITS,
) -> ImageNet:
    """ImageNet as TensorFlow Datasets prepared it (imagenet2012), read by the same pipeline.

    Args:
        name: a set of TensorFlow Datasets with features `image` (encoded) and `label`, and splits
            train and validation (or test).
        data_dir: the folder TensorFlow Datasets keeps its sets in; None: its own default.
        download: let TensorFlow Datasets fetch or prepare the set, if it is not there yet.
        image_size: see `load`.
        preprocessing: see `load`.
        max_bad_records: see `BadRecords`.
        shuffle_buffer: see `ImageNet`.
        shard_by: see `ImageNet`.
        splits: see `load`.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: the set is not in the folder, and download is False.
        ValueError: as `load`, or the set is stored otherwise than in TFRecords.
    """
    options = _options(preprocessing, image_size, max_bad_records, shuffle_buffer, shard_by)
    builder = tfds.prepared_builder(name, data_dir, download)
    info = builder.info
    if info.file_format is None or info.file_format.value != "tfrecord":
        raise ValueError(
            f"Expected {name} in TFRecord files in {builder.data_dir}. Received: {info.file_format}"
            ". Prepare it with file_format='tfrecord'."
        )
    sources = _tfds_splits(builder)
    num_classes = info.features["label"].num_classes
    side = options["preprocessing"].image_size
    return ImageNet(
        name=name,
        num_classes=num_classes,
        image_shape=(side, side, 3),
        num_train=info.splits[sources["train"]].num_examples,
        num_validation=info.splits[sources["validation"]].num_examples,
        shards={
            split: _tfds_shards(info.splits[sources[split]], split, num_classes) for split in splits
        },
        source=f"{builder.data_dir}, prepared by TensorFlow Datasets",
        **options,
    )


def _tfds_splits(builder: Any) -> dict[str, str]:
    """Our names of the splits to the set's."""
    there = builder.info.splits
    sources = {"train": "train", "validation": "validation" if "validation" in there else "test"}
    for source in sources.values():
        if source not in there:
            raise ValueError(
                f"Expected a split {source!r} in {builder.data_dir}. Received: {', '.join(there)}."
            )
    return sources


def _tfds_shards(info: Any, split: str, num_classes: int) -> tuple[Shard, ...]:
    paths = [os.fspath(path) for path in info.filepaths]
    for path in paths:
        if not tf.io.gfile.exists(path):
            raise FileNotFoundError(f"Expected the shard {path}. Received: no such file.")
    return check(paths, split, num_classes, info.num_examples)


def check(
    paths: Sequence[str],
    split: str,
    num_classes: int,
    expected: int,
    counts: dict[str, int] | None = None,
) -> tuple[Shard, ...]:
    """Indexes the shards of a split, and finds what is wrong with them before step 1.

    Every record's frame and label are looked at, no image: about 50 microseconds a record on a
    local disk (a minute or two for ImageNet), the whole set read once on gs://. The index is kept
    as index-SPLIT.json beside the shards where that folder can be written.

    Args:
        paths: the split's TFRecord files.
        split: "train" or "validation".
        num_classes: labels are 0 ... num_classes - 1.
        expected: records there should be.
        counts: records there should be by file name, where known.

    Returns:
        The shards.

    Raises:
        ValueError: a shard is empty, cut short or damaged, has other features than the first, or
            holds a label out of range; or the number of records is wrong.
    """
    cache = os.path.join(os.path.dirname(paths[0]), f"index-{split}.json")
    shards = tuple(tfrecords.index_shards(paths, cache))
    for shard in shards:
        due = (counts or {}).get(os.path.basename(shard.path), shard.records)
        if shard.records != due:
            raise ValueError(
                f"{shard.path}: Expected {due} records, as {MANIFEST} says. Received: "
                f"{shard.records}. Write the shard again."
            )
        if shard.layout != shards[0].layout:
            raise ValueError(
                f"{shard.path}: Expected the features of {shards[0].path}, "
                f"{LAYOUTS[shards[0].layout]}. Received: {LAYOUTS[shard.layout]}."
            )
        if shard.label_min < 0 or shard.label_max >= num_classes:
            raise _bad_label(shard, num_classes)
    total = sum(shard.records for shard in shards)
    if total != expected:
        smallest = min(shards, key=lambda shard: shard.records)
        raise ValueError(
            f"Expected {expected} {split} records in {os.path.dirname(paths[0])}. Received: {total}"
            f" in {len(shards)} shards, the smallest {os.path.basename(smallest.path)} with "
            f"{smallest.records}. Write what is missing; for another set than all of ImageNet, say "
            f"num_{split}."
        )
    return shards


def _bad_label(shard: Shard, num_classes: int) -> ValueError:
    found = enumerate(tfrecords.labels(shard.path, shard.layout))
    index, label = next(each for each in found if not 0 <= each[1] < num_classes)
    layout = LAYOUTS[shard.layout]
    first = layout.first_label
    return ValueError(
        f"{shard.path}, record {index}: Expected {layout.label} from {first} to "
        f"{first + num_classes - 1}. Received: {label + first}."
    )


def _class_folders(data_dir: str) -> folders.Folders | None:
    if "://" in data_dir:
        return None
    patterns = [pattern for each in PATTERNS.values() for pattern in each]
    if any(tf.io.gfile.glob(os.path.join(data_dir, pattern)) for pattern in patterns):
        return None
    return folders.find(data_dir)


def _options(
    name: str, image_size: int | None, max_bad_records: int, shuffle_buffer: int, shard_by: str
) -> dict[str, Any]:
    # Made, and so checked, before the files are gone through.
    size = IMAGE_SIZE.get(name, 224) if image_size is None else image_size
    return {
        "preprocessing": preprocess.get(name, size),
        "bad_records": BadRecords(max_bad_records),
        "shuffle_buffer": shuffle_buffer,
        "shard_by": shard_by,
    }


def _manifest(data_dir: str) -> dict:
    path = os.path.join(data_dir, MANIFEST)
    if not tf.io.gfile.exists(path):
        return {}
    with tf.io.gfile.GFile(path) as file:
        text = file.read()
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: Expected JSON. Received: {error}. Write it again.") from error
