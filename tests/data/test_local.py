"""Small sets from the files people have: places, forms, checksums, and files that are wrong."""

import dataclasses
import gzip
import hashlib
import logging
import os
import pickle
import shutil
import struct
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from neural_alignment import data
from neural_alignment.data import array_files, local, published

IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte",
       "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")  # fmt: skip
GREY = ("mnist", "fashion_mnist")
COUNTS = {"train": 30, "test": 10}


def arrays(shape=(28, 28), classes=10, seed=0):
    """Images and labels of two splits."""
    generator = np.random.default_rng(seed)
    made = []
    for count in COUNTS.values():
        made += [
            generator.integers(0, 256, (count, *shape), np.uint8),
            generator.integers(0, classes, count).astype(np.uint8),
        ]
    return made


def idx_bytes(array):
    head = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


def write_idx(folder, made, name_of=lambda file: file, pack=lambda content: content):
    folder.mkdir(parents=True, exist_ok=True)
    for file, array in zip(IDX, made, strict=True):
        path = folder / name_of(file)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pack(idx_bytes(array)))


def write_npz(path, made):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, x_train=made[0], y_train=made[1], x_test=made[2], y_test=made[3])


def same(dataset, made):
    np.testing.assert_array_equal(dataset.train_images, made[0].reshape(dataset.train_images.shape))
    np.testing.assert_array_equal(dataset.train_labels, made[1])
    np.testing.assert_array_equal(
        dataset.validation_images, made[2].reshape(dataset.validation_images.shape)
    )
    np.testing.assert_array_equal(dataset.validation_labels, made[3])


PLACES = {
    "mnist": ("", "MNIST/raw", "raw", "mnist", "MNIST", "data", "package/data"),
    "fashion_mnist": ("", "FashionMNIST/raw", "fashion-mnist", "datasets/fashion-mnist",
                      "fashion_mnist", "data/fashion"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "place"), [(name, place) for name in GREY for place in PLACES[name]]
)
def test_idx_files_where_they_are_usual(name, place, tmp_path):
    made = arrays()
    write_idx(tmp_path / place, made)
    dataset = data.get(name, data_dir=str(tmp_path))
    same(dataset, made)
    assert (dataset.num_classes, dataset.image_shape) == (10, (28, 28, 1))
    assert (dataset.num_train, dataset.num_validation) == (30, 10)
    assert dataset.source.startswith(f"4 IDX files in {os.path.normpath(tmp_path / place)}, ")
    images, labels = next(iter(dataset.train(30, 0, 0)))
    assert images.shape == (30, 28, 28, 1) and float(np.max(images)) == 1.0


@pytest.mark.parametrize(
    ("name_of", "pack"),
    [
        (lambda file: file, lambda content: content),
        (lambda file: f"{file}.gz", gzip.compress),
        (lambda file: f"{file}.gz", lambda content: content),  # unpacked, the name kept
        (lambda file: file, gzip.compress),  # and the other way
        (lambda file: file.replace("-idx", ".idx"), lambda content: content),
        (lambda file: file.replace("-idx", ".idx") + ".gz", gzip.compress),
        (lambda file: f"{file}/{file}", lambda content: content),
        (str.upper, lambda content: content),
        (lambda file: f"{file.title()}.GZ", gzip.compress),
    ],
    ids=(
        "raw",
        "gz",
        "gz-unpacked",
        "packed-without-gz",
        "dot",
        "dot-gz",
        "folders",
        "capitals",
        "capitals-gz",
    ),
)
def test_idx_files_under_their_names(name_of, pack, tmp_path):
    made = arrays()
    write_idx(tmp_path, made, name_of, pack)
    same(data.get("mnist", data_dir=str(tmp_path)), made)


@pytest.mark.parametrize("place", ["mnist.npz", "datasets/mnist.npz", "mnist/mnist.npz"])
def test_kerass_npz(place, tmp_path):
    made = arrays()
    write_npz(tmp_path / place, made)
    same(data.get("mnist", data_dir=str(tmp_path)), made)
    dataset = data.get("mnist", data_dir=str(tmp_path / place))  # the file itself
    same(dataset, made)
    assert str(tmp_path / place) in dataset.source


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_npz(tmp_path / ".keras/datasets/mnist.npz", arrays())
    same(data.get("mnist", data_dir="~/.keras/datasets"), arrays())


def test_a_complete_folder_goes_before_a_part_of_the_set(tmp_path):
    write_idx(tmp_path / "MNIST/raw", arrays())
    (tmp_path / IDX[0]).write_bytes(b"left from a download")
    same(data.get("mnist", data_dir=str(tmp_path)), arrays())


def test_images_of_another_size(tmp_path):
    write_idx(tmp_path, arrays((20, 24)))
    assert data.get("mnist", data_dir=str(tmp_path)).image_shape == (20, 24, 1)
    assert data.get("mnist", data_dir=str(tmp_path), image_size=12).image_shape == (12, 12, 1)


# What can be wrong with one file: which, its bytes made of the right ones, what is said of it.
WRONG = {
    "images cut short": (0, lambda c: c[:-100], "Expected 23536 bytes, .*30 x 28 x 28.*: 23436"),
    "labels cut short": (1, lambda c: c[:-1], "Expected 38 bytes.* Received: 37"),
    "cut in the head": (2, lambda c: c[:10], "begins with 00 00 08 03. Received: 00 00 08 03"),
    "empty": (3, lambda c: b"", "begins with 00 00 08 01. Received: an empty file"),
    "too long": (0, lambda c: c + b"x", "Expected 23536 bytes.* Received: 23537"),
    "a page of HTML": (0, lambda c: b"<html>404</html>" * 9, "IDX file .*Received: 3c 68 74 6d"),
    "floats": (0, lambda c: c[:2] + b"\x0d" + c[3:], "unsigned bytes .*Received: 00 00 0d 03"),
    "labels for images": (0, lambda c: idx_bytes(arrays()[1]), "with 3 axes"),
    "images for labels": (1, lambda c: idx_bytes(arrays()[0]), "with 1 axes"),
    "fewer labels": (1, lambda c: idx_bytes(arrays()[1][:7]), "Expected 30 labels.*Received: 7"),
    "a label too high": (3, lambda c: c[:-1] + b"\x0a", "labels from 0 to 9. Received: . to 10"),
    "no images": (2, lambda c: idx_bytes(arrays()[2][:0]), "at least one"),
    "gz cut short": (0, lambda c: gzip.compress(c)[:-200], "Expected a complete gzip file"),
    "gz damaged": (0, lambda c: gzip.compress(c)[:500] + bytes(2000), "complete gzip file"),
    "gz of a head": (0, lambda c: gzip.compress(c)[:4], "Expected a complete gzip file"),
    "gz of something cut": (0, lambda c: gzip.compress(c[:-9]), "Expected 23536 bytes"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_named_in_one_message(case, tmp_path):
    which, change, message = WRONG[case]
    write_idx(tmp_path, arrays())
    path = tmp_path / IDX[which]
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as caught:
        data.get("mnist", data_dir=str(tmp_path))
    assert str(caught.value).startswith(f"{path}: Expected ")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    write_idx(tmp_path, arrays())

    def refuse(path, *args):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(array_files, "open", refuse, raising=False)
    with pytest.raises(
        OSError, match=f"{tmp_path}/{IDX[0]}: Expected .*Permission denied"
    ) as caught:
        data.get("mnist", data_dir=str(tmp_path))
    assert "Errno" not in str(caught.value)


@pytest.mark.parametrize("file", IDX)
@pytest.mark.parametrize("place", ["", "MNIST/raw"])
def test_a_file_that_is_missing_is_named(file, place, tmp_path):
    write_idx(tmp_path / place, arrays())
    (tmp_path / place / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"Expected {file} beside {tmp_path}/.*Received"):
        data.get("mnist", data_dir=str(tmp_path))


def test_splits_of_two_sizes(tmp_path):
    small, large = arrays((20, 20)), arrays((28, 28))
    write_idx(tmp_path, [*small[:2], *large[2:]])
    with pytest.raises(ValueError, match=f"{IDX[2]}: .*20 x 20. Received: 28 x 28"):
        data.get("mnist", data_dir=str(tmp_path))


def damaged_npz(content):
    return content[:300] + bytes(64) + content[364:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-100], "Expected an .npz file with the arrays x_train"),
        (damaged_npz, "Expected an .npz file"),
        (lambda content: b"", "Expected an .npz file"),
        (lambda content: b"<html>", "Expected an .npz file"),
    ],
)
def test_a_wrong_npz_is_named(change, message, tmp_path):
    path = tmp_path / "mnist.npz"
    write_npz(path, arrays())
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as caught:
        data.get("mnist", data_dir=str(tmp_path))
    assert str(caught.value).startswith(f"{path}: Expected ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": None}, "no x_train, but y_train, x_test, y_test"),
        ({"x_train": np.zeros((30, 28, 28), np.float32)}, "Expected x_train of unsigned bytes"),
        ({"x_train": arrays()[0].reshape(30, 784)}, "with 3 axes.*Received: uint8 .30, 784."),
        ({"x_train": arrays()[0][..., None].repeat(3, 3)}, "Received: uint8 .30, 28, 28, 3."),
        ({"y_test": np.zeros((10, 10), np.uint8)}, "Expected y_test of unsigned bytes with 1 axes"),
        ({"y_test": np.ones((10, 2), np.uint8)}, "Expected y_test of unsigned bytes with 1 axes"),
        ({"y_test": np.full(10, 0.5)}, "Expected y_test of unsigned bytes.*float64"),
        ({"y_test": np.full(10, np.inf)}, "Expected y_test of unsigned bytes.*float64"),
        ({"y_test": np.full(10, -1)}, "Expected y_test of unsigned bytes.*-1 to -1"),
        ({"y_test": np.zeros(9, np.uint8)}, "Expected 10 labels"),
        ({"x_train": np.array([{}], object)}, "Object arrays cannot be loaded"),
    ],
)
def test_an_npz_with_other_arrays(changes, message, tmp_path):
    made = dict(zip(("x_train", "y_train", "x_test", "y_test"), arrays(), strict=True)) | changes
    np.savez(tmp_path / "mnist.npz", **{k: v for k, v in made.items() if v is not None})
    with pytest.raises(ValueError, match=f"mnist.npz: Expected.*{message}|mnist.npz: {message}"):
        data.get("mnist", data_dir=str(tmp_path))


# What else people keep the same images and labels as.
SAME = {
    "a channel": lambda x, y: (x[..., None], y),
    "a channel first": lambda x, y: (x[:, None], y),
    "rows of one 1": lambda x, y: (x, np.eye(10)[y]),
    "rows of one 1 as bytes": lambda x, y: (x, np.eye(10, dtype=np.uint8)[y]),
    "a column": lambda x, y: (x, y[:, None]),
    "whole numbers as floats": lambda x, y: (x, y.astype(np.float32)),
    "columns first": lambda x, y: (np.asfortranarray(x), y),
}


@pytest.mark.parametrize("case", SAME)
def test_an_npz_of_the_same_in_other_shapes(case, tmp_path):
    x, y, x_test, y_test = arrays()
    write_npz(tmp_path / "mnist.npz", [*SAME[case](x, y), *SAME[case](x_test, y_test)])
    same(data.get("mnist", data_dir=str(tmp_path)), arrays())


@pytest.mark.parametrize("names", [
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("X_train", "Y_train", "X_test", "Y_test"), ("train_x", "train_y", "test_x", "test_y"),
])  # fmt: skip
def test_an_npz_of_other_names(names, tmp_path):
    np.savez(tmp_path / "mnist.npz", **dict(zip(names, arrays(), strict=True)))
    same(data.get("mnist", data_dir=str(tmp_path)), arrays())


CODES = {">u1": 8, ">i1": 9, ">i2": 11, ">i4": 12, ">f4": 13}


def typed_idx(array, kind):
    head = bytes([0, 0, CODES[kind], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(kind).tobytes()


@pytest.mark.parametrize("kinds", [(">u1", ">i4"), (">i2", ">i2"), (">i4", ">i1"), (">i4", ">i4")])
@pytest.mark.parametrize("case", ["", "a channel", "a channel first", "rows of one 1"])
def test_idx_files_of_other_whole_numbers(kinds, case, tmp_path):
    made = arrays()
    if case:
        made = [*SAME[case](*made[:2]), *SAME[case](*made[2:])]
    for file, array, kind in zip(IDX, made, (*kinds, *kinds), strict=True):
        (tmp_path / file).write_bytes(typed_idx(array, kind))
    same(data.get("mnist", data_dir=str(tmp_path)), arrays())


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (">i4", lambda x: x.astype(int) + 1, "images of unsigned bytes.*Received: >i4.*1 to 256"),
        (">i1", lambda x: x, "images of unsigned bytes.*Received: int8 .*-128 to 127"),
        (">f4", lambda x: x, "an IDX file of unsigned bytes with 3 axes.*00 00 0d 03"),
        (">u1", lambda x: x[..., None, None], "with 3 axes.*00 00 08 05"),
        (">u1", lambda x: x[..., None].repeat(3, 3), "with 3 axes.*uint8 .30, 28, 28, 3."),
        (">i2", lambda x: x[:0], "16 and those of 0 x 28 x 28 numbers of 2 bytes, at least one"),
    ],
)
def test_idx_files_of_other_numbers_are_refused(kind, change, message, tmp_path):
    write_idx(tmp_path, arrays())
    (tmp_path / IDX[0]).write_bytes(typed_idx(change(arrays()[0]), kind))
    with pytest.raises(ValueError, match=f"{IDX[0]}: Expected .*{message}"):
        data.get("mnist", data_dir=str(tmp_path))


def test_a_file_that_is_no_npz(tmp_path):
    (tmp_path / "mnist.tar").touch()
    with pytest.raises(ValueError, match="Expected a folder with mnist. Received: the file .*tar"):
        data.get("mnist", data_dir=str(tmp_path / "mnist.tar"))


@pytest.mark.parametrize("name", sorted(published.SETS))
def test_a_folder_without_the_set_says_what_would_be_taken(name, tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FileNotFoundError) as caught:
        data.get(name, data_dir=str(tmp_path))
    known = published.SETS[name]
    for files in known.train.values():
        assert files[0] in str(caught.value)
    assert "TensorFlow Datasets" in str(caught.value) and "--data_dir" in str(caught.value)


@pytest.mark.parametrize("form", ["raw", "gz", "npz"])
def test_the_published_files_are_known_in_every_form(form, tmp_path, monkeypatch, caplog):
    sums = {
        name: {f: hashlib.md5(idx_bytes(a)).hexdigest()
               for f, a in zip(IDX, arrays(seed=seed), strict=True)}
        for seed, name in enumerate(GREY)
    }  # fmt: skip
    for name in GREY:
        monkeypatch.setitem(
            published.SETS, name, dataclasses.replace(published.SETS[name], md5=sums[name])
        )
    made = arrays()
    if form == "npz":
        write_npz(tmp_path / "mnist.npz", made)
    else:
        pack = gzip.compress if form == "gz" else bytes
        write_idx(tmp_path, made, lambda file: f"{file}{'.gz' if form == 'gz' else ''}", pack)
    with caplog.at_level(logging.WARNING):
        dataset = data.get("mnist", data_dir=str(tmp_path))
    assert dataset.source.endswith("as published") and not caplog.messages
    # The same files asked for as the set that is like it: refused, not trained on unseen.
    if form != "npz":
        with pytest.raises(ValueError, match="files of fashion_mnist. Received: .* of mnist"):
            data.get("fashion_mnist", data_dir=str(tmp_path))


def test_other_files_are_taken_with_a_warning(tmp_path, caplog):
    write_idx(tmp_path, arrays())
    with caplog.at_level(logging.WARNING):
        dataset = data.get("mnist", data_dir=str(tmp_path))
    assert dataset.source.endswith("with other checksums than the published")
    (message,) = caplog.messages
    assert "mnist" in message and str(tmp_path) in message
    assert all(file in message for file in IDX)


# CIFAR: records of label, red, green and blue; a coarse label first in CIFAR-100.


def cifar_arrays(name):
    classes = published.SETS[name].num_classes
    made = arrays((32, 32, 3), classes)
    return made


def binary(images, labels, coarse):
    rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    heads = [labels[:, None]]
    if coarse:
        heads.insert(0, (labels // 5)[:, None])
    return np.concatenate([*heads, rows], axis=1).tobytes()


def python2_pickle(values):
    """A pickled dict of strings to lists of numbers or a uint8 matrix, as CIFAR's files are."""

    def short(text):
        return b"U" + bytes([len(text)]) + text

    def number(value):
        return b"J" + struct.pack("<i", value)

    out = [b"\x80\x02}("]
    for key, value in values.items():
        out.append(short(key))
        if isinstance(value, list):
            out += [b"](", *map(number, value), b"e"]
            continue
        content = value.tobytes()
        out += [
            b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy\nndarray\n", number(0), b"\x85",
            short(b"b"), b"\x87R(", number(1), number(value.shape[0]), number(value.shape[1]),
            b"\x86", b"cnumpy\ndtype\n", short(b"u1"), number(0), number(1), b"\x87R(", number(3),
            short(b"|"), b"NNN", number(-1), number(-1), number(0), b"tb", b"\x89",
            b"T" + struct.pack("<i", len(content)) + content, b"tb",
        ]  # fmt: skip
    return b"".join([*out, b"u."])


def pickled(images, labels, coarse, how):
    rows = np.ascontiguousarray(images.transpose(0, 3, 1, 2).reshape(len(images), -1))
    key = "fine_labels" if coarse else "labels"
    values = {"data": rows, key: labels.astype(int).tolist()}
    if how == "python2":
        return python2_pickle({k.encode(): v for k, v in values.items()})
    return pickle.dumps({k.encode(): v for k, v in values.items()}, protocol=2)


def write_cifar(name, folder, form, made, how="python2"):
    folder.mkdir(parents=True, exist_ok=True)
    known, coarse = published.SETS[name], name == "cifar100"
    for files, images, labels in (
        (known.train[form], made[0], made[1]),
        (known.test[form], made[2], made[3]),
    ):
        size = len(images) // len(files)
        for number, file in enumerate(files):
            part = slice(number * size, (number + 1) * size)
            content = (
                binary(images[part], labels[part], coarse)
                if form == "binary"
                else pickled(images[part], labels[part], coarse, how)
            )
            (folder / file).write_bytes(content)


CIFAR_PLACES = [
    ("cifar10", "binary", ""),
    ("cifar10", "binary", "cifar-10-batches-bin"),
    ("cifar10", "pickle", "cifar-10-batches-py"),
    ("cifar10", "pickle", "datasets/cifar-10-batches-py"),
    ("cifar100", "binary", "cifar-100-binary"),
    ("cifar100", "binary", ""),
    ("cifar100", "pickle", "cifar-100-python"),
    ("cifar100", "pickle", ""),
]


@pytest.mark.parametrize(("name", "form", "place"), CIFAR_PLACES)
def test_cifars_batches(name, form, place, tmp_path):
    made = cifar_arrays(name)
    write_cifar(name, tmp_path / place, form, made)
    dataset = data.get(name, data_dir=str(tmp_path), augment=False)
    same(dataset, made)
    assert dataset.image_shape == (32, 32, 3)
    assert dataset.num_classes == published.SETS[name].num_classes
    assert "batches in" in dataset.source


@pytest.mark.parametrize("how", ["python2", "python3"])
def test_pickles_of_either_python(how, tmp_path):
    made = cifar_arrays("cifar10")
    write_cifar("cifar10", tmp_path, "pickle", made, how)
    same(data.get("cifar10", data_dir=str(tmp_path)), made)


class Evil:
    def __reduce__(self):
        return os.system, ("touch owned",)


def reducing(function, *arguments):
    class Call:
        def __reduce__(self):
            return function, arguments

    return Call()


@pytest.mark.parametrize(
    "value",
    [
        Evil(),
        {b"data": Evil(), b"labels": [0]},
        {b"data": np.array([Evil()], object), b"labels": [0]},
        {b"data": reducing(eval, "open('owned', 'w')"), b"labels": [0]},
        {b"data": reducing(getattr, "text", "upper"), b"labels": [0]},
        {b"data": reducing(np.ndarray, (1 << 40,)), b"labels": [0]},
    ],
)
def test_no_pickle_runs_anything(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_cifar("cifar10", tmp_path, "pickle", cifar_arrays("cifar10"))
    (tmp_path / "data_batch_2").write_bytes(pickle.dumps(value, protocol=2))
    with pytest.raises(ValueError, match="data_batch_2: Expected a pickled batch of CIFAR"):
        data.get("cifar10", data_dir=str(tmp_path))
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("name", "form", "file", "change", "message"),
    [
        ("cifar10", "binary", "data_batch_3.bin", lambda c: c[:-1], "records of 3073 bytes"),
        ("cifar10", "binary", "test_batch.bin", lambda c: b"", "records of 3073 .*: 0 bytes"),
        ("cifar10", "binary", "data_batch_1.bin", lambda c: b"\x0a" + c[1:], "from 0 to 9"),
        ("cifar100", "binary", "train.bin", lambda c: c[:-7], "records of 3074 bytes"),
        ("cifar100", "binary", "test.bin", lambda c: b"\x14" + c[1:], "coarse labels from 0 to 19"),
        ("cifar10", "pickle", "data_batch_1", lambda c: c[:-9], "Expected a pickled batch"),
        ("cifar10", "pickle", "data_batch_5", lambda c: b"", "Expected a pickled batch"),
        ("cifar10", "pickle", "test_batch", lambda c: b"<html>", "Expected a pickled batch"),
        ("cifar100", "pickle", "train", lambda c: python2_pickle({b"a": [1]}), "KeyError"),
        ("cifar10", "pickle", "data_batch_1",
         lambda c: pickle.dumps({b"data": np.zeros((2, 9), np.uint8), b"labels": [0, 1]}, 2),
         r"data uint8 \[n, 3072\]. Received: uint8 \[2, 9\]"),
        ("cifar10", "pickle", "data_batch_1",
         lambda c: pickle.dumps({b"data": np.zeros((2, 3072)), b"labels": [0, 1]}, 2),
         "data uint8 .* Received: float64"),
        ("cifar10", "pickle", "data_batch_1",
         lambda c: pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}, 2),
         "Expected 2 integers as labels"),
    ],
)  # fmt: skip
def test_a_wrong_batch_is_named(name, form, file, change, message, tmp_path):
    write_cifar(name, tmp_path, form, cifar_arrays(name))
    path = tmp_path / file
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as caught:
        data.get(name, data_dir=str(tmp_path))
    assert str(caught.value).startswith(f"{path}: Expected ") and "\n" not in str(caught.value)


def test_a_batch_that_is_missing_is_named(tmp_path):
    write_cifar("cifar10", tmp_path, "binary", cifar_arrays("cifar10"))
    (tmp_path / "data_batch_4.bin").unlink()
    with pytest.raises(FileNotFoundError, match="Expected data_batch_4.bin beside"):
        data.get("cifar10", data_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("name", "archive"),
    [(name, archive) for name, known in published.SETS.items() for archive in known.archives],
)
def test_an_archive_that_is_not_unpacked(name, archive, tmp_path):
    (tmp_path / archive).touch()
    with pytest.raises(FileNotFoundError, match=f"tar -xzf {tmp_path}/{archive} -C {tmp_path}"):
        data.get(name, data_dir=str(tmp_path))
    write_cifar(name, tmp_path, "binary", cifar_arrays(name))
    same(data.get(name, data_dir=str(tmp_path)), cifar_arrays(name))


def test_files_need_no_tensorflow(tmp_path):
    write_idx(tmp_path / "mnist", arrays())
    code = f"""
import sys
sys.modules["tensorflow"] = None
from neural_alignment import data
print(data.get("mnist", data_dir={str(tmp_path)!r}).train_images.shape)
try:
    data.get("cifar10", data_dir={str(tmp_path)!r})
except ImportError as error:
    print(error)
"""
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    pytest.importorskip("jax")
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    shape, message = result.stdout.splitlines()
    assert shape == "(30, 28, 28, 1)"
    assert "data_batch_1.bin" in message and "needs TensorFlow" in message


def test_a_folder_is_a_path_or_a_text(tmp_path):
    write_idx(tmp_path, arrays())
    same(data.get("mnist", data_dir=tmp_path), arrays())
    with pytest.raises(ValueError, match="Expected a folder with mnist as data_dir. Received: ''"):
        data.get("mnist", data_dir="")


@pytest.mark.parametrize("array", arrays(), ids=IDX)
def test_an_idx_file_follows_from_its_array(array):
    assert array_files.to_idx(array) == idx_bytes(array)
    rank = array.ndim
    np.testing.assert_array_equal(array_files.idx("file", idx_bytes(array), rank), array)


def test_nothing_is_looked_for_on_a_bucket_or_nowhere():
    assert local.find("mnist", None) is None
    assert local.find("mnist", "gs://bucket/mnist") is None


# Files that lie under another's name: which is written where.
EXCHANGED = {
    "train and test exchanged": (2, 3, 0, 1),
    "the test files twice": (2, 3, 2, 3),
    "the training files twice": (0, 1, 0, 1),
}


@pytest.mark.parametrize("form", ["idx", "npz"])
@pytest.mark.parametrize(
    ("case", "known"),
    # Nothing tells the splits of a set apart that is not known.
    [(case, True) for case in EXCHANGED] + [(case, False) for case in list(EXCHANGED)[1:]],
)
def test_files_under_anothers_name(case, known, form, tmp_path, monkeypatch):
    made = arrays()
    if known:
        sums = dict(zip(IDX, (hashlib.md5(idx_bytes(a)).hexdigest() for a in made), strict=True))
        mnist = dataclasses.replace(published.SETS["mnist"], md5=sums)
        monkeypatch.setitem(published.SETS, "mnist", mnist)
    laid = [made[which] for which in EXCHANGED[case]]
    if form == "idx":
        write_idx(tmp_path, laid)
    else:
        write_npz(tmp_path / "mnist.npz", laid)
    message = "of mnist. Received: .* under that name" if known else "the same [13]0 images"
    with pytest.raises(ValueError, match=message):
        data.get("mnist", data_dir=str(tmp_path))


def test_a_batch_that_lies_twice(tmp_path, monkeypatch):
    write_cifar("cifar10", tmp_path, "binary", cifar_arrays("cifar10"))
    files = sorted(path.name for path in tmp_path.iterdir())
    sums = {f: hashlib.md5((tmp_path / f).read_bytes()).hexdigest() for f in files}
    cifar = dataclasses.replace(published.SETS["cifar10"], md5=sums)
    monkeypatch.setitem(published.SETS, "cifar10", cifar)
    assert data.get("cifar10", data_dir=str(tmp_path)).source.endswith("as published")
    (tmp_path / files[1]).write_bytes((tmp_path / files[0]).read_bytes())
    with pytest.raises(ValueError, match=f"Expected {files[1]} of cifar10. Received: {files[0]} u"):
        data.get("cifar10", data_dir=str(tmp_path))


def test_test_images_that_are_trained_on_are_counted(tmp_path, caplog):
    made = arrays()
    made[2][:3] = made[0][:3]
    write_idx(tmp_path, made)
    with caplog.at_level(logging.WARNING):
        data.get("mnist", data_dir=str(tmp_path))
    assert f"{tmp_path}: 3 of the 10 validation images are training images" in caplog.text


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint16])
def test_an_npz_of_other_whole_numbers(kind, tmp_path):
    made = arrays()
    write_npz(tmp_path / "mnist.npz", [array.astype(kind) for array in made])
    same(data.get("mnist", data_dir=str(tmp_path)), made)
    made[1] = made[1].astype(np.int64) - 1
    write_npz(tmp_path / "mnist.npz", made)
    with pytest.raises(ValueError, match=r"y_train of unsigned bytes .* int64 \[30\], -1 to 8"):
        data.get("mnist", data_dir=str(tmp_path))


@pytest.mark.parametrize("form", ["idx", "npz", "folders"])
def test_pixels_of_0_and_1_are_not_taken_for_bytes(form, tmp_path):
    made = [a > 127 if a.ndim == 3 else a for a in arrays(seed=1)]
    made = [a.astype(np.uint8) for a in made]
    if form == "idx":
        write_idx(tmp_path, made)
    elif form == "npz":
        write_npz(tmp_path / "mnist.npz", made)
    else:
        for place, images, labels in (("train", *made[:2]), ("test", *made[2:])):
            for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                folder = tmp_path / place / str(label % 2)
                folder.mkdir(parents=True, exist_ok=True)
                PIL.Image.fromarray(image).save(folder / f"{i}.png")
    with pytest.raises(ValueError, match="pixels from 0 to 255.*0 and 1 alone.*Multiply them"):
        data.get("image_folder" if form == "folders" else "mnist", data_dir=tmp_path)


def test_what_stands_in_the_place_of_a_file(tmp_path):
    write_idx(tmp_path, arrays())
    (tmp_path / IDX[0]).unlink()
    (tmp_path / IDX[0]).symlink_to(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="Received: a link to nothing"):
        data.get("mnist", data_dir=str(tmp_path))
    (tmp_path / IDX[0]).unlink()
    (tmp_path / IDX[0]).mkdir()
    with pytest.raises(FileNotFoundError, match=f"Received: {IDX[0]}, no file"):
        data.get("mnist", data_dir=str(tmp_path))


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("below", ["", "datasets"])
def test_where_keras_3_caches_cifar(name, below, tmp_path):
    batches = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}[name]
    made = cifar_arrays(name)
    write_cifar(name, tmp_path / below / f"{batches}-target" / batches, "pickle", made)
    same(data.get(name, data_dir=str(tmp_path), augment=False), made)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("mnist", "mnist/MNIST/raw"),
        ("mnist", "a/b/c"),
        ("fashion_mnist", "data/Fashion/idx"),
        ("cifar10", "sets/cifar-10-batches-bin"),
    ],
)
def test_a_set_that_lies_deeper_is_named(name, place, tmp_path):
    write_idx(tmp_path / "fashion/other", arrays())  # of the same names
    if name == "cifar10":
        write_cifar(name, tmp_path / place, "binary", cifar_arrays(name))
    else:
        write_idx(tmp_path / place, arrays())
    if name == "fashion_mnist":
        shutil.rmtree(tmp_path / "fashion")
    with pytest.raises(FileNotFoundError, match=f"{tmp_path / place}. Give that folder"):
        local.find(name, str(tmp_path))
    assert local.find(name, str(tmp_path), download=True) is None


def test_the_folder_that_was_looked_in_is_told(tmp_path):
    write_idx(tmp_path / "FashionMNIST/raw", arrays())
    for folder, there in ((tmp_path, "FashionMNIST"), (tmp_path / "no", "no such folder")):
        with pytest.raises(FileNotFoundError, match=rf"no such data in {folder} \({there}\)"):
            data.get("mnist", data_dir=str(folder))
