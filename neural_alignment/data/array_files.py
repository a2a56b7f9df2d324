"""Readers of the files of small sets: IDX, Keras's .npz, CIFAR's binary and pickled batches.

Each takes a file's bytes, unpacked, and names it in what it raises. Nothing in a file is run.
"""

from __future__ import annotations

import gzip
import io
import math
import pickle
import re
import struct
import zipfile
import zlib
from typing import Any

import numpy as np

from neural_alignment.messages import told

Split = tuple[np.ndarray, np.ndarray]  # images uint8 [n, height, width, channels], labels [n]

_GZIP = b"\x1f\x8b"
_UNSIGNED_BYTE = 8  # IDX's code of the type of its elements
_WHOLE = {_UNSIGNED_BYTE: ">u1", 9: ">i1", 11: ">i2", 12: ">i4"}  # those of whole numbers
_CIFAR_PIXELS = 3 * 32 * 32
_COARSE = 20  # CIFAR-100's coarse classes
# Arrays of an .npz file and what else they are called, in small or capital letters.
_NPZ = {
    "x_train": ("x_train", "train_x", "train_images", "training_images"),
    "y_train": ("y_train", "train_y", "train_labels", "training_labels"),
    "x_test": ("x_test", "test_x", "test_images"),
    "y_test": ("y_test", "test_y", "test_labels"),
}


def unpacked(path: str) -> bytes:
    """A file's bytes; those of a gzip file, whatever its name, unpacked.

    Args:
        path: the file.

    Returns:
        The content.

    Raises:
        ValueError: a gzip file that is cut short or damaged.
        OSError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise OSError(
            f"{path}: Expected a file that can be read. Received: {error.strerror or error}."
        ) from error
    if content[:2] != _GZIP:
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{path}: Expected a complete gzip file. Received: {error}. Fetch it again."
        ) from error


def idx(path: str, content: bytes, rank: int) -> np.ndarray:
    """An IDX file's array: 0 0 type rank, the sizes as big-endian uint32, the elements.

    Args:
        path: the file's name, for messages.
        content: its bytes.
        rank: the array's number of axes: 3 of images, 1 of labels.

    Returns:
        uint8, of that rank; of other whole numbers where they are from 0 to 255. Images with an
        axis of one channel are taken, and labels as rows of one 1 among zeros.

    Raises:
        ValueError: another type or rank, other numbers, or another number of bytes than the sizes
            say.
    """
    kind, axes = content[2:4] if len(content) >= 4 else (0, 0)
    start = 4 + 4 * axes
    known = content[:2] == b"\0\0" and kind in _WHOLE and axes in (rank, rank + 1)
    if not known or len(content) < start:
        expected = bytes([0, 0, _UNSIGNED_BYTE, rank])
        raise ValueError(
            f"{path}: Expected an IDX file of unsigned bytes with {rank} axes, which begins with "
            f"{expected.hex(' ')}. Received: {_beginning(content)}. Fetch it again, or take it "
            "away."
        )
    shape = struct.unpack(f">{axes}I", content[4:start])
    count, of = math.prod(shape), np.dtype(_WHOLE[kind]).itemsize
    if len(content) != start + count * of or not count:
        raise ValueError(
            f"{path}: Expected {start + count * of} bytes, {start} and those of "
            f"{' x '.join(map(str, shape))}{f' numbers of {of} bytes' if of > 1 else ''}"
            f"{'' if count else ', at least one'}. Received: {len(content)}. Fetch it again."
        )
    array = np.frombuffer(content, _WHOLE[kind], offset=start).reshape(shape)
    return _bytes(path, "images" if rank == 3 else "labels", array, rank)


def to_idx(array: np.ndarray) -> bytes:
    """The IDX file that holds an array.

    Args:
        array: uint8.

    Returns:
        The file's bytes.
    """
    head = bytes([0, 0, _UNSIGNED_BYTE, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


def npz(path: str, content: bytes) -> dict[str, np.ndarray]:
    """The arrays of a file as Keras's mnist.npz.

    Args:
        path: the file's name, for messages.
        content: its bytes.

    Returns:
        x_train, x_test (uint8 [n, height, width]), y_train, y_test (uint8 [n]); as `idx` makes
        them. Arrays of other usual names, as train_images, are taken for these.

    Raises:
        ValueError: it is cut short or damaged, or has other arrays.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            names = {name.lower(): name for name in file.files}
            found = {}
            for wanted, others in _NPZ.items():
                name = next((names[other] for other in others if other in names), None)
                if name is None:
                    raise ValueError(f"no {wanted}, but {', '.join(file.files) or 'nothing'}")
                found[wanted] = file[name]
    # NotImplementedError: packed in another way; AttributeError: one array, as of an .npy file.
    except (EOFError, KeyError, OSError, TypeError, ValueError, zipfile.BadZipFile, zlib.error,
            NotImplementedError, AttributeError) as error:  # fmt: skip
        raise ValueError(
            f"{path}: Expected an .npz file with the arrays {', '.join(_NPZ)}, as Keras keeps it. "
            f"Received: {told(error)}. Fetch it again, or take it away."
        ) from error
    return {
        name: _bytes(path, name, array, 3 if name[0] == "x" else 1) for name, array in found.items()
    }


def _bytes(path: str, name: str, array: np.ndarray, rank: int) -> np.ndarray:
    # Labels are often saved as int64, images with their one channel; the bytes are the same.
    flat = _without_channel(array) if rank == 3 else _numbered(array)
    whole = np.issubdtype(flat.dtype, np.integer) and flat.ndim == rank and flat.size
    if not whole or flat.min() < 0 or flat.max() > 255:
        found = f", {flat.min()} to {flat.max()}" if whole else ""
        raise ValueError(
            f"{path}: Expected {name} of unsigned bytes with {rank} axes, or whole numbers that "
            f"are such. Received: {array.dtype} {list(array.shape)}{found}."
        )
    return flat.astype(np.uint8, copy=False)


def _without_channel(images: np.ndarray) -> np.ndarray:
    """Images [n, height, width] of those with an axis of one channel, last or after the first."""
    if images.ndim != 4 or 1 not in (images.shape[3], images.shape[1]):
        return images
    return images[..., 0] if images.shape[3] == 1 else images[:, 0]


def _numbered(labels: np.ndarray) -> np.ndarray:
    """Labels [n] of a column, of rows with one 1 among zeros, or of whole numbers as floats."""
    if labels.dtype.kind == "f" and labels.size and (labels == np.round(labels)).all():
        labels = labels.astype(np.int64) if np.abs(labels).max() < 1e9 else labels
    if labels.ndim != 2:
        return labels
    if labels.shape[1] == 1:
        return labels[:, 0]
    one_hot = np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()
    return labels.argmax(axis=1) if one_hot else labels


def cifar_binary(path: str, content: bytes, num_classes: int) -> Split:
    """A batch of CIFAR's binary version: label (two in CIFAR-100), red, green and blue planes.

    Args:
        path: the file's name, for messages.
        content: its bytes.
        num_classes: 10; or 100, where a coarse label precedes.

    Returns:
        Images [n, 32, 32, 3] and labels, the fine ones.

    Raises:
        ValueError: not a whole number of records, or a coarse label out of range.
    """
    labels = 1 if num_classes == 10 else 2
    record = labels + _CIFAR_PIXELS
    if not content or len(content) % record:
        raise ValueError(
            f"{path}: Expected records of {record} bytes. Received: {len(content)} bytes, "
            f"{len(content) // record} records and {len(content) % record} more. Fetch it again."
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, record)
    if labels == 2 and rows[:, 0].max() >= _COARSE:
        raise ValueError(
            f"{path}: Expected coarse labels from 0 to {_COARSE - 1} first in each record. "
            f"Received: {rows[:, 0].max()}. It may be of another set."
        )
    return _planes(rows[:, labels:]), rows[:, labels - 1]


def cifar_pickle(path: str, content: bytes, num_classes: int) -> Split:
    """A batch of CIFAR's Python version, read without running what a pickle may hold.

    Args:
        path: the file's name, for messages.
        content: its bytes.
        num_classes: 10, or 100 for the fine labels.

    Returns:
        Images [n, 32, 32, 3] and labels.

    Raises:
        ValueError: it is cut short or damaged, asks for anything but NumPy arrays, or holds
            something else.
    """
    key = "labels" if num_classes == 10 else "fine_labels"
    try:
        batch = _Arrays(io.BytesIO(content), encoding="latin1").load()
        batch = {_text(name): value for name, value in batch.items()}
        pixels, labels = (_array(batch[name]) for name in ("data", key))
    except Exception as error:  # a damaged pickle may raise anything
        raise ValueError(
            f"{path}: Expected a pickled batch of CIFAR with data and {key}. Received: "
            f"{told(error)}. Fetch it again, or take the binary version."
        ) from error
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != _CIFAR_PIXELS:
        raise ValueError(
            f"{path}: Expected data uint8 [n, {_CIFAR_PIXELS}]. Received: {pixels.dtype} "
            f"{list(pixels.shape)}."
        )
    if labels.shape != pixels.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{path}: Expected {len(pixels)} integers as {key}. Received: {labels.dtype} "
            f"{list(labels.shape)}."
        )
    return _planes(pixels), labels


class _Arrays(pickle.Unpickler):
    """Looks up what arrays are pickled with, as stand-ins of this module, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _Array
        if (module, name) == ("numpy", "ndarray"):
            return None  # only ever handed on
        if (module, name) == ("numpy", "dtype"):
            return _Type
        if (module, name) == ("_codecs", "encode"):
            return str.encode  # how Python 3 writes bytes in protocol 2
        raise pickle.UnpicklingError(f"a call of {module}.{name}, which is not made")


class _Type:
    """What a pickle calls numpy.dtype with: a code as "u1", the byte order in the state."""

    def __init__(self, code: str | bytes, *flags: int) -> None:
        self.code, self.order = _text(code), "|"

    def __setstate__(self, state: tuple) -> None:
        self.order = _text(state[1])

    def numbers(self) -> np.dtype:
        if not re.fullmatch("[uif][1248]", self.code) or self.order not in ("|", "<", ">"):
            raise pickle.UnpicklingError("an array of other things than numbers")
        return np.dtype(self.order.replace("|", "=") + self.code)


class _Array:
    """What a pickle makes an array with, and its state: version, shape, type, order, bytes."""

    def __init__(self, kind: None, shape: tuple[int, ...], code: str | bytes) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, content = state
        if isinstance(content, str):  # Python 2's, read as latin1
            content = content.encode("latin1")
        flat = np.frombuffer(content, kind.numbers())
        self.value = flat.reshape(shape, order="F" if fortran else "C")


def _text(name: Any) -> str:
    return name.decode("latin1") if isinstance(name, bytes) else str(name)


def _array(value: Any) -> np.ndarray:
    if isinstance(value, _Array):
        value = value.value
    if value is None:
        raise ValueError("an array without its numbers")
    return value if isinstance(value, np.ndarray) else np.asarray(value, np.int64)


def _planes(rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _beginning(content: bytes) -> str:
    return content[:4].hex(" ") if content else "an empty file"
