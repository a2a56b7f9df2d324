"""What every data set offers the training loop. Imports no TensorFlow."""

from __future__ import annotations

import abc
import dataclasses

from neural_alignment.lazy import tf


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Dataset(abc.ABC):
    """Images with labels in two splits; a subclass makes the `tf.data` pipelines.

    Args:
        name: the registered name.
        num_classes: labels are 0 ... num_classes - 1.
        image_shape: height, width, channels of what the pipelines yield.
        num_train: examples in the training split.
        num_validation: examples in the validation split.
        source: what was read, and from where, in words; "" where there is nothing to say.
    """

    name: str
    num_classes: int
    image_shape: tuple[int, int, int]
    num_train: int
    num_validation: int
    source: str = ""

    def steps_per_epoch(self, batch_size: int) -> int:
        """Full batches in an epoch: num_train // batch_size.

        Args:
            batch_size: examples of one step.

        Returns:
            The steps, at least 1.

        Raises:
            ValueError: the batch is smaller than 1 or larger than the training split.
        """
        if not 1 <= batch_size <= self.num_train:
            raise ValueError(
                f"Expected a batch size from 1 to {self.num_train}, the training examples of "
                f"{self.name}. Received: {batch_size}."
            )
        return self.num_train // batch_size

    def check_shares(self, batch_size: int, count: int) -> None:
        """Checks before step 1 that every shard's part of the training split lasts an epoch.

        Args:
            batch_size: examples of one step, over all shards together.
            count: how many shards there are.

        Raises:
            ValueError: count does not divide the batch, or a part is too small.
        """
        shard_size(batch_size, (0, count))

    @abc.abstractmethod
    def train(
        self,
        batch_size: int,
        epoch: int,
        seed: int,
        skip_batches: int = 0,
        shard: tuple[int, int] = (0, 1),
    ) -> tf.data.Dataset:
        """One epoch of shuffled full batches; the same arguments give the same batches.

        Args:
            batch_size: examples of one step, over all shards together.
            epoch: which epoch; with `seed` it fixes the order, so each epoch has its own.
            seed: the run's seed, >= 0.
            skip_batches: batches to leave out at the start, without reading or decoding them:
                step t of a run resumes at epoch t // steps, skip_batches t % steps.
            shard: (index, count): only the index-th part, batch_size // count examples, of each
                batch. The parts of all shards together are the unsharded batch.

        Returns:
            Batches (images float32 [batch, height, width, channels], labels int32 [batch]),
            steps_per_epoch(batch_size) - skip_batches of them.

        Raises:
            ValueError: an argument is out of range, or count does not divide the batch.
        """

    @abc.abstractmethod
    def validation(self, batch_size: int, shard: tuple[int, int] = (0, 1)) -> tf.data.Dataset:
        """Every validation example once, in a fixed order; the last batch may be smaller.

        Args:
            batch_size: examples of one batch, over all shards together.
            shard: (index, count), as in `train`. Every shard yields the same number of batches;
                in the last its part may be smaller than the others', or empty.

        Returns:
            Batches as in `train`.

        Raises:
            ValueError: an argument is out of range, or count does not divide the batch.
        """


def shard_size(batch_size: int, shard: tuple[int, int]) -> int:
    """A shard's part of a batch: batch_size / count.

    Args:
        batch_size: examples of one batch, over all shards together.
        shard: (index, count).

    Returns:
        The examples of one shard.

    Raises:
        ValueError: the index is not in [0, count), or count does not divide the batch.
    """
    index, count = shard
    if not 0 <= index < count:
        raise ValueError(f"Expected a shard (index, count), 0 <= index < count. Received: {shard}.")
    if batch_size < 1 or batch_size % count:
        raise ValueError(
            f"Expected a batch size that is a positive multiple of the {count} shards. "
            f"Received: {batch_size}."
        )
    return batch_size // count


def check_train_arguments(steps: int, epoch: int, seed: int, skip_batches: int) -> None:
    """Checks what `Dataset.train` was given besides batch and shard.

    Args:
        steps: steps in an epoch.
        epoch: as in `Dataset.train`.
        seed: as in `Dataset.train`.
        skip_batches: as in `Dataset.train`.

    Raises:
        ValueError: an argument is out of range.
    """
    if epoch < 0 or seed < 0:
        raise ValueError(f"Expected epoch >= 0 and seed >= 0. Received: {epoch}, {seed}.")
    if not 0 <= skip_batches <= steps:
        raise ValueError(
            f"Expected skip_batches from 0 to {steps}, the epoch's steps. Received: {skip_batches}."
        )


def finish(batches: tf.data.Dataset) -> tf.data.Dataset:
    """The end of every pipeline: in order, prepared ahead, and sharded by nobody but us.

    Args:
        batches: a pipeline.

    Returns:
        The same batches.
    """
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)
