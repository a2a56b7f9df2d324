"""The registry, the in-memory pipelines and the digits' split."""

import dataclasses
import gc
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from neural_alignment import data
from neural_alignment.registry import Registry

SPLIT_TRAIN = [2, 8, 2, 6, 6, 7, 1, 9, 8, 5, 2, 8]
SPLIT_VALIDATION = [0, 7, 7, 4, 7, 2, 0, 1, 2, 4, 8, 1]
ORDER_EPOCH_3_SEED_5 = [15, 7, 9, 0, 13, 18, 4, 16, 10, 1, 3, 11, 19, 8, 12, 2, 17, 14, 6, 5]


def arrays(pipeline: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray]:
    images, labels = zip(*pipeline.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def batches(pipeline: tf.data.Dataset) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(pipeline.as_numpy_iterator())


def assert_same(left: list, right: list) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        for x, y in zip(one, other, strict=True):
            np.testing.assert_array_equal(x, y)


def tiny(**changes) -> data.ArrayDataset:
    """20 + 7 images of 2x2 in which every pixel is the example's index."""
    pixels = np.arange(27, dtype=np.uint8)[:, None, None, None] * np.ones((2, 2, 1), np.uint8)
    labels = np.arange(27) % 5
    arguments = {
        "train": (pixels[:20], labels[:20]),
        "validation": (pixels[20:], labels[20:]),
        "num_classes": 5,
        "scale": 1.0,
    }
    return data.ArrayDataset.from_arrays("tiny", **(arguments | changes))


def index(images: np.ndarray) -> list[int]:
    return images[:, 0, 0, 0].astype(int).tolist()


def test_digits_are_embedded_and_split_once():
    digits = data.get("digits")
    assert (digits.name, digits.num_classes, digits.image_shape) == ("digits", 10, (8, 8, 1))
    assert (digits.num_train, digits.num_validation) == (1347, 450)
    train, train_labels = arrays(digits.train(1347, epoch=0, seed=0))
    validation, validation_labels = arrays(digits.validation(100))
    assert train.dtype == validation.dtype == np.float32
    assert train_labels.dtype == validation_labels.dtype == np.int32
    assert train.min() == 0.0 and train.max() == 1.0
    # Split by a permutation: every digit on both sides, in the proportion of the whole.
    share = np.bincount(validation_labels) / (
        np.bincount(train_labels) + np.bincount(validation_labels)
    )
    assert share.min() > 0.15 and share.max() < 0.35
    # The two sides together are scikit-learn's images, each once.
    both = (np.concatenate([train, validation]).reshape(-1, 64) * 16).round().astype(np.uint8)
    sums = both.astype(int).sum(axis=1)
    assert sums.sum() == 561718
    assert len(np.unique(both, axis=0)) == 1797


def test_the_split_never_changes():
    digits = data.get("digits")
    assert digits.train_labels[:12].tolist() == SPLIT_TRAIN
    assert digits.validation_labels[:12].tolist() == SPLIT_VALIDATION


def test_the_order_is_the_same_with_every_numpy():
    assert index(arrays(tiny().train(20, epoch=3, seed=5))[0]) == ORDER_EPOCH_3_SEED_5


def test_every_epoch_and_seed_has_its_own_order():
    orders = {
        (epoch, seed): tuple(index(arrays(tiny().train(20, epoch=epoch, seed=seed))[0]))
        for epoch in range(3)
        for seed in range(3)
    }
    assert len(set(orders.values())) == 9
    assert all(sorted(order) == list(range(20)) for order in orders.values())
    assert tuple(index(arrays(tiny().train(20, epoch=1, seed=2))[0])) == orders[1, 2]


@pytest.mark.parametrize("skip", [0, 2])
def test_without_shuffling_every_epoch_has_the_order_of_the_data(skip):
    unshuffled = dataclasses.replace(tiny(), shuffle=False)
    for epoch in range(2):
        images, _ = arrays(unshuffled.train(6, epoch=epoch, seed=3, skip_batches=skip))
        assert list(index(images)) == list(range(6 * skip, 18))
    shards = [arrays(unshuffled.train(6, epoch=0, seed=3, shard=(i, 2)))[0] for i in range(2)]
    assert [list(index(shard))[:3] for shard in shards] == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("standard", [{}, {"pixel_mean": 0.5, "pixel_stddev": 0.5}])
def test_a_set_loaded_without_shuffling(standard):
    assert data.get("digits", **standard).shuffle
    assert not data.get("digits", shuffle=False, **standard).shuffle


def test_images_keep_their_labels():
    images, labels = arrays(tiny().train(5, epoch=0, seed=0))
    assert (np.array(index(images)) % 5 == labels).all()


def test_an_epoch_has_full_batches_only():
    assert tiny().steps_per_epoch(6) == 3
    assert [len(labels) for _, labels in batches(tiny().train(6, epoch=0, seed=0))] == [6, 6, 6]
    assert tiny().train(6, epoch=0, seed=0).element_spec[0].shape == (6, 2, 2, 1)


@pytest.mark.parametrize("skip", [0, 1, 2, 3])
def test_skipping_gives_the_rest_of_the_same_epoch(skip):
    whole = batches(tiny().train(6, epoch=2, seed=1))
    assert_same(batches(tiny().train(6, epoch=2, seed=1, skip_batches=skip)), whole[skip:])


def test_skipped_examples_are_never_read():
    seen = []

    def note(images, seeds):
        tf.py_function(lambda x: seen.extend(index(x.numpy())), [images], [])
        return images

    rest = batches(tiny(augment=note).train(5, epoch=0, seed=0, skip_batches=3))
    assert sorted(seen) == sorted(index(rest[0][0]))


@pytest.mark.parametrize("count", [2, 3, 6])
def test_the_shards_of_a_batch_are_the_batch(count):
    whole = batches(tiny().train(6, epoch=0, seed=0, skip_batches=1))
    parts = [
        batches(tiny().train(6, epoch=0, seed=0, skip_batches=1, shard=(i, count)))
        for i in range(count)
    ]
    joined = [
        tuple(np.concatenate(kind) for kind in zip(*step, strict=True))
        for step in zip(*parts, strict=True)
    ]
    assert_same(joined, whole)


def test_validation_gives_every_example_once_with_a_last_partial_batch():
    result = batches(tiny().validation(3))
    assert [len(labels) for _, labels in result] == [3, 3, 1]
    assert sum((index(images) for images, _ in result), []) == list(range(20, 27))


def test_validation_shards_are_in_step_and_cover_every_example():
    parts = [batches(tiny().validation(4, shard=(i, 4))) for i in range(4)]
    assert [len(part) for part in parts] == [2, 2, 2, 2]
    assert [len(part[-1][1]) for part in parts] == [1, 1, 1, 0]
    seen = [i for part in parts for images, _ in part for i in index(images)]
    assert sorted(seen) == list(range(20, 27))


def test_augmentation_depends_on_seed_epoch_and_position_only():
    def jitter(images, seeds):
        shift = tf.map_fn(
            lambda seed: tf.random.stateless_uniform([], seed, alg="philox"),
            seeds,
            fn_output_signature=tf.float32,
        )
        return images + shift[:, None, None, None]

    noisy = tiny(augment=jitter)
    whole = batches(noisy.train(4, epoch=1, seed=3))
    assert_same(batches(noisy.train(4, epoch=1, seed=3, skip_batches=2)), whole[2:])
    right = batches(noisy.train(4, epoch=1, seed=3, shard=(1, 2)))
    assert_same(right, [(images[2:], labels[2:]) for images, labels in whole])
    shifts = np.concatenate([images for images, _ in whole])[:, 0, 0, 0] % 1.0
    assert len(np.unique(shifts)) == 20
    other = np.concatenate([images for images, _ in batches(noisy.train(4, epoch=1, seed=4))])
    assert not np.intersect1d(shifts, other[:, 0, 0, 0] % 1.0).size
    np.testing.assert_array_equal(arrays(noisy.validation(7))[0], arrays(tiny().validation(7))[0])


def test_image_size_resizes_bilinearly():
    digits = data.get("digits", image_size=32)
    assert digits.image_shape == (32, 32, 1)
    large, small = arrays(digits.validation(450))[0], arrays(data.get("digits").validation(450))[0]
    assert large.shape == (450, 32, 32, 1)
    np.testing.assert_array_equal(large, tf.image.resize(small, (32, 32)))
    assert digits.train(8, epoch=0, seed=0).element_spec[0].shape == (8, 32, 32, 1)


def test_a_smaller_image_is_a_mean_not_a_sample():
    # White where a sample would fall, black elsewhere.
    row, column = np.indices((8, 8)) % 4
    dots = ((row // 2 != row % 2) & (column // 2 != column % 2)).astype(np.uint8) * 255
    assert dots.mean() == 255 / 4
    split = (np.stack([dots] * 3)[..., None], np.zeros(3, np.int32))
    small = data.ArrayDataset.from_arrays("dots", split, split, num_classes=1, image_size=2)
    images, _ = arrays(small.validation(3))
    assert images.shape == (3, 2, 2, 1)
    assert 0.2 < images.min() and images.max() < 0.6


def test_names_and_options():
    assert {"digits", "mnist", "fashion_mnist", "cifar10"} <= set(data.names())
    for name in data.names():
        assert isinstance(data.options(name), tuple)  # and so every loader can be imported
    with pytest.raises(ValueError, match="Expected a data set's name: .*digits.*Received: 'digit'"):
        data.get("digit")
    with pytest.raises(ValueError, match="image_size, .*Received: data_dir"):
        data.get("digits", data_dir="here")


def test_a_data_set_of_ones_own(monkeypatch):
    monkeypatch.setattr("neural_alignment.data.registry._LOADERS", Registry("a data set"))

    @data.register("tiny")
    def load(name):
        return tiny()

    assert data.names() == ("tiny",)
    assert data.get("tiny").num_train == 20
    with pytest.raises(ValueError, match="'tiny', which is taken"):
        data.register("tiny")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "from 1 to 20"),
        ({"batch_size": 21}, "from 1 to 20"),
        ({"epoch": -1}, "epoch >= 0"),
        ({"seed": -1}, "seed >= 0"),
        ({"skip_batches": 6}, "from 0 to 5"),
        ({"skip_batches": -1}, "from 0 to 5"),
        ({"shard": (2, 2)}, "0 <= index < count"),
        ({"shard": (0, 3)}, "multiple of the 3 shards"),
    ],
)
def test_bad_arguments_of_train(arguments, message):
    with pytest.raises(ValueError, match=message):
        tiny().train(**({"batch_size": 4, "epoch": 0, "seed": 0} | arguments))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 4}, "tiny, train split: Expected labels from 0 to 3. Received: 0 to 4"),
        ({"image_size": 0}, "image_size >= 1"),
        ({"validation": (np.zeros((0, 2, 2, 1), np.uint8), np.zeros(0, int))}, "n > 0"),
        ({"validation": (np.zeros((2, 2, 2, 1)), np.zeros(2, int))}, "Received: float64"),
        ({"validation": (np.zeros((2, 2, 2, 1), np.uint8), np.zeros(3, int))}, r"labels \[2\]"),
    ],
)
def test_bad_arrays(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


def test_names_need_no_tensorflow():
    code = (
        "import sys; from neural_alignment import data; data.get('digits'); "
        "[data.options(name) for name in data.names()]; sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_standardised_pixels():
    plain, made = data.get("digits"), data.get("digits", pixel_mean=0.3, pixel_stddev=0.5)
    for split in (lambda d: d.train(32, 0, 0), lambda d: d.validation(450)):
        (images, labels), (same, same_labels) = arrays(split(plain)), arrays(split(made))
        np.testing.assert_allclose(same, (images - 0.3) / 0.5, atol=1e-6)
        np.testing.assert_array_equal(labels, same_labels)


@pytest.mark.parametrize(
    "given", [{"pixel_mean": 0.3}, {"pixel_stddev": 0.3}, {"pixel_mean": 0.0, "pixel_stddev": 0.0}]
)
def test_half_of_what_standardises_is_refused(given):
    with pytest.raises(ValueError, match="Expected pixel_mean and pixel_stddev > 0.*Received"):
        data.get("digits", **given)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc to read memory from")
@pytest.mark.parametrize("split", ["train", "validation"])
def test_epochs_share_one_copy_of_the_images(split):
    """Without waiting for Python to collect what an epoch leaves behind in cycles."""
    pixels = np.ones((4096, 64, 64, 1), np.uint8)  # 16 MiB
    pair = pixels, np.zeros(len(pixels), int)
    whole = data.ArrayDataset.from_arrays("large", pair, pair, 2)
    gc.disable()
    try:
        for epoch in range(12):
            of_epoch = whole.train(64, epoch, 0) if split == "train" else whole.validation(64)
            next(iter(of_epoch))
            if epoch == 1:
                before = resident()
        assert resident() - before < 4 * pixels.nbytes
    finally:
        gc.enable()


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
