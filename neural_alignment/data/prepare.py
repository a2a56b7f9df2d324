"""Turns folders of images, or ImageNet's archives, into the TFRecord shards `imagenet` reads.

A plan comes first: every image with its label and where its bytes lie (a file, or a span of an
archive), in an order that depends on nothing but the names. Shards are then written one by one
under a temporary name and renamed when complete, so that the same call goes on where it stopped.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import hashlib
import json
import os
import random
import re
import shutil
import tarfile
from collections.abc import Callable, Iterable, Sequence

from neural_alignment.data.tfrecords import LAYOUTS, index_shard
from neural_alignment.lazy import tf

FORMATS = {"original": 0, "usual": 1}  # index in `LAYOUTS`
PLAN, MANIFEST, LABELS, UNREADABLE = "plan.json", "manifest.json", "labels.txt", "unreadable.txt"
_ENDINGS = (".jpeg", ".jpg", ".jfif", ".png", ".bmp", ".gif")
_SYNSET = re.compile(r"\bn\d{8}\b")
_QUALITY = 100  # of images that are no plain JPEGs and have to be encoded again
_OWN = re.compile(
    r"(train|validation)-\d{5}-of-\d{5}(\.part)?|index-(train|validation)\.json"
    rf"|{PLAN}|{MANIFEST}|{LABELS}|{UNREADABLE}"
)


@dataclasses.dataclass(frozen=True)
class Image:
    """An image that is to be written.

    Args:
        name: its file name, with the class folder.
        label: its class, from 0.
        path: the file or archive that holds it.
        offset: where its bytes start there.
        size: how many they are.
    """

    name: str
    label: int
    path: str
    offset: int
    size: int

    def read(self) -> bytes:
        """The encoded image."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def images(
    source: str,
    classes: Sequence[str] | None = None,
    labels: str | None = None,
    left_out: Callable[[str], None] | None = None,
) -> tuple[list[Image], list[str]]:
    """Lists the images of a split.

    Args:
        source: a folder of class folders; a folder of images (with `labels`); an archive of class
            archives, as ILSVRC2012_img_train.tar; or an archive of images (with `labels`), as
            ILSVRC2012_img_val.tar.
        classes: the class names in the order of their labels; None: those found, sorted.
        labels: a file with the class of each image where no folder tells it: a line an image, in
            the order of the images' names, or with the image's name in it; classes are names of
            `classes`, as n01440764.
        left_out: called with the name of every file that is no image by its ending, and of every
            folder (with a "/" at its end) that is not looked into.

    Returns:
        The images, sorted by name, and the class names.

    Raises:
        FileNotFoundError: no such source or file of labels.
        ValueError: no images or classes, a class or an image without the other, or a class not in
            `classes`.
    """
    if not os.path.exists(source):
        raise FileNotFoundError(f"Expected a folder or a .tar archive. Received: {source}.")
    found, others = [], []
    for entry in sorted(_in_folder(source) if os.path.isdir(source) else _in_archive(source)):
        (found if _is_image(entry[0]) else others).append(entry)
    others = [name for name, *_ in others]
    if not found:
        raise ValueError(
            f"Expected images ({' '.join(_ENDINGS)}) in {source}. Received: {_endings(others)}."
        )
    if labels is None:
        _check_classes(source, [name for name, *_ in found], others)
        owners = [os.path.dirname(name) for name, *_ in found]
        if "" in owners:
            raise ValueError(
                f"Expected class folders (or class archives) in {source}. Received: the image "
                f"{found[owners.index('')][0]} outside of any. Give a file with the classes of the "
                "images (--validation_labels)."
            )
    else:
        owners = _read_labels(labels, [name for name, *_ in found])
    classes = sorted(set(owners)) if classes is None else list(classes)
    if left_out is not None:
        for name in others:
            left_out(name)
    number = {name: label for label, name in enumerate(classes)}
    unknown = sorted(set(owners) - set(number))
    if unknown:
        raise ValueError(
            f"Expected the {len(classes)} classes of the training images in {source}. Received: "
            f"{', '.join(unknown[:5])}{' ...' if len(unknown) > 5 else ''}."
        )
    return [
        Image(name, number[owner], *place)
        for (name, *place), owner in zip(found, owners, strict=True)
    ], classes


def summary(names: Sequence[str]) -> str:
    """How many files there are, and of which kinds.

    Args:
        names: of files that are no images; folders end in "/".

    Returns:
        As "3 files that are no images (.webp 2, folder 1)".
    """
    kinds = collections.Counter(
        "folder" if name.endswith("/") else os.path.splitext(name)[1].lower() or "no ending"
        for name in names
    )
    files = (
        "1 file that is no image" if len(names) == 1 else f"{len(names)} files that are no images"
    )
    return f"{files} ({', '.join(f'{kind} {count}' for kind, count in kinds.most_common())})"


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

    Every image is decoded once, to see that it can be; PNGs, CMYK JPEGs and the like are encoded
    again as RGB JPEGs. Within a split the images are shuffled, the same way every time.

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
        OSError: the disk is full, now or foreseeably.
    """
    if layout not in FORMATS:
        raise ValueError(f"Expected a layout: {', '.join(sorted(FORMATS))}. Received: {layout!r}.")
    for split, found in splits.items():
        if not 1 <= shards[split] <= len(found):
            raise ValueError(
                f"Expected 1 to {len(found)} {split} shards, one image each at least. Received: "
                f"{shards[split]}."
            )
    _claim(output_dir, _plan(splits, classes, shards, layout))
    _check_space(splits, shards, output_dir)
    _save(os.path.join(output_dir, LABELS), "".join(f"{name}\n" for name in classes))
    unreadable = _Unreadable(os.path.join(output_dir, UNREADABLE), max_unreadable)
    manifest = {"num_classes": len(classes), "layout": layout, "splits": {}}
    with concurrent.futures.ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for split, found in splits.items():
            order = list(found)
            random.Random(0).shuffle(order)
            counts = manifest["splits"][split] = {}
            for number in range(shards[split]):
                name = f"{split}-{number:05d}-of-{shards[split]:05d}"
                path = os.path.join(output_dir, name)
                part = order[number :: shards[split]]
                if os.path.exists(path):  # complete, or it would not have this name
                    counts[name] = index_shard(path).records
                else:
                    counts[name] = _write_shard(path, part, classes, layout, pool, unreadable)
                if progress is not None:
                    progress(split, len(part))
    manifest["unreadable"] = sorted(unreadable.names)
    _save(os.path.join(output_dir, MANIFEST), json.dumps(manifest, indent=1))
    return manifest


def example(jpeg: bytes, label: int, layout: str, **extra: bytes | int) -> bytes:
    """A serialised `tf.train.Example`.

    Args:
        jpeg: the encoded image.
        label: its class, from 0.
        layout: "usual" or "original".
        **extra: more features, "__" in their names standing for "/".

    Returns:
        The record.
    """
    names = LAYOUTS[FORMATS[layout]]
    values = {name.replace("__", "/"): value for name, value in extra.items()}
    values |= {names.image: jpeg, names.label: label + names.first_label}
    feature = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        if isinstance(value, bytes)
        else tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        for name, value in values.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def to_jpeg(contents: bytes) -> tuple[bytes, int, int]:
    """Checks an encoded image by decoding it; what is no RGB or grey JPEG is encoded as one.

    Args:
        contents: JPEG, PNG, BMP or GIF.

    Returns:
        The JPEG, its height and width.

    Raises:
        tf.errors.InvalidArgumentError: it cannot be decoded.
    """
    with tf.device("CPU:0"):
        pixels = tf.io.decode_image(contents, channels=3, expand_animations=False)
        plain = contents[:3] == b"\xff\xd8\xff" and int(tf.io.extract_jpeg_shape(contents)[2]) < 4
        if not plain:
            contents = tf.io.encode_jpeg(pixels, "rgb", quality=_QUALITY).numpy()
    return contents, pixels.shape[0], pixels.shape[1]


class _Unreadable:
    """The images left out, those of finished shards in a file: a call that goes on knows them."""

    def __init__(self, path: str, limit: int) -> None:
        if limit < 0:
            raise ValueError(f"Expected max_unreadable >= 0. Received: {limit}.")
        self._path, self._limit = path, limit
        self.names: set[str] = set()
        if os.path.exists(path):
            with open(path) as file:
                self.names = set(file.read().splitlines())

    def add(self, name: str, reason: str) -> None:
        self.names.add(name)
        if len(self.names) > self._limit:
            raise ValueError(
                f"{name}: Expected an image that can be decoded. Received: {reason}. Replace it, or"
                f" allow more such images with --max_unreadable (now {self._limit})."
            )

    def save(self) -> None:
        if self.names:
            _save(self._path, "".join(f"{each}\n" for each in sorted(self.names)))


def _check_classes(source: str, found: Sequence[str], others: Sequence[str]) -> None:
    # A class that is not noticed would shift the labels of those after it.
    seen = {name.partition("/")[0] for name in found}
    lost: dict[str, list[str]] = {}
    for name in others:
        owner, inside, file = name.partition("/")
        if inside and owner not in seen:
            lost.setdefault(owner, []).extend([file] if file else [])
    if lost:
        owner, rest = min(lost), len(lost) - 1
        raise ValueError(
            f"Expected images ({' '.join(_ENDINGS)}) in every class folder of {source}. Received: "
            f"{_endings(lost[owner])} in {owner}{f', nor in {rest} more' if rest else ''}. Convert "
            "what is there to JPEG, or take the folder away."
        )


def _endings(names: Sequence[str]) -> str:
    return f"none, but {summary(names)}" if names else "none"


def _in_folder(folder: str) -> Iterable[tuple[str, str, int, int]]:
    # Every file, and as "CLASS/" a class folder without any.
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_dir():
                yield entry.name, entry.path, 0, _size(entry)
            elif entry.name.startswith("."):  # no class, but some program's own
                yield entry.name, entry.path, 0, 0
            else:
                with os.scandir(entry.path) as files:
                    inside = list(files)
                for file in inside:
                    name = f"{entry.name}/{file.name}{'/' if file.is_dir() else ''}"
                    yield name, file.path, 0, _size(file)
                if not inside:
                    yield f"{entry.name}/", entry.path, 0, 0


def _size(entry: os.DirEntry) -> int:
    return entry.stat().st_size if _is_image(entry.name) else 0


def _is_image(name: str) -> bool:
    return name.lower().endswith(_ENDINGS)


def _in_archive(path: str) -> Iterable[tuple[str, str, int, int]]:
    depths, others = set(), []
    try:
        with tarfile.open(path, "r:") as outer:  # uncompressed, so that spans can be read
            for member in outer:
                if member.name.endswith(".tar"):
                    owner = os.path.basename(member.name).removesuffix(".tar")
                    with tarfile.open(fileobj=outer.extractfile(member), mode="r:") as inner:
                        inside = [each for each in inner if each.isfile()]
                    for each in inside:
                        place = member.offset_data + each.offset_data
                        yield f"{owner}/{os.path.basename(each.name)}", path, place, each.size
                    if not inside:
                        yield f"{owner}/", path, 0, 0
                elif member.isfile():
                    parts = member.name.removeprefix("./").split("/")
                    if not _is_image(member.name):
                        others.append(parts)
                        continue
                    depths.add(len(parts))
                    yield "/".join(parts[-2:]), path, member.offset_data, member.size
        for parts in others:  # beside images its folder is a class, elsewhere it is none
            yield "/".join(parts[-2:] if len(parts) in depths else parts[-1:]), path, 0, 0
    except tarfile.TarError as error:
        raise ValueError(
            f"{path}: Expected a complete, uncompressed .tar archive. Received: {error}. Fetch it "
            "again, or give a folder."
        ) from error
    # The reader takes the end of a file for the end of the archive, wherever that is.
    with open(path, "rb") as file:
        file.seek(-min(1024, os.path.getsize(path)), os.SEEK_END)
        if file.read().strip(b"\0"):
            raise ValueError(
                f"{path}: Expected an archive that ends in two empty blocks. Received: one that is "
                "cut short. Fetch it again."
            )


def _read_labels(path: str, names: Sequence[str]) -> list[str]:
    if not os.path.exists(path):
        raise FileNotFoundError(f"Expected a file with the images' classes. Received: {path}.")
    with open(path) as file:
        lines = [line for line in file.read().splitlines() if line.strip()]
    if lines and not _SYNSET.search(lines[0]):
        lines = lines[1:]  # a heading, as in LOC_val_solution.csv
    stems = [os.path.splitext(os.path.basename(name))[0] for name in names]
    owners = {}
    for number, line in enumerate(lines):
        synset = _SYNSET.search(line)
        if synset is None:
            raise ValueError(
                f"{path}: Expected a class like n01440764 in every line. Received: {line[:60]!r}. "
                "Numbers of the development kit are in another order than the classes."
            )
        stem = os.path.splitext(re.split(r"[\s,]", line.strip())[0])[0]
        if stem == synset[0] and number < len(stems):
            stem = stems[number]
        owners[stem] = synset[0]
    missing = [stem for stem in stems if stem not in owners]
    if missing or len(lines) != len(names):
        raise ValueError(
            f"{path}: Expected the classes of {len(names)} images. Received: {len(lines)} lines"
            f"{f', none for {missing[0]}' if missing else ''}."
        )
    return [owners[stem] for stem in stems]


def _plan(
    splits: dict[str, Sequence[Image]],
    classes: Sequence[str],
    shards: dict[str, int],
    layout: str,
) -> dict:
    plan = {"layout": layout, "classes": len(classes)}
    for split, found in splits.items():
        digest = hashlib.sha256()
        for image in found:
            # Not the size: an image that cannot be read may be replaced, and the call go on.
            digest.update(f"{image.name}\t{classes[image.label]}\n".encode())
        plan[split] = {
            "images": len(found),
            "shards": shards[split],
            "sha256": digest.hexdigest(),
        }
    return plan


def _claim(output_dir: str, plan: dict) -> None:
    os.makedirs(output_dir, exist_ok=True)
    path = os.path.join(output_dir, PLAN)
    if os.path.exists(path):
        with open(path) as file:
            earlier = json.load(file)
        if earlier != plan:
            changed = [key for key in plan if earlier.get(key) != plan[key]]
            raise ValueError(
                f"Expected the images and options that {output_dir} was begun with. Received: "
                f"others in {', '.join(changed)}. Use another folder, or empty this one."
            )
    foreign = [name for name in os.listdir(output_dir) if not _OWN.fullmatch(name)]
    if foreign or (not os.path.exists(path) and os.listdir(output_dir)):
        raise ValueError(
            f"Expected an empty folder, or one begun by an earlier call. Received: {output_dir}, "
            f"which holds {', '.join(sorted(foreign or os.listdir(output_dir))[:3])}."
        )
    _save(path, json.dumps(plan, indent=1))


def _check_space(
    splits: dict[str, Sequence[Image]], shards: dict[str, int], output_dir: str
) -> None:
    needed = 0
    for split, found in splits.items():
        done = sum(
            os.path.exists(os.path.join(output_dir, f"{split}-{n:05d}-of-{shards[split]:05d}"))
            for n in range(shards[split])
        )
        needed += sum(image.size for image in found) * (1 - done / shards[split])
    free = shutil.disk_usage(output_dir).free
    if needed > free:
        raise OSError(
            f"Expected {needed / 1e9:.1f} GB of free space in {output_dir}. Received: "
            f"{free / 1e9:.1f} GB."
        )


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
        except (tf.errors.InvalidArgumentError, OSError) as error:
            return error
        extra = {
            "image__format": b"JPEG",
            "image__height": height,
            "image__width": width,
            "image__filename": os.path.basename(image.name).encode(),
            "image__class__synset": classes[image.label].encode(),
        }
        return example(jpeg, image.label, layout, **(extra if layout == "usual" else {}))

    count = 0
    with tf.io.TFRecordWriter(f"{path}.part") as writer:
        for image, record in zip(part, pool.map(prepare, part), strict=True):
            if isinstance(record, Exception):
                unreadable.add(image.name, str(record).splitlines()[0])
                continue
            writer.write(record)
            count += 1
    if not count:
        raise ValueError(f"{path}: Expected images in every shard. Received: unreadable ones only.")
    unreadable.save()  # first: it is not asked again once the shard has its name
    os.replace(f"{path}.part", path)
    return count


def _save(path: str, text: str) -> None:
    with open(f"{path}.part", "w") as file:
        file.write(text)
    os.replace(f"{path}.part", path)
