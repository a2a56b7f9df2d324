"""Class folders of images through ImageNet's preprocessing, without preparation."""

import numpy as np
import pytest

from neural_alignment import data
from neural_alignment.data import folder_records, prepare
from tests.data.test_folders import make, splits


def get(folder, **options):
    return data.get("imagenet", data_dir=str(folder), image_size=16, **options)


def batches(dataset):
    return [(x.numpy(), y.numpy()) for x, y in dataset]


@pytest.fixture
def folder(tmp_path):
    return splits(tmp_path / "images", sides=(20, 24))


def test_every_image_once(folder):
    dataset = get(folder)
    assert (dataset.num_classes, dataset.num_train, dataset.num_validation) == (2, 20, 8)
    assert dataset.image_shape == (16, 16, 3)
    labels = np.concatenate([y for _, y in batches(dataset.validation(3))])
    assert sorted(labels) == [0] * 4 + [1] * 4
    labels = np.concatenate([y for _, y in batches(dataset.train(4, 0, 0))])
    assert sorted(labels) == [0] * 10 + [1] * 10
    assert str(folder) in dataset.source and "20 images of 2 classes" in dataset.source


def test_it_is_what_the_prepared_set_gives(folder, tmp_path):
    train, classes = prepare.images(str(folder / "train"))
    validation, _ = prepare.images(str(folder / "validation"), classes)
    prepare.write(
        {"train": train, "validation": validation}, classes, str(tmp_path / "out"),
        {"train": 1, "validation": 1}, layout="original",
    )  # fmt: skip
    for make_batches in (lambda d: d.train(4, 1, 2), lambda d: d.validation(3)):
        for one, two in zip(
            batches(make_batches(get(folder))), batches(make_batches(get(tmp_path / "out"))),
            strict=True,
        ):  # fmt: skip
            np.testing.assert_array_equal(one[0], two[0])
            np.testing.assert_array_equal(one[1], two[1])


def test_skipping_and_shards(folder):
    dataset = get(folder)
    full = batches(dataset.train(4, 1, 0))
    rest = batches(dataset.train(4, 1, 0, skip_batches=3))
    for one, two in zip(full[3:], rest, strict=True):
        np.testing.assert_array_equal(one[0], two[0])
    halves = [batches(dataset.train(4, 1, 0, shard=(index, 2))) for index in range(2)]
    for whole, left, right in zip(full, *halves, strict=True):
        np.testing.assert_array_equal(whole[1], np.concatenate([left[1], right[1]]))
    with pytest.raises(ValueError, match="Use shard_by='record'"):
        get(folder, shard_by="file").check_shares(4, 2)


def test_validation_alone_reads_no_training_image(folder):
    (folder / "train/lion/i0.png").write_bytes(b"x")
    dataset = get(folder, splits=("validation",))
    assert len(batches(dataset.validation(8))[0][1]) == 8


def test_class_folders_alone_have_a_part_held_out(tmp_path):
    dataset = get(make(tmp_path))
    assert (dataset.num_train, dataset.num_validation) == (16, 4)
    assert "held out" in dataset.source


def test_images_that_cannot_be_decoded(folder):
    path = folder / "train/zebra/i3.png"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match=f"{path}: Expected an image .*max_bad_records") as caught:
        get(folder)
    assert "{{" not in str(caught.value)
    dataset = get(folder, max_bad_records=1)
    assert dataset.num_train == 19


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 10}, "Expected num_classes 10. Received: 2"),
        ({"num_train": 21}, "Expected num_train 21. Received: 20"),
        ({"num_validation": 7}, "Expected num_validation 7. Received: 8"),
    ],
)
def test_other_numbers_than_expected(options, message, folder):
    with pytest.raises(ValueError, match=message):
        get(folder, **options)
    assert get(folder, num_classes=2, num_train=20, num_validation=8).num_train == 20


def test_a_set_that_is_too_large_is_told_how_to_be_prepared(folder, monkeypatch):
    monkeypatch.setattr(folder_records, "LIMIT", 100)
    with pytest.raises(ValueError) as caught:
        get(folder)
    message = str(caught.value)
    assert "100 bytes at most" in message and "neural-alignment prepare" in message
    assert f"--train={folder}/train --validation={folder}/validation" in message


def test_shards_go_before_folders(folder, tmp_path):
    train, classes = prepare.images(str(folder / "train"))
    validation, _ = prepare.images(str(folder / "validation"), classes)
    prepare.write(
        {"train": train, "validation": validation}, classes, str(tmp_path / "out"),
        {"train": 1, "validation": 1},
    )  # fmt: skip
    make(tmp_path / "out/train", ("tiger",))
    dataset = get(tmp_path / "out")
    assert dataset.num_classes == 2 and dataset.source == f"2 TFRecord files in {tmp_path}/out"
