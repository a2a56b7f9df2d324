"""Batches of encoded images in records: order, shards of workers, bad records.

An epoch's order is fixed by (seed, epoch): the shards are permuted, read by a fixed interleave, and
shuffled in a buffer of undecoded records. Batches to be skipped are dropped there, so a resumed run
decodes nothing twice; an example's augmentation depends on (seed, epoch, its place in the epoch).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from neural_alignment.data import preprocessing as preprocess
from neural_alignment.data.bad_records import BadRecordError, BadRecords
from neural_alignment.data.dataset import Dataset, check_train_arguments, finish, shard_size
from neural_alignment.data.tfrecords import LAYOUTS, Shard
from neural_alignment.lazy import tf

SHARD_BY = ("record", "file")

_GOOD, _CORRUPT, _UNREADABLE = 0, 1, 2  # states of a record
_CYCLE = 16  # shards read at a time
_READ_BYTES = 4 << 20  # of each: a request to gs:// takes long, however little it asks for


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

    Raises:
        ValueError: shuffle_buffer < 1, or another shard_by.
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
