"""Class folders of images, trained on without preparation."""

import io
import logging
import shutil
import unicodedata

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from neural_alignment import data
from neural_alignment.cli import prepare
from neural_alignment.data import folders, published, sources
from neural_alignment.data.splits import TRAIN, VALIDATION
from tests.data.test_encode import stored


def picture(label, number, sides=(12, 12), grey=False, encode=tf.io.encode_png):
    pixels = np.full((*sides, 1 if grey else 3), 10 + 20 * number, np.uint8)
    pixels[: label + 1, :, 0] = 250
    return pixels, encode(pixels).numpy()


def make(folder, classes=("lion", "zebra"), count=10, **options):
    """Images number 0 ... of each class, and their pixels by label and number."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            content = picture(label, number, **options)[1]
            (folder / name / f"i{number}.png").write_bytes(content)
    return folder


def splits(folder, names=("train", "validation"), **options):
    for name, count in zip(names, (10, 4), strict=True):
        make(folder / name, count=count, **options)
    return folder


def contents(images, labels):
    return sorted(
        (int(label), image.tobytes()) for image, label in zip(images, labels, strict=True)
    )


def wanted(count, **options):
    return sorted(
        (label, picture(label, number, **options)[0].tobytes())
        for label in (0, 1)
        for number in range(count)
    )


@pytest.mark.parametrize("validation", VALIDATION)
@pytest.mark.parametrize("train", TRAIN)
def test_train_and_validation(train, validation, tmp_path):
    splits(tmp_path, (train, validation))
    dataset = data.get("image_folder", data_dir=str(tmp_path))
    assert (dataset.num_classes, dataset.image_shape) == (2, (12, 12, 3))
    assert contents(dataset.train_images, dataset.train_labels) == wanted(10)
    assert contents(dataset.validation_images, dataset.validation_labels) == wanted(4)
    assert dataset.source == (
        f"20 images of 2 classes in {tmp_path}/{train}, 8 for validation in {tmp_path}/{validation}"
    )
    assert dataset.shuffle
    assert not data.get("image_folder", data_dir=str(tmp_path), shuffle=False).shuffle


@pytest.mark.parametrize("below", ["", "train"])
def test_without_a_validation_folder_a_part_of_each_class_is_held_out(below, tmp_path):
    make(tmp_path / below)
    dataset = data.get("image_folder", data_dir=str(tmp_path))
    assert (dataset.num_train, dataset.num_validation) == (16, 4)
    assert sorted(dataset.validation_labels) == [0, 0, 1, 1]
    train = contents(dataset.train_images, dataset.train_labels)
    validation = contents(dataset.validation_images, dataset.validation_labels)
    assert sorted(train + validation) == wanted(10)
    again = data.get("image_folder", data_dir=str(tmp_path))
    assert contents(again.validation_images, again.validation_labels) == validation
    assert "20 images of 2 classes" in dataset.source and "one in 5 of each" in dataset.source


def test_classes_that_are_named_like_splits(tmp_path):
    make(tmp_path, ("bus", "train"))
    dataset = data.get("image_folder", data_dir=str(tmp_path))
    assert (dataset.num_classes, dataset.num_train) == (2, 16)


def test_grey_images_have_one_channel(tmp_path):
    splits(tmp_path, grey=True)
    dataset = data.get("image_folder", data_dir=str(tmp_path))
    assert dataset.image_shape == (12, 12, 1)
    assert contents(dataset.train_images, dataset.train_labels) == wanted(10, grey=True)


def test_images_of_any_size_are_resized(tmp_path):
    make(tmp_path / "train", sides=(30, 40))
    make(tmp_path / "val", sides=(9, 9))
    (tmp_path / "train/lion/wide.png").write_bytes(picture(0, 1, (4, 3000))[1])
    dataset = data.get("image_folder", data_dir=str(tmp_path), image_size=16)
    assert dataset.image_shape == (16, 16, 3)
    assert dataset.train_images.shape == (21, 16, 16, 3)
    with pytest.raises(ValueError, match="i0.png, 30 x 40 pixels. Received: 4 x 3000. Give --im"):
        data.get("image_folder", data_dir=str(tmp_path))


def test_images_are_upright_and_hidden_files_left_out(tmp_path, caplog):
    splits(tmp_path, sides=(24, 16))
    contents, upright = stored(6)
    (tmp_path / "train/lion/a.jpg").write_bytes(contents)
    (tmp_path / "train/lion/._a.jpg").write_bytes(b"x")
    (tmp_path / "train/.ipynb_checkpoints").mkdir()
    with caplog.at_level(logging.WARNING):
        dataset = data.get("image_folder", data_dir=str(tmp_path))
    assert dataset.num_classes == 2
    difference = np.abs(dataset.train_images[0].astype(int) - upright)
    assert np.median(difference) < 12
    assert "left out: 2 files that are no images (hidden 2)" in caplog.text


def test_a_set_that_is_too_large_is_told_how_to_be_prepared(tmp_path, monkeypatch):
    splits(tmp_path)
    monkeypatch.setattr(folders, "LIMIT", 28 * 12 * 12 * 3)
    assert data.get("image_folder", data_dir=str(tmp_path)).num_train == 20
    monkeypatch.setattr(folders, "LIMIT", 28 * 12 * 12 * 3 - 1)
    with pytest.raises(ValueError) as caught:
        data.get("image_folder", data_dir=str(tmp_path))
    message = str(caught.value)
    assert "12.1 kB" in message and "neural-alignment prepare" in message
    assert f"--train={tmp_path}/train --validation={tmp_path}/validation" in message
    assert data.get("image_folder", data_dir=str(tmp_path), image_size=11).num_train == 20


def test_the_limit_is_checked_before_anything_is_decoded(tmp_path, monkeypatch):
    splits(tmp_path)
    monkeypatch.setattr(folders, "LIMIT", 100)
    monkeypatch.setattr(folders, "decode", lambda contents: pytest.fail("decoded"))
    with pytest.raises(ValueError, match="Expected images of 100 bytes at most in memory"):
        data.get("image_folder", data_dir=str(tmp_path), image_size=12)


@pytest.mark.parametrize("content", [b"", b"x" * 50, "cut"])
def test_an_image_that_cannot_be_decoded_is_named(content, tmp_path):
    splits(tmp_path)
    path = tmp_path / "validation/zebra/i2.png"
    path.write_bytes(path.read_bytes()[:60] if content == "cut" else content)
    with pytest.raises(ValueError, match=f"^{path}: Expected an image") as caught:
        data.get("image_folder", data_dir=str(tmp_path))
    assert "{{" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_class_that_only_validation_has(tmp_path):
    splits(tmp_path)
    make(tmp_path / "validation", ("tiger",))
    with pytest.raises(ValueError, match="Expected the 2 classes .*validation. Received: tiger"):
        data.get("image_folder", data_dir=str(tmp_path))


def test_one_class_is_not_prepared(tmp_path, capsys):
    folders_of = []
    for name in ("train", "validation"):
        make(tmp_path / name, ("zebra",))
        folders_of.append(f"--{name}={tmp_path / name}")
    out = tmp_path / "out"
    assert prepare.main(["prepare", *folders_of, f"--output_dir={out}"]) == 1
    assert "Expected two class folders or more" in capsys.readouterr().err
    assert not out.exists()


def test_folders_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="Received: none. Give it with --data_dir"):
        data.get("image_folder")
    with pytest.raises(FileNotFoundError, match="Received: no such folder"):
        data.get("image_folder", data_dir=str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="Received: an empty folder"):
        data.get("image_folder", data_dir=str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match="Received: a file"):
        data.get("image_folder", data_dir=str(tmp_path / "file"))
    make(tmp_path / "alone", ("zebra",))
    with pytest.raises(ValueError, match="two class folders or more in .*Received: zebra alone"):
        data.get("image_folder", data_dir=str(tmp_path / "alone"))
    (tmp_path / "file").unlink()
    shutil.rmtree(tmp_path / "alone")
    make(tmp_path, count=2)
    with pytest.raises(ValueError, match="at least 5 images of some class"):
        data.get("image_folder", data_dir=str(tmp_path))
    with pytest.raises(ValueError, match="image_size >= 1. Received: 0"):
        data.get("image_folder", data_dir=str(tmp_path), image_size=0)


@pytest.mark.parametrize("below", ["", "own"])
@pytest.mark.parametrize("name", sorted(published.SETS))
def test_published_sets_as_class_folders(name, below, tmp_path):
    known = published.SETS[name]
    classes = [f"class{number:02}" for number in range(known.num_classes)]
    folder = tmp_path / (name if below else "")
    options = {"sides": known.image_shape[:2], "grey": known.image_shape[2] == 1}
    make(folder / "train", classes, count=2, **options)
    make(folder / "test", classes, count=1, **options)
    dataset = data.get(name, data_dir=str(tmp_path))
    assert dataset.image_shape == known.image_shape
    assert dataset.num_train == 2 * dataset.num_validation == 2 * known.num_classes
    assert dataset.source.endswith(f"for validation in {folder}/test")


def test_class_folders_of_another_size_are_not_a_published_set(tmp_path):
    classes = [str(number) for number in range(10)]
    splits(tmp_path, classes=classes, sides=(20, 20))
    with pytest.raises(ValueError, match="images of cifar10, 32 x 32 pixels. Received: 20 x 20"):
        data.get("cifar10", data_dir=str(tmp_path))


def test_colours_are_not_taken_for_mnist(tmp_path):
    splits(tmp_path, classes=[str(number) for number in range(10)], sides=(28, 28))
    with pytest.raises(ValueError, match="Expected grey images in .*train. Received: some with"):
        data.get("mnist", data_dir=str(tmp_path))


def test_another_number_of_classes_is_not_a_published_set(tmp_path):
    splits(tmp_path, sides=(28, 28))
    with pytest.raises(FileNotFoundError, match="10 class folders of images, or prepared by"):
        data.get("mnist", data_dir=str(tmp_path))


def to_bmp(mode):
    """A grey, black and white or coloured picture, as Pillow writes it: with a palette."""

    def encode(pixels):
        held = io.BytesIO()
        pixels = np.repeat(pixels, 3 // pixels.shape[-1], axis=-1)
        PIL.Image.fromarray(pixels).convert(mode).save(held, "BMP")
        return tf.constant(held.getvalue())

    return encode


@pytest.mark.parametrize("mode", ["RGB", "P", "L", "1"])
def test_bitmaps_with_and_without_a_palette(mode, tmp_path):
    make(tmp_path, encode=to_bmp(mode))
    dataset = data.get("image_folder", data_dir=str(tmp_path))
    images = [PIL.Image.fromarray(picture(label, 0)[0]).convert(mode) for label in (0, 1)]
    found = contents(dataset.train_images, dataset.train_labels)
    found += contents(dataset.validation_images, dataset.validation_labels)
    for label, image in enumerate(images):
        pixels = np.asarray(image.convert("RGB"))[..., : dataset.image_shape[-1]]
        assert (label, pixels.tobytes()) in found
    (tmp_path / "lion/i0.png").write_bytes((tmp_path / "lion/i0.png").read_bytes()[:40])
    with pytest.raises(ValueError, match="i0.png: Expected an image that can be decoded"):
        data.get("image_folder", data_dir=str(tmp_path))


# What lies beside the class folders of `train`: how it is made, and what is said.
BESIDE = {
    "flat": (lambda d: write(d / "val/i0.png"), "/val: Expected class folders.*: i0.png"),
    "empty": (lambda d: (d / "val").mkdir(), "/val: Expected class folders.*: an empty folder"),
    "other files": (lambda d: write(d / "Test/lion/i0.webp"), "/Test: Expected class .*: lion"),
    "a link": (lambda d: (d / "val").symlink_to(d / "train"), "/val: Expected other.*same folder"),
    "a copy": (lambda d: shutil.copytree(d / "train", d / "val"), "/val: Expected other .*same 20"),
    "an image": (lambda d: write(d / "train/i0.png"), "Put it into the folder of its class"),
    "a loop": (lambda d: (d / "train/lion/z.png").symlink_to(d / "train/lion/z.png"), "z.png: Exp"),
}


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(0, 0)[1])


@pytest.mark.parametrize("case", BESIDE)
def test_what_would_be_left_out_unseen(case, tmp_path):
    make(tmp_path / "train")
    lay, message = BESIDE[case]
    lay(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        data.get("image_folder", data_dir=str(tmp_path))
    assert "\n" not in str(caught.value)


def test_what_is_left_out_is_named(tmp_path, caplog):
    splits(tmp_path, ("Train", "VAL"))
    make(tmp_path / "test", count=5)
    shutil.rmtree(tmp_path / "VAL/zebra")
    with caplog.at_level(logging.WARNING):
        dataset = data.get("image_folder", data_dir=str(tmp_path))
    assert (dataset.num_train, dataset.num_validation) == (20, 4)
    assert f"Left out are {tmp_path}/test. There are 20 images" in caplog.text
    assert f"{tmp_path}/VAL: no validation images of zebra" in caplog.text
    assert f"{tmp_path}/VAL: 4 of the 4 validation images are training images" in caplog.text


def test_a_name_in_two_spellings_of_unicode_is_one_class(tmp_path):
    composed, apart = (unicodedata.normalize(form, "Käfer") for form in ("NFC", "NFD"))
    make(tmp_path / "train", (composed, "b"))
    make(tmp_path / "val", (apart, "b"), count=4)
    assert data.get("image_folder", data_dir=str(tmp_path)).num_classes == 2


# Images directly in folders of splits, or also one of a class beside them.
FLAT = {
    "two splits": (("train", "test"), True),
    "in capital letters": (("Training", "VAL"), True),
    "three splits": (("train", "val", "test"), True),
    "a class called train": (("train", "test", "plane"), False),
    "two classes of tests": (("test", "valid"), False),
}


@pytest.mark.parametrize("case", FLAT)
def test_splits_without_classes_are_no_classes(case, tmp_path):
    names, refused = FLAT[case]
    make(tmp_path, names)
    if not refused:
        assert data.get("image_folder", data_dir=str(tmp_path)).num_classes == len(names)
        return
    message = f"class folders of images in {tmp_path}.*directly in {', '.join(sorted(names))}"
    for load in (
        lambda: data.get("image_folder", data_dir=str(tmp_path)),
        lambda: data.get("imagenet", data_dir=str(tmp_path)),
        lambda: sources.images(str(tmp_path)),
    ):
        with pytest.raises(ValueError, match=message):
            load()


def test_images_of_other_kinds_in_class_folders_are_told(tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for number in range(3):
            (tmp_path / name / f"{number}.webp").touch()
    with pytest.raises(FileNotFoundError, match=r"ant, bee, which hold 6 files .*\(.webp 6\)"):
        data.get("image_folder", data_dir=str(tmp_path))


def test_a_folder_that_lies_deeper_is_named(tmp_path):
    make(tmp_path / "a/b/train")
    with pytest.raises(FileNotFoundError, match=f"Give {tmp_path}/a/b with --data_dir"):
        data.get("image_folder", data_dir=str(tmp_path))


@pytest.mark.parametrize("below", ["set/train", "set"])
def test_the_folder_within_is_named(below, tmp_path):
    make(tmp_path / below)
    with pytest.raises(FileNotFoundError, match=f"Give {tmp_path}/set with --data_dir"):
        data.get("image_folder", data_dir=str(tmp_path))
