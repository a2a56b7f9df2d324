"""Small data sets in ImageNet's format, and ways to damage them."""

import importlib.util
import io
import json
import pathlib
import tarfile

import tensorflow as tf

ROOT = pathlib.Path(__file__).parents[2]


def script(name, folder="scripts"):
    """A script of the repository, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make(folder, **options):
    """Digits as JPEGs: 96 and 45 of them in 4 and 2 shards, unless told otherwise."""
    options = {"limit": 96, "train_shards": 4, "validation_shards": 2} | options
    limit = options.pop("limit")
    script("make_digits_tfrecords").make(str(folder), limit=limit, **options)
    manifest = json.loads((folder / "manifest.json").read_text())
    return {split: sum(counts.values()) for split, counts in manifest["splits"].items()}


def read(path):
    return [record.numpy() for record in tf.data.TFRecordDataset(str(path))]


def write(path, records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def edit(record, images=None, labels=None):
    """The record with another image or label; features of the original layout."""
    example = tf.train.Example.FromString(record)
    feature = example.features.feature
    if images is not None:
        feature["images"].bytes_list.value[0] = images
    if labels is not None:
        feature["labels"].int64_list.value[0] = labels
    return example.SerializeToString()


def image_of(record):
    return tf.train.Example.FromString(record).features.feature["images"].bytes_list.value[0]


def corrupt(path, *indices):
    """Cuts the JPEGs of these records in half."""
    records = read(path)
    for index in indices:
        jpeg = image_of(records[index])
        records[index] = edit(records[index], images=jpeg[: len(jpeg) // 2])
    write(path, records)


def archive(path, members):
    """Writes a tar file of (name, content) members; its bytes."""
    with tarfile.open(path, "w") as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path.read_bytes()
