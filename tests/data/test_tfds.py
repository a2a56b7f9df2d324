"""Sets in the format of TensorFlow Datasets, written small by the tests themselves."""

import shutil
import time

import numpy as np
import pytest
import requests
import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.download.resource import get_dl_fname
from tensorflow_datasets.core.download.util import DownloadError

from neural_alignment import data
from neural_alignment.data import tfds as sets
from tests.data.jpegs import archive

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
    assert data.options(name) == (
        "data_dir",
        "download",
        "image_size",
        "pixel_mean",
        "pixel_stddev",
        "shuffle",
    )


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


def shard(root, split, name="mnist"):
    (path,) = root.glob(f"{name}/*/{name}-{split}.tfrecord-00000-of-00001")
    return path


def without_record(content):
    length = int.from_bytes(content[:8], "little")
    return content[12 + length + 4 :]


DAMAGE = {
    "in the middle": lambda content: content[: len(content) // 2],
    "by a byte": lambda content: content[:-1],
    "at a record": without_record,
    "to nothing": lambda content: b"",
    "in its head": lambda content: content[:5],
    "a byte changed": lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:],
    "its length changed": lambda content: bytes([content[0] ^ 1]) + content[1:],
}


@pytest.mark.parametrize("name", sorted(SHAPES))
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_shard_is_named(damage, split, name, tmp_path, folder):
    shutil.copytree(folder / name, tmp_path / name)
    path = shard(tmp_path, split, name)
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(ValueError) as caught:
        data.get(name, data_dir=str(tmp_path))
    message = str(caught.value)
    assert message.startswith(str(path)) and "{{" not in message and "\n" not in message
    assert "Expected" in message and "Received" in message and "prepare the set again" in message


def test_a_shard_that_is_missing_is_named(tmp_path, folder):
    shutil.copytree(folder / "mnist", tmp_path / "mnist")
    path = shard(tmp_path, "test")
    path.unlink()
    with pytest.raises(ValueError, match=f"{path}, record 0: Expected .*NotFoundError") as caught:
        data.get("mnist", data_dir=str(tmp_path))
    assert "{{" not in str(caught.value)


def test_an_image_that_cannot_be_decoded_is_named(tmp_path, folder):
    shutil.copytree(folder / "mnist", tmp_path / "mnist")
    path = shard(tmp_path, "train")
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    example = tf.train.Example.FromString(records[3])
    png = example.features.feature["image"].bytes_list
    png.value[0] = png.value[0][:40]
    records[3] = example.SerializeToString()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    with pytest.raises(ValueError, match=f"{path}, record 3: Expected") as caught:
        data.get("mnist", data_dir=str(tmp_path))
    assert "{{" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise requests.ConnectionError("no network")

    monkeypatch.setattr(requests, "head", refuse)
    monkeypatch.setattr(requests.Session, "request", refuse)


@pytest.fixture
def manual(tmp_path):
    """Small archives of ImageNet's build where TensorFlow Datasets wants them."""
    folder = tmp_path / "data/downloads/manual"
    folder.mkdir(parents=True)
    jpeg = tf.io.encode_jpeg(np.full((20, 24, 3), 90, np.uint8)).numpy()
    inner = [
        (
            f"{synset}.tar",
            archive(tmp_path / "inner.tar", [(f"{synset}_{i}.JPEG", jpeg) for i in (1, 2)]),
        )
        for synset in ("n01440764", "n01443537")
    ]
    archive(folder / "ILSVRC2012_img_train.tar", inner)
    names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in (1, 2, 3)]
    archive(folder / "ILSVRC2012_img_val.tar", [(name, jpeg) for name in names])
    return folder


def test_imagenet_is_prepared_offline_from_archives_at_hand(manual, offline, tmp_path):
    for _ in range(2):  # prepared, then found
        dataset = data.get(
            "imagenet2012", data_dir=str(tmp_path / "data"), download=True, image_size=16
        )
        assert (dataset.num_train, dataset.num_validation) == (4, 3)
        labels = [label for _, batch in dataset.train(2, 0, 0) for label in batch.numpy()]
        assert sorted(labels) == [0, 0, 1, 1]


@pytest.mark.parametrize("archive", ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"])
def test_an_archive_that_is_missing_is_named(archive, manual, offline, tmp_path):
    (manual / archive).unlink()
    with pytest.raises(
        FileNotFoundError, match=f"in {manual}, .* Received: no {archive}"
    ) as caught:
        data.get("imagenet2012", data_dir=str(tmp_path / "data"), download=True)
    assert "network" not in str(caught.value)


def test_files_of_an_earlier_download_need_no_network(offline, tmp_path, monkeypatch):
    prepared = []
    monkeypatch.setattr(
        tfds.core.DatasetBuilder, "download_and_prepare", lambda self: prepared.append(self.name)
    )
    urls = tfds.builder("mnist", data_dir=tmp_path).url_infos
    (tmp_path / "downloads/manual").mkdir(parents=True)
    (tmp_path / "downloads/mnist").mkdir()
    (first, info), *rest = urls.items()
    (tmp_path / "downloads/mnist" / get_dl_fname(first, info.checksum)).touch()
    for _, other in rest[1:]:
        (tmp_path / "downloads/manual" / other.filename).touch()
    with pytest.raises(ConnectionError, match="network"):  # one is missing
        data.get("mnist", data_dir=str(tmp_path), download=True)
    assert not prepared
    (tmp_path / "downloads/manual" / rest[0][1].filename).touch()
    with pytest.raises(ValueError, match="Expected a split"):  # nothing was prepared, in truth
        data.get("mnist", data_dir=str(tmp_path), download=True)
    assert prepared == ["mnist"]
