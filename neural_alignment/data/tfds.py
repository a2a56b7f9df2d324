"""Small image sets through TensorFlow Datasets, read into memory."""

from __future__ import annotations

import glob
import os
import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np

from neural_alignment import extras
from neural_alignment.data.arrays import ArrayDataset, Augment
from neural_alignment.data.published import ARCHIVES, SETS, described
from neural_alignment.messages import contents, told

NUM_CLASSES = {name: known.num_classes for name, known in SETS.items()}
TIMEOUT = 10.0  # seconds to wait for a set's server before saying that it is out of reach


def load(
    name: str,
    data_dir: str | None = None,
    download: bool = False,
    image_size: int | None = None,
    augment: Augment | None = None,
) -> ArrayDataset:
    """Loads a set's train and test splits; the test split validates.

    Args:
        name: a key of `NUM_CLASSES`.
        data_dir: the folder TensorFlow Datasets keeps its sets in; None: its own default.
        download: fetch and prepare the set there, if it is not there yet.
        image_size: resize to this many pixels a side, bilinearly; None keeps the set's own.
        augment: see `ArrayDataset`.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: the set is not in the folder, and download is False.
        ConnectionError: download, and the set's server cannot be reached, or does not deliver it.
        ValueError: image_size < 1, or what is in the folder is damaged, or not the set.
    """
    builder = prepared_builder(name, data_dir, download, f"{described(name)}, or ")
    return ArrayDataset.from_arrays(
        name,
        train=_read(builder, "train"),
        validation=_read(builder, "test"),
        num_classes=NUM_CLASSES[name],
        image_size=image_size,
        augment=augment,
        source=f"{builder.data_dir}, prepared by TensorFlow Datasets",
    )


def prepared_builder(
    name: str, data_dir: str | None = None, download: bool = False, others: str = ""
) -> Any:
    """A TensorFlow Datasets builder whose data is on disk.

    Args:
        name: the set's name there.
        data_dir: the folder with the sets; None: TensorFlow Datasets' own default.
        download: fetch and prepare the set, if it is not there yet.
        others: what else would have been taken from the folder, for the message.

    Returns:
        The `tfds.core.DatasetBuilder`.

    Raises:
        FileNotFoundError: the set is not in the folder, and download is False.
        ConnectionError: download, and the set's server cannot be reached, or does not deliver it.
        ImportError: TensorFlow, TensorFlow Datasets or what that needs is not installed.
        ValueError: what is in the folder is damaged.
    """
    if lacking := extras.missing("tensorflow", "tensorflow_datasets", "requests"):
        raise extras.MissingPackageError(
            f"Expected the data set {name!r}: {others}prepared by TensorFlow Datasets, which needs "
            f"{extras.called(lacking)}. Received: no module named {', '.join(lacking)}. "
            f"{extras.line(lacking)} Or give a folder with the set's files."
        )
    import tensorflow as tf
    import tensorflow_datasets as tfds

    if data_dir is not None:
        data_dir = os.path.expanduser(data_dir)
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except (OSError, tf.errors.OpError, tfds.core.DatasetNotFoundError):
        raise  # these say what they are
    except Exception as error:
        where = os.path.join(data_dir or tfds.core.constants.DATA_DIR, name)
        raise ValueError(
            f"Expected the data set {name!r} in {where}, as TensorFlow Datasets prepares it. "
            f"Received: {told(error)}. Remove that folder and prepare the set again."
        ) from error
    if builder.info.splits:
        return builder
    where = builder.data_dir
    if not download:
        folder = f" --data_dir={shlex.quote(data_dir)}" if data_dir is not None else ""
        local = data_dir is not None and "://" not in data_dir
        there = f" in {data_dir} ({contents(data_dir)})" if local else ""
        raise FileNotFoundError(
            f"Expected the data set {name!r}: {others}prepared by TensorFlow Datasets in {where}. "
            f"Received: no such data{there}. Give the folder that holds it with --data_dir, or "
            f"fetch it over the network with --dataset={name}{folder} --download."
        )
    _prepare(name, builder)
    return builder


def _prepare(name: str, builder: Any) -> None:
    import tensorflow as tf

    archives, where = ARCHIVES.get(name, ()), builder.data_dir
    if archives:
        _check_archives(name, builder, archives)
    elif not _at_hand(builder):
        _check_reachable(name, builder)
    try:
        builder.download_and_prepare()
    except (OSError, tf.errors.OpError) as error:
        raise OSError(
            f"{where}: Expected to write the data set {name!r} there. Received: {told(error)}. See "
            "that there is space, and that this folder may be written."
        ) from error
    except Exception as error:
        raise ConnectionError(
            f"Expected to download and prepare the data set {name!r}. Received: {told(error)}. "
            f"Try again later, or copy a prepared set to {where}, or give its folder with "
            "--data_dir."
        ) from error


def _downloads(builder: Any) -> str:
    return os.path.join(builder.data_dir_root, "downloads")


def _check_archives(name: str, builder: Any, archives: Sequence[str]) -> None:
    # Without one of them its split would be left out, after hours.
    folder = os.path.join(_downloads(builder), "manual")
    missing = [each for each in archives if not os.path.isfile(os.path.join(folder, each))]
    if missing:
        raise FileNotFoundError(
            f"Expected {' and '.join(archives)} in {folder}, from which {name} is prepared. "
            f"Received: no {' and no '.join(missing)}. They are to be had from image-net.org, with "
            "registration."
        )


def _at_hand(builder: Any) -> bool:
    """Whether every file of the set was downloaded before, or put beside the downloads by hand."""
    from tensorflow_datasets.core.download.resource import get_dl_fname

    folder = _downloads(builder)
    for url, info in builder.url_infos.items():
        by_hand = os.path.join(folder, "manual", info.filename or get_dl_fname(url, info.checksum))
        pattern = os.path.join(glob.escape(folder), "**", get_dl_fname(url, info.checksum))
        if not os.path.isfile(by_hand) and not glob.glob(pattern, recursive=True):
            return False
    return bool(builder.url_infos)


def _check_reachable(name: str, builder: Any) -> None:
    # The downloader retries for minutes when there is no network; one request tells at once.
    import requests

    for url in list(builder.url_infos)[:1]:
        try:
            requests.head(url, timeout=TIMEOUT, allow_redirects=True)
        except requests.RequestException as error:
            raise ConnectionError(
                f"Expected a network connection to download the data set {name!r}. Received: "
                f"no answer from {url}. Without a network, copy a prepared "
                f"set to {builder.data_dir}, or give its folder with --data_dir."
            ) from error


def _read(builder: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
    import tensorflow as tf
    import tensorflow_datasets as tfds

    if split not in builder.info.splits or not builder.info.splits[split].num_examples:
        raise ValueError(
            f"Expected a split {split!r} with examples in {builder.data_dir}. "
            f"Received: {dict.fromkeys(builder.info.splits)}."
        )
    try:
        # Files in order and one whole batch: the arrays, hence a run, are the same every time.
        images, labels = tfds.as_numpy(
            builder.as_dataset(split=split, batch_size=-1, as_supervised=True, shuffle_files=False)
        )
    except tf.errors.OpError as error:
        raise _damage(builder, split, told(error)) from error
    if len(images) != builder.info.splits[split].num_examples:
        raise _damage(builder, split, f"{len(images)} examples")
    return images, labels


def _damage(builder: Any, split: str, received: str) -> ValueError:
    """What is wrong with a split that could not be read as a whole, with the shard's name."""
    import tensorflow as tf

    again = f"Remove {builder.data_dir} and prepare the set again."
    info = builder.info.splits[split]
    for path, due in zip(map(os.fspath, info.filepaths), info.shard_lengths, strict=True):
        index = 0
        try:
            for record in tf.data.TFRecordDataset(path):
                builder.info.features.deserialize_example(record)
                index += 1
        except tf.errors.OpError as error:
            return ValueError(
                f"{path}, record {index}: Expected a record that can be read. Received: "
                f"{told(error)}. {again}"
            )
        if index != due:
            return ValueError(f"{path}: Expected {due} records. Received: {index}. {again}")
    return ValueError(
        f"{builder.data_dir}: Expected {info.num_examples} examples in the split {split}. "
        f"Received: {received}. {again}"
    )
