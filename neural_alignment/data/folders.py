"""A small set of images in class folders, read into memory as it is: nothing is prepared first."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import glob
import logging
import os
import shlex
from collections.abc import Iterator, Sequence

import numpy as np

from neural_alignment import extras
from neural_alignment.data import sources
from neural_alignment.data.array_files import Split
from neural_alignment.data.arrays import ArrayDataset, check_apart, check_pixels
from neural_alignment.data.encode import decode
from neural_alignment.data.sources import Image
from neural_alignment.data.splits import TRAIN, VALIDATION
from neural_alignment.lazy import tf
from neural_alignment.messages import contents, one_line, size

_log = logging.getLogger(__name__)

LIMIT = 1 << 30  # bytes of pixels; a larger set is prepared, and read as it is trained on
HELD_OUT = 5  # one image of so many of each class validates, where no folder does


@dataclasses.dataclass(frozen=True)
class Folders:
    """Where the images of a set lie.

    Args:
        train: a folder of class folders.
        validation: another; None: a part of `train` is to be held out.
        others: of class folders as well, with names that another one of these was taken for.
    """

    train: str
    validation: str | None
    others: tuple[str, ...] = ()


def load(
    name: str,
    data_dir: str | None = None,
    image_size: int | None = None,
    shuffle: bool = True,
) -> ArrayDataset:
    """Images in class folders, pixels in [0, 1]; grey ones have one channel.

    Below the folder `train` and `validation` (or val, test) hold the class folders. Where there are
    class folders alone, one image in five of each class is held out, the same every time. Classes
    sorted by name get the labels 0, 1, ...

    Args:
        name: the data set's name.
        data_dir: the folder.
        image_size: resize every image to this many pixels a side, bilinearly; None: they are of one
            size, which is kept.
        shuffle: see `ArrayDataset`.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: no folder given, or none of class folders of images.
        ValueError: an image cannot be decoded, sizes differ, classes differ between the splits, or
            the set is too large to be kept in memory.
    """
    if data_dir is None:
        raise FileNotFoundError(
            "Expected a folder of class folders of images. Received: none. Give it with --data_dir."
        )
    if image_size is not None and image_size < 1:
        raise ValueError(f"Expected image_size >= 1. Received: {image_size}.")
    extras.require(f"the data set {name!r}, from images in folders,", "PIL")
    folder = os.path.expanduser(data_dir)
    found = find(folder)
    if found is None:
        raise FileNotFoundError(
            f"Expected class folders of images ({' '.join(sources.ENDINGS)}), or folders train and "
            f"validation of such, in {folder}. Received: {contents(folder)}"
            f"{_of_other_kinds(folder)}. Give {_within(folder) or 'another folder'} with "
            "--data_dir."
        )
    train, validation, classes, said = read(found, image_size)
    if all(_is_grey(images) for images, _ in (train, validation)):
        train, validation = grey(found, (train, validation))
    made = ArrayDataset.from_arrays(
        name, train, validation, len(classes), image_size=image_size, source=said
    )
    return dataclasses.replace(made, shuffle=shuffle)


def find(folder: str) -> Folders | None:
    """Looks for class folders of images in a folder, or in its parts for training and validation.

    Args:
        folder: a local folder.

    Returns:
        What there is, or None.

    Raises:
        ValueError: beside class folders for training there is a folder for validation without any.
    """
    train, _ = _parts(folder, TRAIN)
    if not train:
        return Folders(folder, None) if class_folders(folder) else None
    validation, without = _parts(folder, VALIDATION)
    if without and not validation:
        raise ValueError(
            f"{without[0]}: Expected class folders of images, as in {train[0]}. Received: "
            f"{contents(without[0])}. Put the images into folders of their classes, or "
            "take the folder away: then a part of the training images validates."
        )
    others = (*train[1:], *validation[1:])
    return Folders(train[0], validation[0] if validation else None, others)


def _parts(folder: str, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The folders of these names with class folders in them, and those without."""
    there = os.listdir(folder) if os.path.isdir(folder) else []
    found = sorted((n for n in there if n.lower() in names), key=lambda n: names.index(n.lower()))
    places = [path for path in (os.path.join(folder, n) for n in found) if os.path.isdir(path)]
    return [p for p in places if class_folders(p)], [p for p in places if not class_folders(p)]


def _of_other_kinds(folder: str) -> str:
    """What the folders in one without images hold instead, in words."""
    there = glob.glob(os.path.join(glob.escape(folder), "*", "*"))
    files = [path for path in there if os.path.isfile(path)]
    return f", which hold {sources.summary(files)}" if files else ""


def _within(folder: str) -> str | None:
    """The first folder below one that holds no class folders itself, which does."""
    places = below(folder, levels=3)
    return next((p for p in places if _parts(p, TRAIN)[0] or class_folders(p)), None)


def below(folder: str, levels: int) -> Iterator[str]:
    """The folders below one, each before those in it, sorted by name.

    Args:
        folder: where to look.
        levels: how far down.

    Yields:
        Their paths.
    """
    for place, inside, _ in os.walk(folder):
        inside.sort()
        if place == folder:
            continue
        if os.path.relpath(place, folder).count(os.sep) >= levels - 1:
            inside.clear()
        yield place


def class_folders(folder: str) -> list[str]:
    """The folders with images directly in them.

    Args:
        folder: where to look.

    Returns:
        Their names, sorted; none where there is no such folder.
    """
    return sources.class_folders(folder) if os.path.isdir(folder) else []


def listing(found: Folders) -> tuple[list[Image], list[Image], list[str], str]:
    """The images of both splits.

    Args:
        found: where they are.

    Returns:
        Those of training and of validation, the classes, and what was found in words.

    Raises:
        ValueError: classes differ between the splits, or there are too few images or classes.
    """
    train, classes = _listed(found.train, None)
    said = f"{len(train)} images of {len(classes)} classes in {found.train}"
    if found.validation is None:
        train, validation = _held_out(train)
        said += f", one in {HELD_OUT} of each class held out for validation"
    else:
        if os.path.samefile(found.train, found.validation):
            raise ValueError(
                f"{found.validation}: Expected other images than those in {found.train}. Received: "
                "the same folder."
            )
        validation, _ = _listed(found.validation, classes)
        said += f", {len(validation)} for validation in {found.validation}"
    check_two_classes(classes, found.train)
    if not train or not validation:
        raise ValueError(
            f"Expected at least {HELD_OUT} images of some class in {found.train}, one of which "
            "validates. Received: fewer. Give folders train and validation."
        )
    if found.others:
        _log.warning("Left out are %s. There are %s.", ", ".join(found.others), said)
    unseen = set(range(len(classes))) - {image.label for image in validation}
    if unseen:
        _log.warning(
            "%s: no validation images of %s.",
            found.validation or found.train, ", ".join(classes[label] for label in sorted(unseen)),
        )  # fmt: skip
    return train, validation, classes, said


def check_two_classes(classes: Sequence[str], source: str) -> None:
    """Refuses a set of one class.

    Args:
        classes: the class names.
        source: what they were found in.

    Raises:
        ValueError: there is one alone.
    """
    if len(classes) < 2:
        raise ValueError(
            f"Expected two class folders or more in {source}. Received: {classes[0]} alone, "
            "with nothing to tell it from. Give the folder that holds the classes."
        )


def read(found: Folders, image_size: int | None = None) -> tuple[Split, Split, list[str], str]:
    """Reads the images of both splits.

    Args:
        found: where they are.
        image_size: pixels a side that all are resized to; None: they are of one size.

    Returns:
        Images uint8 [n, height, width, 3] and labels of training and validation, the classes, and
        what was read in words.

    Raises:
        ValueError: see `load`.
    """
    train, validation, classes, said = listing(found)
    splits = _decoded(found, (train, validation), image_size)
    where = found.validation or found.train
    check_pixels(where, splits[0][0])
    check_apart(where, *splits)
    return *splits, classes, said


def grey(found: Folders, splits: Sequence[Split]) -> list[Split]:
    """Grey images with one channel in the place of three.

    Args:
        found: where they are, for the message.
        splits: images [n, height, width, 3] and labels, twice.

    Returns:
        Images [n, height, width, 1] and labels.

    Raises:
        ValueError: one of them has colours.
    """
    if not all(_is_grey(images) for images, _ in splits):
        raise ValueError(f"Expected grey images in {found.train}. Received: some with colours.")
    return [(np.ascontiguousarray(images[..., :1]), labels) for images, labels in splits]


def preparation(found: Folders) -> str:
    """The commands that train on a set of any size.

    Args:
        found: where its images are.

    Returns:
        A sentence's end.
    """
    train, validation = shlex.quote(found.train), shlex.quote(found.validation or "VALIDATION")
    return (
        f"neural-alignment prepare --train={train} --validation={validation} "
        "--output_dir=DATA, then --dataset=imagenet --data_dir=DATA"
    )


def _listed(folder: str, classes: Sequence[str] | None) -> tuple[list[Image], list[str]]:
    left_out: list[str] = []
    found, classes = sources.images(folder, classes, left_out=left_out.append)
    if left_out:
        _log.warning("%s, left out: %s", folder, sources.summary(left_out))
    return found, classes


def _held_out(found: Sequence[Image]) -> tuple[list[Image], list[Image]]:
    # Shuffled first, as images that follow each other are often alike. RandomState's stream is
    # frozen by NumPy's policy, so the split never changes.
    order = np.random.RandomState(0).permutation(len(found))
    seen: dict[int, int] = {}
    parts: tuple[list[Image], list[Image]] = ([], [])
    for image in (found[index] for index in order):
        seen[image.label] = seen.get(image.label, 0) + 1
        parts[seen[image.label] % HELD_OUT == 0].append(image)
    return tuple(sorted(part, key=lambda image: image.name) for part in parts)


def _decoded(
    found: Folders, splits: Sequence[Sequence[Image]], image_size: int | None
) -> list[Split]:
    if image_size is None:
        first = splits[0][0]
        shape, why = _pixels(first, None).shape, f"the size of {first.path}"
    else:
        shape, why = (image_size, image_size, 3), "its size"
    needed = sum(map(len, splits)) * int(np.prod(shape))
    if needed > LIMIT:
        raise ValueError(
            f"Expected images of {size(LIMIT)} at most in memory. Received: {size(needed)} in "
            f"{found.train}. Give a smaller --image_size, or prepare the set: {preparation(found)}."
        )
    made = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for split in splits:
            images = np.empty((len(split), *shape), np.uint8)
            decoded = pool.map(lambda image: _pixels(image, image_size), split)
            for index, pixels in enumerate(decoded):
                if pixels.shape != shape:
                    raise ValueError(
                        f"{split[index].path}: Expected {why}, {shape[0]} x {shape[1]} pixels. "
                        f"Received: {pixels.shape[0]} x {pixels.shape[1]}. Give --image_size, to "
                        "which all are resized."
                    )
                images[index] = pixels
            made.append((images, np.array([image.label for image in split], np.int32)))
    return made


def _pixels(image: Image, image_size: int | None) -> np.ndarray:
    try:
        pixels = decode(image.read())
    except (OSError, tf.errors.OpError) as error:
        raise ValueError(
            f"{image.path}: Expected an image that can be decoded. Received: {one_line(error)}. "
            "Replace it, or take it away."
        ) from error
    if image_size is None or pixels.shape[:2] == (image_size, image_size):
        return pixels
    with tf.device("CPU:0"):
        resized = tf.image.resize(pixels, [image_size] * 2, antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8).numpy()


def _is_grey(images: np.ndarray) -> bool:
    return all((image == image[..., :1]).all() for image in images)
