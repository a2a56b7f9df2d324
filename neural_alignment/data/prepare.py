"""Turns folders of images, or ImageNet's archives, into the TFRecord shards `imagenet` reads.

A plan comes first: every image with its label and where its bytes lie (a file, or a span of an
archive), in an order that depends on nothing but the names. Shards are then written one by one
under a temporary name and renamed when complete, so that the same call goes on where it stopped.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import random
from collections.abc import Callable, Iterator, Sequence

from neural_alignment.atomic import write_text
from neural_alignment.data.claim import (
    LABELS,
    MANIFEST,
    PLAN,
    UNREADABLE,
    alone,
    check_space,
    claim,
    plan,
    storage,
)
from neural_alignment.data.encode import FORMATS, example, to_jpeg
from neural_alignment.data.sources import Image, images, summary
from neural_alignment.data.tfrecords import index_shard
from neural_alignment.lazy import tf
from neural_alignment.messages import one_line

__all__ = [
    "FORMATS", "LABELS", "MANIFEST", "PLAN", "UNREADABLE", "Image", "example", "images",
    "summary", "to_jpeg", "write",
]  # fmt: skip


def write(
    splits: dict[str, Sequence[Image]],
    classes: Sequence[str],
    output_dir: str,
    shards: dict[str, int],
    layout: str = "usual",
    max_unreadable: int = 0,
    workers: int | None = None,
    progress: Callable[[str, int], None] | None = None,
) -> dict:
    """Writes the shards, labels.txt and manifest.json; called again, goes on where it was stopped.

    Every image is decoded once, to see that it can be; PNGs, CMYK JPEGs, images that lie on a side
    and the like are encoded again as upright RGB JPEGs. Within a split the images are shuffled, the
    same way every time: equal images give equal bytes.

    Args:
        splits: the images of "train" and "validation".
        classes: the class names in the order of their labels.
        output_dir: the folder; made if it is not there.
        shards: the number of files of each split.
        layout: "usual" or "original", the features' names.
        max_unreadable: how many images that cannot be decoded may be left out; their names are in
            unreadable.txt.
        workers: threads that read and check images; None: one a core.
        progress: called with a split and a number of images that were written, or found written.

    Returns:
        The manifest.

    Raises:
        ValueError: an option makes no sense, too many images cannot be read, or the folder holds
            something else.
        LockedError: another process prepares into the folder.
        OSError: the disk is full, now or foreseeably, or cannot be written to.
    """
    _check_options(splits, classes, shards, layout, max_unreadable)
    with alone(output_dir):
        claim(output_dir, plan(splits, classes, shards, layout))
        check_space(splits, shards, output_dir)
        with storage(output_dir):
            write_text(os.path.join(output_dir, LABELS), "".join(f"{name}\n" for name in classes))
        unreadable = _Unreadable(os.path.join(output_dir, UNREADABLE), max_unreadable)
        manifest = {"num_classes": len(classes), "layout": layout, "splits": {}}
        with concurrent.futures.ThreadPoolExecutor(workers or os.cpu_count()) as pool:
            for split, found in splits.items():
                counts = manifest["splits"][split] = {}
                for path, part in _shards(split, found, shards[split], output_dir):
                    counts[os.path.basename(path)] = (
                        index_shard(path).records  # complete, or it would not have this name
                        if os.path.exists(path)
                        else _write_shard(path, part, classes, layout, pool, unreadable)
                    )
                    if progress is not None:
                        progress(split, len(part))
        manifest["unreadable"] = sorted(unreadable.names)
        with storage(output_dir):
            write_text(os.path.join(output_dir, MANIFEST), json.dumps(manifest, indent=1))
    return manifest


def _check_options(
    splits: dict[str, Sequence[Image]],
    classes: Sequence[str],
    shards: dict[str, int],
    layout: str,
    max_unreadable: int,
) -> None:
    broken = [name for name in classes if len(name.splitlines()) > 1]
    if broken:
        raise ValueError(
            f"Expected names of classes of one line, which {LABELS} has. Received: {broken[0]!r}. "
            "Give the folder another name."
        )
    if layout not in FORMATS:
        raise ValueError(f"Expected a layout: {', '.join(sorted(FORMATS))}. Received: {layout!r}.")
    if max_unreadable < 0:
        raise ValueError(f"Expected max_unreadable >= 0. Received: {max_unreadable}.")
    for split, found in splits.items():
        if not 1 <= shards[split] <= len(found):
            raise ValueError(
                f"Expected 1 to {len(found)} {split} shards, one image each at least. Received: "
                f"{shards[split]}."
            )


def _shards(
    split: str, found: Sequence[Image], count: int, output_dir: str
) -> Iterator[tuple[str, Sequence[Image]]]:
    order = list(found)
    random.Random(0).shuffle(order)
    for number in range(count):
        name = f"{split}-{number:05d}-of-{count:05d}"
        yield os.path.join(output_dir, name), order[number::count]


class _Unreadable:
    """The images left out, those of finished shards in a file: a call that goes on knows them."""

    def __init__(self, path: str, limit: int) -> None:
        self._path, self._limit = path, limit
        self.names: set[str] = set()
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                self.names = set(file.read().splitlines())

    def add(self, name: str, why: str) -> None:
        self.names.add(name)
        if len(self.names) > self._limit:
            raise ValueError(
                f"{name}: Expected an image that can be decoded. Received: {why}. Replace it, or"
                f" allow more such images with --max_unreadable (now {self._limit})."
            )

    def save(self) -> None:
        if self.names:
            write_text(self._path, "".join(f"{each}\n" for each in sorted(self.names)))


def _write_shard(
    path: str,
    part: Sequence[Image],
    classes: Sequence[str],
    layout: str,
    pool: concurrent.futures.Executor,
    unreadable: _Unreadable,
) -> int:
    def prepare(image: Image) -> bytes | Exception:
        try:
            jpeg, height, width = to_jpeg(image.read())
        except (tf.errors.OpError, OSError) as error:
            return error
        extra = {
            "image__format": b"JPEG",
            "image__height": height,
            "image__width": width,
            "image__filename": os.fsencode(os.path.basename(image.name)),
            "image__class__synset": os.fsencode(classes[image.label]),
        }
        return example(jpeg, image.label, layout, **(extra if layout == "usual" else {}))

    count = 0
    try:
        with storage(os.path.dirname(path)), tf.io.TFRecordWriter(f"{path}.part") as writer:
            for image, record in zip(part, pool.map(prepare, part), strict=True):
                if isinstance(record, Exception):
                    unreadable.add(image.name, one_line(record))
                    continue
                writer.write(record)
                count += 1
    except OSError:
        with contextlib.suppress(OSError):
            os.remove(f"{path}.part")  # the room is wanted
        raise
    if not count:
        raise ValueError(f"{path}: Expected images in every shard. Received: unreadable ones only.")
    with storage(os.path.dirname(path)):
        unreadable.save()  # first: it is not asked again once the shard has its name
        os.replace(f"{path}.part", path)
    return count
