"""Data sets that fit in memory: one implementation of shuffling, skipping and sharding."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable

import numpy as np

from neural_alignment.data.dataset import Dataset, check_train_arguments, finish, shard_size
from neural_alignment.lazy import tf

_log = logging.getLogger(__name__)

# (images float32 [batch, height, width, channels], seeds int32 [batch, 2]) -> images
Augment = Callable[["tf.Tensor", "tf.Tensor"], "tf.Tensor"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ArrayDataset(Dataset):
    """A data set held as uint8 arrays; build it with `from_arrays`.

    An epoch's order is a permutation of indices drawn from (seed, epoch), or none, so that skipping
    batches costs nothing and every shard knows its part of each batch.

    Args:
        train_images: uint8 [num_train, height, width, channels].
        train_labels: int32 [num_train].
        validation_images: uint8 [num_validation, height, width, channels].
        validation_labels: int32 [num_validation].
        scale: images are divided by it; the largest pixel value.
        augment: changes the training images of a batch, given a seed per example that depends on
            (seed, epoch, position in the epoch) alone; None: as they are.
        shuffle: another order in every epoch; False: the one they came in.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    validation_images: np.ndarray
    validation_labels: np.ndarray
    scale: float
    augment: Augment | None = None
    shuffle: bool = True

    @classmethod
    def from_arrays(
        cls,
        name: str,
        train: tuple[np.ndarray, np.ndarray],
        validation: tuple[np.ndarray, np.ndarray],
        num_classes: int,
        scale: float = 255.0,
        image_size: int | None = None,
        augment: Augment | None = None,
        source: str = "",
    ) -> ArrayDataset:
        """Makes a data set of two pairs (images, labels).

        Args:
            name: the data set's name.
            train: images uint8 [n, height, width, channels] and integer labels [n].
            validation: the same for the validation split.
            num_classes: labels are 0 ... num_classes - 1.
            scale: images are divided by it; the largest pixel value.
            image_size: resize the images to this many pixels a side, bilinearly; None: do not.
            augment: see the class; it works on images of the original size.
            source: see `Dataset`.

        Returns:
            The data set.

        Raises:
            ValueError: shapes, types or labels are not as said here, or image_size < 1.
        """
        for split, (images, labels) in (("train", train), ("validation", validation)):
            _check_split(f"{name}, {split} split", images, labels, num_classes)
        height, width, channels = train[0].shape[1:]
        if image_size is not None:
            if image_size < 1:
                raise ValueError(f"Expected image_size >= 1. Received: {image_size}.")
            height = width = image_size
        return cls(
            name=name,
            num_classes=num_classes,
            image_shape=(height, width, channels),
            num_train=len(train[0]),
            num_validation=len(validation[0]),
            train_images=train[0],
            train_labels=train[1].astype(np.int32),
            validation_images=validation[0],
            validation_labels=validation[1].astype(np.int32),
            scale=scale,
            augment=augment,
            source=source,
        )

    def train(
        self,
        batch_size: int,
        epoch: int,
        seed: int,
        skip_batches: int = 0,
        shard: tuple[int, int] = (0, 1),
    ) -> tf.data.Dataset:
        """One epoch of full batches; see `Dataset.train`."""
        steps = self.steps_per_epoch(batch_size)
        check_train_arguments(steps, epoch, seed, skip_batches)
        size = shard_size(batch_size, shard)
        part = slice(shard[0] * size, (shard[0] + 1) * size)

        order = np.arange(self.num_train)
        if self.shuffle:
            np.random.default_rng([seed, epoch]).shuffle(order)
        order = order[: steps * batch_size].reshape(steps, batch_size)[skip_batches:, part]
        positions = np.arange(steps * batch_size, dtype=np.int32)
        positions = positions.reshape(steps, batch_size)[skip_batches:, part]
        key = np.random.SeedSequence([seed, epoch]).generate_state(1).view(np.int32)[0]
        images, labels = self._train_tensors

        def batch(index: tf.Tensor, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            x = self._to_float(tf.gather(images, index))
            if self.augment is not None:
                x = self.augment(x, tf.stack([tf.fill([size], key), position], axis=1))
            return self._resize(x), tf.gather(labels, index)

        return _pipeline((order.astype(np.int32), positions), batch)

    def validation(self, batch_size: int, shard: tuple[int, int] = (0, 1)) -> tf.data.Dataset:
        """Every validation example once, in order; see `Dataset.validation`."""
        size = shard_size(batch_size, shard)
        starts = np.arange(0, self.num_validation, batch_size) + shard[0] * size
        images, labels = self._validation_tensors

        def batch(start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            stop = start + size  # a slice ends with the array, so the last part may be smaller
            return self._resize(self._to_float(images[start:stop])), labels[start:stop]

        return _pipeline((starts,), batch)

    # Made once: what an epoch leaves behind in reference cycles Python may keep for a hundred more.
    @functools.cached_property
    def _train_tensors(self) -> tuple[tf.Tensor, tf.Tensor]:
        return _on_host(self.train_images, self.train_labels)

    @functools.cached_property
    def _validation_tensors(self) -> tuple[tf.Tensor, tf.Tensor]:
        return _on_host(self.validation_images, self.validation_labels)

    def _to_float(self, images: tf.Tensor) -> tf.Tensor:
        return tf.cast(images, tf.float32) / self.scale

    def _resize(self, images: tf.Tensor) -> tf.Tensor:
        size = self.image_shape[:2]
        if tuple(images.shape[1:3]) == size:
            return images
        # Without antialiasing a smaller image would be a sample of pixels, not their mean.
        return tf.image.resize(images, size, antialias=size[0] < images.shape[1])


def check_pixels(where: str, images: np.ndarray) -> None:
    """Refuses images of black and white as 0 and 1.

    Args:
        where: their folder or file, for the message.
        images: uint8.

    Raises:
        ValueError: the greatest pixel is 1.
    """
    if images.max() == 1:
        raise ValueError(
            f"{where}: Expected pixels from 0 to 255. Received: 0 and 1 alone, which would be read "
            "as nearly black. Multiply them by 255."
        )


def check_apart(
    where: str, train: tuple[np.ndarray, np.ndarray], validation: tuple[np.ndarray, np.ndarray]
) -> None:
    """Refuses validation images that are the training images; warns where some of them are.

    Args:
        where: their folder or file, for messages.
        train: images [n, height, width, channels] and labels [n].
        validation: the same.

    Raises:
        ValueError: both are the same images.
    """
    known = {hash(image.tobytes()) for image in train[0]}
    again = sum(hash(image.tobytes()) in known for image in validation[0])
    if again == len(validation[0]) and np.array_equal(train[0], validation[0]):
        raise ValueError(
            f"{where}: Expected other images for validation than for training. Received: the same "
            f"{len(train[0])} images. Give the set's own validation or test images."
        )
    if again:
        _log.warning(
            "%s: %d of the %d validation images are training images, too.",
            where, again, len(validation[0]),
        )  # fmt: skip


def _on_host(images: np.ndarray, labels: np.ndarray) -> tuple[tf.Tensor, tf.Tensor]:
    with tf.init_scope(), tf.device("CPU:0"):
        return tf.constant(images), tf.constant(labels)


def _pipeline(indices: tuple[np.ndarray, ...], batch: Callable[..., tuple]) -> tf.data.Dataset:
    data = tf.data.Dataset.from_tensor_slices(indices)
    data = data.map(batch, num_parallel_calls=tf.data.AUTOTUNE)
    options = tf.data.Options()
    options.autotune.enabled = False  # the end of an iterator waits for its tuner's next look
    return finish(data.with_options(options))


def _check_split(where: str, images: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
        raise ValueError(
            f"{where}: Expected images uint8 [n, height, width, channels], n > 0. "
            f"Received: {images.dtype} {list(images.shape)}."
        )
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{where}: Expected integer labels [{len(images)}]. "
            f"Received: {labels.dtype} {list(labels.shape)}."
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"{where}: Expected labels from 0 to {num_classes - 1}. "
            f"Received: {labels.min()} to {labels.max()}."
        )
