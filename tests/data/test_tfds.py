"""Sets in the format of TensorFlow Datasets, written small by the tests themselves."""

import shutil
import time

import numpy as np
import pytest
import requests
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.download.util import DownloadError

from neural_alignment import data
from neural_alignment.data import tfds as sets

SHAPES = {
    "mnist": (28, 28, 1),
    "fashion_mnist": (28, 28, 1),
    "cifar10": (32, 32, 3),
    "cifar100": (32, 32, 3),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data_dir with 30 + 10 random images of each set, stored as the real ones are."""
    root = tmp_path_factory.mktemp("tfds")
    generator = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        classes = sets.NUM_CLASSES[name]
        splits = {}
        for split, count in (("train", 30), ("test", 10)):
            images = generator.integers(0, 256, (count, *shape), dtype=np.uint8)
            fields = {"image": images, "label": np.arange(count) % classes}
            fields["id"] = [f"{split}_{i}" for i in range(count)]
            fields["coarse_label"] = np.zeros(count, np.int64)
            features = tfds.builder(name, data_dir=root).info.features
            splits[split] = tf.data.Dataset.from_tensor_slices({k: fields[k] for k in features})
        tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            version=str(tfds.builder(name, data_dir=root).version),
            features=features,
            split_datasets=splits,
            data_dir=root,
            disable_shuffling=True,
        )
    return root


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_a_prepared_set(name, folder):
    dataset = sets.load(name, data_dir=str(folder))
    assert (dataset.name, dataset.image_shape) == (name, SHAPES[name])
    assert dataset.num_classes == sets.NUM_CLASSES[name]
    assert (dataset.num_train, dataset.num_validation) == (30, 10)
    images, labels = next(iter(dataset.train(30, epoch=0, seed=0)))
    assert images.dtype == tf.float32 and labels.dtype == tf.int32
    assert tf.reduce_min(images) == 0.0 and tf.reduce_max(images) == 1.0
    again = sets.load(name, data_dir=str(folder))
    np.testing.assert_array_equal(dataset.train_images, again.train_images)


def test_the_images_are_the_stored_ones(folder):
    dataset = data.get("mnist", data_dir=str(folder))
    # The fixture's draws, in its order: mnist comes first, train before test.
    generator = np.random.default_rng(0)
    for count, images, labels in (
        (30, dataset.train_images, dataset.train_labels),
        (10, dataset.validation_images, dataset.validation_labels),
    ):
        stored = generator.integers(0, 256, (count, 28, 28, 1), dtype=np.uint8)
        labels_of = {image.tobytes(): i % 10 for i, image in enumerate(stored)}
        assert {x.tobytes(): y for x, y in zip(images, labels, strict=True)} == labels_of


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_get_gives_the_set_as_it_is(name, folder):
    dataset = data.get(name, data_dir=str(folder))
    np.testing.assert_array_equal(
        dataset.train_images, sets.load(name, data_dir=str(folder)).train_images
    )
    assert data.options(name) == ("data_dir", "download", "image_size")


def test_image_size(folder):
    dataset = data.get("mnist", data_dir=str(folder), image_size=32)
    assert dataset.image_shape == (32, 32, 1)
    assert next(iter(dataset.validation(4)))[0].shape == (4, 32, 32, 1)


def test_a_folder_without_the_set_says_where_and_what_to_do(tmp_path):
    start = time.monotonic()
    with pytest.raises(FileNotFoundError) as caught:
        data.get("cifar10", data_dir=str(tmp_path / "none"))
    assert time.monotonic() - start < 5
    message = str(caught.value)
    assert f"{tmp_path}/none/cifar10" in message
    assert f"--dataset=cifar10 --data_dir={tmp_path}/none --download" in message
    assert not list(tmp_path.iterdir())


def test_a_download_without_a_network_is_told_at_once(tmp_path, monkeypatch):
    asked = []

    def head(url, timeout, allow_redirects):
        asked.append((url, timeout))
        raise requests.ConnectionError("no network")

    monkeypatch.setattr(requests, "head", head)
    with pytest.raises(ConnectionError, match="Expected a network connection .*--data_dir"):
        data.get("mnist", data_dir=str(tmp_path / "none"), download=True)
    assert len(asked) == 1 and asked[0][1] <= 10
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error",
    [
        DownloadError("Failed to get url https://set. HTTP code: 503."),
        NonMatchingChecksumError("Artifact https://set has wrong checksum.\nTo fix:"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_download_that_fails_is_told_in_one_message(error, tmp_path, monkeypatch):
    def download_and_prepare(self):
        raise error

    monkeypatch.setattr(requests, "head", lambda *args, **kwargs: None)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", download_and_prepare)
    with pytest.raises(ConnectionError) as caught:
        data.get("mnist", data_dir=str(tmp_path / "none"), download=True)
    message = str(caught.value)
    assert message.startswith("Expected to download and prepare the data set 'mnist'. Received: ")
    assert f"{type(error).__name__}, " in message and "--data_dir" in message
    assert "\n" not in message and ".." not in message


@pytest.mark.parametrize("length", [0, 40])
def test_a_damaged_set_is_refused_with_its_folder(length, tmp_path, folder):
    shutil.copytree(folder / "mnist", tmp_path / "mnist")
    (described,) = tmp_path.rglob("dataset_info.json")
    described.write_text(described.read_text()[:length])
    with pytest.raises(ValueError, match=f"'mnist' in {tmp_path}/mnist, .*Remove that folder"):
        data.get("mnist", data_dir=str(tmp_path))


def test_download_prepares_what_is_not_there(tmp_path, folder, monkeypatch):
    def download_and_prepare(self):
        shutil.copytree(folder / self.name, tmp_path / self.name)
        fresh = tfds.builder(self.name, data_dir=tmp_path)
        self.info.read_from_directory(fresh.data_path)

    monkeypatch.setattr(requests, "head", lambda *args, **kwargs: None)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", download_and_prepare)
    assert data.get("mnist", data_dir=str(tmp_path), download=True).num_train == 30


def test_download_does_not_touch_what_is_there(folder, monkeypatch):
    monkeypatch.setattr(
        tfds.core.DatasetBuilder, "download_and_prepare", lambda self: pytest.fail("downloaded")
    )
    assert data.get("mnist", data_dir=str(folder), download=True).num_train == 30


def test_a_set_without_its_test_split(tmp_path, folder):
    builder = tfds.builder("mnist", data_dir=folder)
    tfds.dataset_builders.store_as_tfds_dataset(
        name="mnist",
        version=str(builder.version),
        features=builder.info.features,
        split_datasets={"train": builder.as_dataset(split="train")},
        data_dir=tmp_path,
    )
    with pytest.raises(ValueError, match="Expected a split 'test' .* Received: .*train"):
        data.get("mnist", data_dir=str(tmp_path))
