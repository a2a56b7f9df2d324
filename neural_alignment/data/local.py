"""Small published sets from the files people have: IDX, mnist.npz, CIFAR's batches, image folders.

`load` looks below a folder for each form a set comes in, reads the first that is complete, and
otherwise leaves the folder to TensorFlow Datasets.
"""

from __future__ import annotations

import dataclasses
import glob
import logging
import os
import shlex
from collections.abc import Sequence

import numpy as np

from neural_alignment.data import array_files, folders, tfds
from neural_alignment.data.array_files import Split
from neural_alignment.data.arrays import ArrayDataset, Augment, check_apart, check_pixels
from neural_alignment.data.published import SETS, Published, recognise
from neural_alignment.data.standardized import standardized

_log = logging.getLogger(__name__)

_FORMS = {"idx": "IDX files", "binary": "binary batches", "pickle": "pickled batches"}


@dataclasses.dataclass(frozen=True)
class Found:
    """A set's two splits as they lay in files.

    Args:
        train: images uint8 [n, height, width, channels] and labels [n].
        test: the same.
        source: what they were read from, in words.
    """

    train: Split
    test: Split
    source: str


def load(
    name: str,
    data_dir: str | None = None,
    download: bool = False,
    image_size: int | None = None,
    augment: Augment | None = None,
) -> ArrayDataset:
    """A published set; the test split validates.

    Args:
        name: a key of `SETS`.
        data_dir: a folder with the set's files (`find`), or the one TensorFlow Datasets keeps its
            sets in; None: TensorFlow Datasets' own default.
        download: let TensorFlow Datasets fetch and prepare the set, if it is not there yet.
        image_size: resize to this many pixels a side, bilinearly; None keeps the set's own.
        augment: see `ArrayDataset`.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: the set is not in the folder, or a part of it, and download is False.
        ConnectionError: see `tfds.load`.
        ValueError: image_size < 1, or a file is damaged, cut short or not the set's.
    """
    found = find(name, data_dir, download)
    if found is None:
        return tfds.load(name, data_dir, download, image_size, augment)
    return ArrayDataset.from_arrays(
        name,
        train=found.train,
        validation=found.test,
        num_classes=SETS[name].num_classes,
        image_size=image_size,
        augment=augment,
        source=found.source,
    )


def load_plain(
    name: str,
    data_dir: str | None = None,
    download: bool = False,
    image_size: int | None = None,
    pixel_mean: float | None = None,
    pixel_stddev: float | None = None,
    shuffle: bool = True,
) -> ArrayDataset:
    """A set as it is: `load` without augmentation.

    Args:
        name: see `load`.
        data_dir: see `load`.
        download: see `load`.
        image_size: see `load`.
        pixel_mean: see `standardized`; the pixels are in [0, 1].
        pixel_stddev: see `standardized`.
        shuffle: see `ArrayDataset`.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: see `load`.
        ConnectionError: see `load`.
        ValueError: see `load` and `standardized`.
    """
    plain = load(name, data_dir, download, image_size)
    plain = dataclasses.replace(plain, shuffle=shuffle)
    return standardized(plain, pixel_mean, pixel_stddev)


def find(name: str, data_dir: str | None, download: bool = False) -> Found | None:
    """Looks for a set's files in a folder and in those that are usual below it, and reads them.

    Files of the set that differ from the published ones are taken, with a warning.

    Args:
        name: a key of `SETS`.
        data_dir: a local folder, or an .npz file; None or gs://: nothing is looked for.
        download: the set may be fetched, so that files in another place are no matter.

    Returns:
        The set, or None where there is none of its files, or one that TensorFlow Datasets prepared.

    Raises:
        FileNotFoundError: some of the set's files are there, others are not; or they lie deeper.
        ValueError: a file is damaged, cut short, or another set's.
    """
    if data_dir is None or "://" in data_dir:
        return None
    known, folder = SETS[name], os.path.expanduser(data_dir)
    if os.path.isfile(folder):
        if "idx" not in known.train or not folder.endswith(".npz"):
            raise ValueError(
                f"Expected a folder with {name}. Received: the file {folder}. Give the folder it "
                "lies in."
            )
        return _from_npz(name, folder)
    if glob.glob(os.path.join(glob.escape(folder), name, "*", "dataset_info.json")):
        return None
    missing: list[str] = []
    beside = ""
    for place in (os.path.normpath(os.path.join(folder, below)) for below in known.folders):
        for form, trained in known.train.items():
            files = (*trained, *known.test[form])
            paths = [_path(place, file) for file in files]
            if None not in paths:
                return _from_files(name, form, place, files, paths)
            if any(paths) and not missing:
                beside = next(path for path in paths if path)
                missing = [f for f, path in zip(files, paths, strict=True) if not path]
        if "idx" in known.train and os.path.isfile(os.path.join(place, f"{name}.npz")):
            return _from_npz(name, os.path.join(place, f"{name}.npz"))
    if missing:
        states = dict.fromkeys(_state(os.path.dirname(beside), file) for file in missing)
        raise FileNotFoundError(
            f"Expected {', '.join(missing)} beside {beside}. Received: {', '.join(states)}. Copy "
            "what is missing there."
        )
    found = _from_folders(name, folder)
    if found is None:
        _check_packed(known, folder)
    if found is None and not download:
        _check_deeper(name, folder)
    return found


def _check_deeper(name: str, folder: str) -> None:
    """Names the folder within in which the set's files lie, where they do."""
    known = SETS[name]
    for place in folders.below(folder, levels=4):
        within = os.path.relpath(place, folder)
        # MNIST's files and Fashion-MNIST's have the same names.
        if ("fashion" in within.lower()) != ("fashion" in name) and "idx" in known.train:
            continue
        if any(all(_path(place, file) for file in files) for files in known.train.values()):
            raise FileNotFoundError(
                f"Expected {name} in {folder}. Received: its files deeper than they usually lie, "
                f"in {place}. Give that folder with --data_dir."
            )


def _check_packed(known: Published, folder: str) -> None:
    for archive in (os.path.join(folder, name) for name in known.archives):
        if os.path.isfile(archive):
            raise FileNotFoundError(
                f"Expected the files of {archive}. Received: the archive alone. Unpack it: tar "
                f"-xzf {shlex.quote(archive)} -C {shlex.quote(folder)}"
            )


def _from_folders(name: str, folder: str) -> Found | None:
    """The set as images in class folders, where there are as many as it has classes."""
    known = SETS[name]
    for place in (folder, os.path.join(folder, name)):
        found = folders.find(place)
        if found is None or len(folders.class_folders(found.train)) != known.num_classes:
            continue
        *splits, _, said = folders.read(found)
        shape = splits[0][0].shape[1:]
        if shape[:2] != known.image_shape[:2]:
            raise ValueError(
                f"{found.train}: Expected images of {name}, {known.image_shape[0]} x "
                f"{known.image_shape[1]} pixels. Received: {shape[0]} x {shape[1]}. For images of "
                "your own give --dataset=image_folder."
            )
        if known.image_shape[2] == 1:
            splits = folders.grey(found, splits)
        return Found(*splits, said)
    return None


def _path(folder: str, file: str) -> str | None:
    paths = _paths(folder, file)
    found = next((path for path in paths if os.path.isfile(path)), None)
    if found is None and os.path.isdir(folder):  # in capital letters, as some media have names
        there = {name.lower(): name for name in sorted(os.listdir(folder), reverse=True)}
        names = [there.get(os.path.relpath(path, folder).lower()) for path in paths]
        others = (os.path.join(folder, name) for name in names if name)
        found = next(filter(os.path.isfile, others), None)
    return found


def _paths(folder: str, file: str) -> list[str]:
    # As published, packed, as some archivers name it ("train-images.idx3-ubyte"), or in a folder
    # of its own name.
    dotted = file.replace("-idx", ".idx")
    names = (file, f"{file}.gz", dotted, f"{dotted}.gz", f"{file}/{file}", f"{dotted}/{dotted}")
    return [os.path.join(folder, name) for name in names]


def _state(folder: str, file: str) -> str:
    path = next((path for path in _paths(folder, file) if os.path.lexists(path)), None)
    if path is None:
        return "no such file"
    return "a link to nothing" if not os.path.exists(path) else f"{os.path.basename(path)}, no file"


def _from_files(
    name: str, form: str, place: str, files: Sequence[str], paths: Sequence[str]
) -> Found:
    known = SETS[name]
    contents = [array_files.unpacked(path) for path in paths]
    if form == "idx":
        ranks = (3, 1, 3, 1)
        arrays = [array_files.idx(*each) for each in zip(paths, contents, ranks, strict=True)]
        splits = _splits(name, arrays, paths)
    else:
        read = array_files.cifar_binary if form == "binary" else array_files.cifar_pickle
        batches = []
        for path, content in zip(paths, contents, strict=True):
            images, labels = read(path, content, known.num_classes)
            _check(known, images, labels, path, path)
            batches.append((images, labels))
        count = len(known.train[form])
        splits = _joined(batches[:count]), _joined(batches[count:])
    said = _compare(name, place, dict(zip(files, contents, strict=True)), splits)
    return Found(*splits, f"{len(files)} {_FORMS[form]} in {place}, {said}")


def _from_npz(name: str, path: str) -> Found:
    arrays = array_files.npz(path, array_files.unpacked(path))
    files = (*SETS[name].train["idx"], *SETS[name].test["idx"])
    ordered = [arrays[key] for key in ("x_train", "y_train", "x_test", "y_test")]
    splits = _splits(name, ordered, [path] * 4)
    contents = [array_files.to_idx(array) for array in ordered]
    said = _compare(name, path, dict(zip(files, contents, strict=True)), splits)
    return Found(*splits, f"{path}, {said}")


def _splits(name: str, arrays: Sequence[np.ndarray], paths: Sequence[str]) -> tuple[Split, Split]:
    train, test = ((arrays[i][..., None], arrays[i + 1]) for i in (0, 2))
    for i, split in enumerate((train, test)):
        _check(SETS[name], *split, paths[2 * i], paths[2 * i + 1])
    if train[0].shape[1:] != test[0].shape[1:]:
        raise ValueError(
            f"{paths[2]}: Expected images of the training split's size, {train[0].shape[1]} x "
            f"{train[0].shape[2]}. Received: {test[0].shape[1]} x {test[0].shape[2]}."
        )
    return train, test


def _check(
    known: Published, images: np.ndarray, labels: np.ndarray, images_path: str, labels_path: str
) -> None:
    if len(labels) != len(images):
        raise ValueError(
            f"{labels_path}: Expected {len(images)} labels, one for each image of {images_path}. "
            f"Received: {len(labels)}."
        )
    if labels.min() < 0 or labels.max() >= known.num_classes:
        raise ValueError(
            f"{labels_path}: Expected labels from 0 to {known.num_classes - 1}. Received: "
            f"{labels.min()} to {labels.max()}. It may be of another set."
        )


def _joined(batches: Sequence[Split]) -> Split:
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def _compare(name: str, place: str, contents: dict[str, bytes], splits: tuple[Split, Split]) -> str:
    # With the published files; those of a set that is like it would pass for it unseen, and the
    # test images under the name of the training images, too.
    owners = {file: recognise(content) for file, content in contents.items()}
    for file, owner in owners.items():
        if owner is not None and owner[0] != name:
            raise ValueError(
                f"{place}: Expected the files of {name}. Received: {file} of {owner[0]}. Give "
                f"--dataset={owner[0]}, or the folder of {name}."
            )
        if owner is not None and owner[1] != file:
            raise ValueError(
                f"{place}: Expected {file} of {name}. Received: {owner[1]} under that name. Give "
                "each file the name it was published with."
            )
    others = [file for file, owner in owners.items() if owner is None]
    if others:
        _log.warning(
            "%s: Expected the published files in %s. Received: other checksums of %s. They are "
            "taken as they are.",
            name, place, ", ".join(others),
        )  # fmt: skip
        check_pixels(place, splits[0][0])
        check_apart(place, *splits)
    return "with other checksums than the published" if others else "as published"
