"""CIFAR's augmentation and standardisation, on images in the format of TensorFlow Datasets."""

import numpy as np
import pytest
import tensorflow as tf

from neural_alignment import data
from neural_alignment.data import cifar, tfds
from neural_alignment.data.arrays import ArrayDataset
from neural_alignment.data.preprocessing import pad_crop_flip


@pytest.fixture
def arrays(monkeypatch):
    """Random images in the place of the sets that TensorFlow Datasets reads."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(50) % 10

    def load(name, data_dir, download, image_size, augment):
        assert (data_dir, download) == ("folder", False)
        pair = (images[:40], labels[:40]), (images[40:], labels[40:])
        return ArrayDataset.from_arrays(name, *pair, 10, image_size=image_size, augment=augment)

    monkeypatch.setattr(tfds, "load", load)
    return images


def get(**options):
    return data.get("cifar10", data_dir="folder", **options)


def standard(images):
    return (images / 255 - [0.4914, 0.4822, 0.4465]) / [0.2470, 0.2435, 0.2616]


def test_validation_is_standardised_and_not_augmented(arrays):
    images, _ = next(iter(get().validation(10)))
    np.testing.assert_allclose(images, standard(arrays[40:]), atol=1e-5)


def test_training_in_the_order_of_the_data(arrays):
    images, _ = next(iter(get(augment=False, shuffle=False).train(40, 2, 3)))
    np.testing.assert_allclose(images, standard(arrays[:40]), atol=1e-5)


def test_training_without_augmentation(arrays):
    images, _ = next(iter(get(augment=False).train(40, 0, 0)))
    wanted = standard(arrays[:40]).astype(np.float32)
    assert sorted(images.numpy().sum((1, 2, 3))) == pytest.approx(
        sorted(wanted.sum((1, 2, 3))), abs=0.1
    )


def test_training_images_are_shifted_and_flipped_ones(arrays):
    images = np.concatenate([x for x, _ in get().train(8, 0, 0).take(2)])
    padded = np.pad(standard(arrays[:40]), ((0, 0), (4, 4), (4, 4), (0, 0)))
    places = []
    for image in images:
        found = [
            (top, left, flip)
            for top in range(9)
            for left in range(9)
            for flip, candidate in enumerate((image, image[:, ::-1]))
            if np.abs(padded[:, top : top + 32, left : left + 32] - candidate).max((1, 2, 3)).min()
            < 1e-4
        ]
        assert len(found) == 1
        places += found
    assert len(set(places)) > 12 and 3 <= sum(flip for *_, flip in places) <= 13


def test_augmentation_depends_on_the_example_alone(arrays):
    dataset = get()
    full = [x.numpy() for x, _ in dataset.train(8, 1, 0)]
    rest = [x.numpy() for x, _ in dataset.train(8, 1, 0, skip_batches=3)]
    np.testing.assert_array_equal(full[3:], rest)
    halves = [[x.numpy() for x, _ in dataset.train(8, 1, 0, shard=(i, 2))] for i in range(2)]
    np.testing.assert_array_equal(full, np.concatenate(halves, axis=1))
    assert (np.stack(full) != np.stack([x for x, _ in dataset.train(8, 2, 0)])).any()


def test_offsets_and_flips_are_uniform():
    image = np.zeros((1, 5, 5, 1), np.float32)
    image[0, 2, 0] = 1.0
    count = 1800
    seeds = np.stack([np.full(count, 7), np.arange(count)], axis=1).astype(np.int32)
    batch = tf.tile(image, [count, 1, 1, 1])
    found = tf.function(lambda: pad_crop_flip(batch, seeds, padding=1))().numpy()[..., 0]
    assert {place.sum() for place in found} == {0.0, 1.0}
    rows, columns = np.nonzero(found.sum(0))
    assert set(rows) == {1, 2, 3} and set(columns) == {0, 1, 3, 4}
    # Of 9 offsets x 2 flips, the spot is shifted out of sight in a third.
    assert abs((found.sum((1, 2)) == 0).mean() - 1 / 3) < 0.04
    assert np.abs(found.sum(0)[found.sum(0) > 0] / count - 1 / 18).max() < 0.02


def test_another_name():
    with pytest.raises(ValueError, match="cifar10, cifar100. Received: 'mnist'"):
        cifar.load("mnist")
