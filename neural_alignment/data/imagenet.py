"""ImageNet, or any image folder prepared like it, from TFRecords on a disk or on gs://.

An epoch's order is fixed by (seed, epoch): the shards are permuted, read by a fixed interleave, and
shuffled in a buffer of undecoded records. Batches to be skipped are dropped there, so a resumed run
decodes nothing twice; an example's augmentation depends on (seed, epoch, its place in the epoch).
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import threading
from collections.abc import Callable, Sequence

import numpy as np
from absl import logging

from neural_alignment.data import preprocessing as preprocess
from neural_alignment.data import tfds, tfrecords
from neural_alignment.data.dataset import Dataset, check_train_arguments, finish, shard_size
from neural_alignment.data.tfrecords import LAYOUTS, Shard
from neural_alignment.lazy import tf

NUM_CLASSES, NUM_TRAIN, NUM_VALIDATION = 1000, 1_281_167, 50_000  # ILSVRC 2012
IMAGE_SIZE = {"resnet": 224, "inception": 299}  # where none is asked for
PATTERNS = {
    "train": ("train-*", "train/train-*", "train/*.tfrecord*"),
    "validation": ("validation-*", "validation/validation-*", "validation/*.tfrecord*"),
}
SPLITS = ("train", "validation")
MANIFEST = "manifest.json"  # scripts/prepare_imagenet.py writes it beside the shards
SHARD_BY = ("record", "file")

_GOOD, _CORRUPT, _UNREADABLE = 0, 1, 2  # states of a record
_CYCLE = 16  # shards read at a time
_READ_BYTES = 4 << 20  # of each: a request to gs:// takes long, however little it asks for


class BadRecordError(ValueError):
    """A record that cannot be used; the message names its shard and index."""


class BadRecords:
    """Counts corrupt images, each once, and stops at a limit.

    The count is of one process: each of several workers has its own, and a resumed run starts anew.

    Args:
        limit: how many different records may be skipped.

    Raises:
        ValueError: limit < 0.
    """

    def __init__(self, limit: int = 0) -> None:
        if limit < 0:
            raise ValueError(f"Expected max_bad_records >= 0. Received: {limit}.")
        self.limit = limit
        self._found: dict[tuple[str, int], None] = {}
        self._lock = threading.Lock()

    @property
    def found(self) -> tuple[tuple[str, int], ...]:
        """(shard, index in it) of every corrupt image met so far, in that order."""
        return tuple(self._found)

    def add(self, path: str, index: int) -> None:
        """Counts a record.

        Args:
            path: its shard.
            index: its place there.

        Raises:
            BadRecordError: that is one more than the limit.
        """
        with self._lock:
            if (path, index) in self._found:
                return
            self._found[path, index] = None
            count = len(self._found)
        if count > self.limit:
            raise BadRecordError(
                f"{path}, record {index}: Expected an image that can be decoded. Received: a "
                f"corrupt one, the {_ordinal(count)} of this process. Repair it, or allow more "
                f"with max_bad_records (now {self.limit})."
            )
        logging.warning("%s, record %d: corrupt image %d, skipped", path, index, count)


def describe_error(error: BaseException) -> str | None:
    """The one line that matters in what TensorFlow raises for a bad record.

    Args:
        error: what iterating a pipeline raised.

    Returns:
        The message, or None where the error is another.
    """
    match = re.search(rf"{BadRecordError.__name__}: (.*)", str(error))
    return match[1].strip() if match else None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ImageNet(Dataset):
    """Images in TFRecord shards; build it with `load` or `load_tfds`.

    A corrupt image is counted in `bad_records` and left out, or raises: in training another image
    of its batch takes its place, so that batches keep their size and a resumed run its data; in
    validation its batch is smaller.

    Args:
        shards: the training and the validation shards, or those of one split to use no other.
        preprocessing: from encoded images to the network's input.
        bad_records: what counts corrupt images.
        shuffle_buffer: undecoded records to shuffle among (ImageNet's take 110 KB each).
        shard_by: "record": every worker reads all training shards, and decodes its part of each
            batch: batches are the same whatever the number of workers. "file": a worker reads its
            own training shards only, for many hosts on one storage; batches depend on their number.
    """

    shards: dict[str, tuple[Shard, ...]]
    preprocessing: preprocess.Preprocessing
    bad_records: BadRecords = dataclasses.field(default_factory=BadRecords)
    shuffle_buffer: int = 8192
    shard_by: str = "record"

    def __post_init__(self) -> None:
        if self.shuffle_buffer < 1:
            raise ValueError(f"Expected shuffle_buffer >= 1. Received: {self.shuffle_buffer}.")
        if self.shard_by not in SHARD_BY:
            raise ValueError(
                f"Expected shard_by: {', '.join(SHARD_BY)}. Received: {self.shard_by!r}."
            )

    def check_shares(self, batch_size: int, count: int) -> None:
        """Checks, with shard_by "file", that every worker's files last an epoch."""
        if self.shard_by != "file":
            return
        expected = self.steps_per_epoch(batch_size) * shard_size(batch_size, (0, count))
        for index in range(count):
            own = self.shards["train"][index::count]
            records = sum(shard.records for shard in own)
            if records < expected:
                raise ValueError(
                    f"Expected {expected} training records in the {len(own)} files of worker "
                    f"{index}, one of {count}. Received: {records}. Use shard_by='record', or more "
                    "and more equal files."
                )

    def train(
        self,
        batch_size: int,
        epoch: int,
        seed: int,
        skip_batches: int = 0,
        shard: tuple[int, int] = (0, 1),
    ) -> tf.data.Dataset:
        """One epoch of shuffled full batches; see `Dataset.train`."""
        steps = self.steps_per_epoch(batch_size)
        check_train_arguments(steps, epoch, seed, skip_batches)
        size = shard_size(batch_size, shard)
        index, count = shard
        key = _epoch_key(seed, epoch)
        order = np.random.default_rng([seed, epoch]).permutation(len(self.shards["train"]))
        if self.shard_by == "file":
            order = order[order % count == index]
            self.check_shares(batch_size, count)
            records = self._records("train", order)
            records = _shuffle(records, self.shuffle_buffer, key).enumerate()
            records = records.take(steps * size).skip(skip_batches * size)
            records = records.map(lambda place, record: (place * count + index, record))
        else:
            records = self._records("train", order)
            records = _shuffle(records, self.shuffle_buffer, key).enumerate()
            records = records.take(steps * batch_size).skip(skip_batches * batch_size)
            records = _part(records, batch_size, size, index)
        examples = self._examples(records, "train", key)
        batches = examples.batch(size, drop_remainder=True).map(self._settle("train"))
        return finish(batches)

    def validation(self, batch_size: int, shard: tuple[int, int] = (0, 1)) -> tf.data.Dataset:
        """Every validation example once, in a fixed order; see `Dataset.validation`."""
        size = shard_size(batch_size, shard)
        index, _ = shard
        records = self._records("validation", np.arange(len(self.shards["validation"])))
        records = _part(records.enumerate(), batch_size, size, index)
        batches = self._examples(records, "validation", None).batch(size)
        rest = self.num_validation % batch_size
        if rest and rest <= index * size:  # this shard's part of the last batch is empty
            empty = [tf.zeros([0, *part.shape[1:]], part.dtype) for part in batches.element_spec]
            batches = batches.concatenate(tf.data.Dataset.from_tensors(tuple(empty)))
        return finish(batches.map(self._settle("validation")))

    def _records(self, split: str, order: np.ndarray) -> tf.data.Dataset:
        # (number of the shard, index in it, serialised record; "" for one that cannot be read)
        shards = self.shards[split]
        table = (
            [shards[number].path for number in order],
            order.astype(np.int64),
            np.array([shards[number].records for number in order], np.int64),
        )

        def read(path: tf.Tensor, number: tf.Tensor, records: tf.Tensor) -> tf.data.Dataset:
            # A damaged record ends its file. The count says how many are due, so that none is
            # lost unnoticed: "" stands for what did not come, and `_settle` raises.
            found = tf.data.TFRecordDataset(path, buffer_size=_READ_BYTES)
            found = found.ignore_errors(log_warning=True)
            missing = tf.data.Dataset.from_tensors("").repeat()
            return tf.data.Dataset.zip(
                (
                    tf.data.Dataset.from_tensors(number).repeat(),
                    tf.data.Dataset.range(records),
                    found.concatenate(missing),
                )
            )

        return tf.data.Dataset.from_tensor_slices(table).interleave(
            read,
            cycle_length=min(_CYCLE, len(order)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    def _examples(self, records: tf.data.Dataset, split: str, key: int | None) -> tf.data.Dataset:
        # (image, label, state, number of the shard, index in it)
        layout = LAYOUTS[self.shards[split][0].layout]
        features = {
            layout.image: tf.io.FixedLenFeature([], tf.string),
            layout.label: tf.io.FixedLenFeature([], tf.int64),
        }
        nothing = (tf.zeros([1, 1, 3], tf.uint8), tf.constant(0), tf.constant(False))

        def example(place: tf.Tensor, record: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
            number, index, serialized = record
            seed = None if key is None else tf.stack([tf.constant(key, tf.int64), place])

            def decode(serialized: tf.Tensor) -> tuple[tf.Tensor, ...]:
                parsed = tf.io.parse_single_example(serialized, features)
                label = tf.cast(parsed[layout.label] - layout.first_label, tf.int32)
                return self.preprocessing.crop(parsed[layout.image], seed), label, True

            # A data set of one element, since only a data set can tell that an operation failed.
            attempt = tf.data.Dataset.from_tensors(serialized).map(decode).ignore_errors()
            attempt = attempt.concatenate(tf.data.Dataset.from_tensors(nothing)).take(1)
            crop, label, good = attempt.get_single_element()
            failed = tf.where(tf.strings.length(serialized) == 0, _UNREADABLE, _CORRUPT)
            state = tf.where(good, _GOOD, failed)
            return self.preprocessing.finish(crop, seed), label, state, number, index

        return records.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def _settle(self, split: str) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
        paths = [shard.path for shard in self.shards[split]]

        def report(states: np.ndarray, numbers: np.ndarray, indices: np.ndarray) -> np.ndarray:
            for state, number, index in zip(states, numbers, indices, strict=True):
                if state == _UNREADABLE:
                    raise BadRecordError(
                        f"{paths[number]}, record {index}: Expected a readable record. Received: "
                        "a damaged or shortened file, or storage that failed. Write the shard "
                        "again if it is damaged."
                    )
                if state == _CORRUPT:
                    self.bad_records.add(paths[number], int(index))
            if split == "train" and all(states):
                raise BadRecordError(
                    f"{paths[numbers[0]]}, record {indices[0]}: Expected a batch with a usable "
                    f"image. Received: {len(states)} corrupt ones."
                )
            return np.flatnonzero(states == _GOOD)

        def settle(
            images: tf.Tensor,
            labels: tf.Tensor,
            states: tf.Tensor,
            numbers: tf.Tensor,
            indices: tf.Tensor,
        ) -> tuple[tf.Tensor, tf.Tensor]:
            def repair() -> tuple[tf.Tensor, tf.Tensor]:
                rows = tf.numpy_function(report, [states, numbers, indices], tf.int64)
                rows = tf.ensure_shape(rows, [None])
                if split == "train":
                    own = tf.range(tf.size(states, tf.int64))
                    spare = tf.gather(rows, own % tf.size(rows, tf.int64))
                    rows = tf.where(states == _GOOD, own, spare)
                return tf.gather(images, rows), tf.gather(labels, rows)

            return tf.cond(tf.reduce_all(states == _GOOD), lambda: (images, labels), repair)

        return settle


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
    1; or `image`, `label` from 0. The first record of a shard tells which.

    Args:
        name: the data set's name.
        data_dir: the folder, local or gs://.
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
            "from image-net.org; scripts/prepare_imagenet.py then makes the TFRecords."
        )
    if data_dir is None:
        raise FileNotFoundError(
            f"Expected the folder (or gs:// path) of {name}'s TFRecords. Received: none. Give it "
            "with --data_dir."
        )
    data_dir = os.path.expanduser(data_dir)
    prepared = _preprocessing(preprocessing, image_size)  # before the files are gone through
    bad_records = BadRecords(max_bad_records)
    manifest = _manifest(data_dir)
    if num_classes is None:
        num_classes = manifest.get("num_classes", NUM_CLASSES)
    expected = {"train": num_train, "validation": num_validation}
    shards = {}
    for split, default in (("train", NUM_TRAIN), ("validation", NUM_VALIDATION)):
        counts = manifest.get("splits", {}).get(split, {})
        if expected[split] is None:
            expected[split] = sum(counts.values()) if counts else default
        if split in splits:
            paths = tfrecords.find_shards(data_dir, PATTERNS[split])
            shards[split] = check(paths, split, num_classes, expected[split], counts)
    return ImageNet(
        name=name,
        num_classes=num_classes,
        image_shape=(prepared.image_size, prepared.image_size, 3),
        num_train=expected["train"],
        num_validation=expected["validation"],
        shards=shards,
        preprocessing=prepared,
        bad_records=bad_records,
        shuffle_buffer=shuffle_buffer,
        shard_by=shard_by,
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
    prepared = _preprocessing(preprocessing, image_size)
    bad_records = BadRecords(max_bad_records)
    builder = tfds.prepared_builder(name, data_dir, download)
    info = builder.info
    if info.file_format is None or info.file_format.value != "tfrecord":
        raise ValueError(
            f"Expected {name} in TFRecord files in {builder.data_dir}. Received: {info.file_format}"
            ". Prepare it with file_format='tfrecord'."
        )
    num_classes = info.features["label"].num_classes
    sources = {"train": "train", "validation": "validation"}
    if "validation" not in info.splits:
        sources["validation"] = "test"
    shards = {}
    for split, source in sources.items():
        if source not in info.splits:
            raise ValueError(
                f"Expected a split {source!r} in {builder.data_dir}. Received: "
                f"{', '.join(info.splits)}."
            )
        if split not in splits:
            continue
        paths = [os.fspath(path) for path in info.splits[source].filepaths]
        for path in paths:
            if not tf.io.gfile.exists(path):
                raise FileNotFoundError(f"Expected the shard {path}. Received: no such file.")
        shards[split] = check(paths, split, num_classes, info.splits[source].num_examples)
    return ImageNet(
        name=name,
        num_classes=num_classes,
        image_shape=(prepared.image_size, prepared.image_size, 3),
        num_train=info.splits[sources["train"]].num_examples,
        num_validation=info.splits[sources["validation"]].num_examples,
        shards=shards,
        preprocessing=prepared,
        bad_records=bad_records,
        shuffle_buffer=shuffle_buffer,
        shard_by=shard_by,
    )


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


def _preprocessing(name: str, image_size: int | None) -> preprocess.Preprocessing:
    return preprocess.get(name, IMAGE_SIZE.get(name, 224) if image_size is None else image_size)


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


def _epoch_key(seed: int, epoch: int) -> int:
    state = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(2))  # leaves room to count up from it in int64


def _shuffle(records: tf.data.Dataset, size: int, key: int) -> tf.data.Dataset:
    def shuffled(_: tf.Tensor) -> tf.data.Dataset:
        # Sets the seed of this function's graph: without it the order would depend on
        # tf.random.set_seed as well.
        tf.compat.v1.set_random_seed(0)
        return records.shuffle(size, seed=key, reshuffle_each_iteration=False)

    return tf.data.Dataset.from_tensors(0).flat_map(shuffled)


def _part(records: tf.data.Dataset, batch_size: int, size: int, index: int) -> tf.data.Dataset:
    # Of every batch the index-th `size` records, by their place in the epoch.
    if size == batch_size:
        return records
    return records.filter(lambda place, _: place % batch_size // size == index)


def _ordinal(number: int) -> str:
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{'th' if number // 10 % 10 == 1 else suffix}"
