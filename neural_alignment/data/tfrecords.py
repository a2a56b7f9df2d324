"""TFRecord shards of JPEG images: finding them, and indexing them without reading the images.

A TFRecord file is a row of frames: length (uint64), CRC-32C of the length, payload, CRC-32C of the
payload. The payload is a `tf.train.Example`; its label is found by walking the protocol buffer's
fields, so an index touches a few pages of each record and decodes nothing. On a local disk this
costs about 50 microseconds a record, once: the result is kept beside the shards where the folder
can be written. A shard on gs:// has to be read whole, once.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import json
import logging
import mmap
import os
import re
import struct
from collections.abc import Iterator, Sequence

from neural_alignment.lazy import tf
from neural_alignment.messages import one_line

_log = logging.getLogger(__name__)

Buffer = bytes | mmap.mmap

_THREADS = 8  # shards indexed at a time; shards on gs:// are held in memory meanwhile
_HEADER = struct.Struct("<QI")  # length of the payload, masked CRC of these 8 bytes
_FOOTER = 4  # bytes: the payload's masked CRC, which TensorFlow checks as it reads
_OF = re.compile(r"-(\d+)-of-(\d+)$")


@dataclasses.dataclass(frozen=True)
class Layout:
    """The names of the features of a record.

    Args:
        image: the feature with the encoded image.
        label: the feature with the label, an integer.
        first_label: the label of class 0.
    """

    image: str
    label: str
    first_label: int


# [K]'s own, the usual one of ImageNet in TFRecords, and TensorFlow Datasets'.
LAYOUTS = (
    Layout("images", "labels", 0),
    Layout("image/encoded", "image/class/label", 1),
    Layout("image", "label", 0),
)


@dataclasses.dataclass(frozen=True)
class Shard:
    """What is known of one TFRecord file.

    Args:
        path: the file, local or gs://.
        records: how many records it holds.
        layout: index in `LAYOUTS`.
        label_min: the smallest label, counted from the layout's first.
        label_max: the largest.
    """

    path: str
    records: int
    layout: int
    label_min: int
    label_max: int


def find_shards(data_dir: str, patterns: Sequence[str]) -> list[str]:
    """The files that match the first of the patterns that matches any, sorted.

    Args:
        data_dir: a folder, local or gs://.
        patterns: file patterns relative to it.

    Returns:
        The paths.

    Raises:
        FileNotFoundError: no file matches.
        ValueError: names end in -xxxxx-of-yyyyy and some of the yyyyy are missing.
    """
    for pattern in patterns:
        with contextlib.suppress(tf.errors.NotFoundError):
            paths = sorted(tf.io.gfile.glob(os.path.join(data_dir, pattern)))
            if paths:
                _check_complete(paths)
                return paths
    raise FileNotFoundError(
        f"Expected TFRecord files {' or '.join(patterns)} in {data_dir}. Received: no such file. "
        "Give the folder that holds them with --data_dir, or make them with "
        "`neural-alignment prepare`."
    )


def index_shards(paths: Sequence[str], cache: str | None = None) -> list[Shard]:
    """Counts records and finds the range of labels of every shard.

    Args:
        paths: TFRecord files.
        cache: a JSON file that keeps the results; entries whose file has another size or time of
            change are made anew. None, or a place that cannot be written: nothing is kept.

    Returns:
        One entry a path, in order.

    Raises:
        ValueError: a shard is empty, cut short or damaged, or a record has no known layout.
    """
    kept = _read_cache(cache)
    stamps = {path: _stamp(path) for path in paths}
    stale = [path for path in paths if kept.get(os.path.basename(path), {}).get("stamp")
             != stamps[path]]  # fmt: skip
    if stale:
        _log.info("Indexing %d TFRecord shards in %s", len(stale), os.path.dirname(stale[0]))
        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            made = dict(zip(stale, pool.map(index_shard, stale), strict=True))
        for path, shard in made.items():
            entry = dataclasses.asdict(shard) | {"stamp": stamps[path]}
            del entry["path"]  # the folder may be mounted elsewhere tomorrow
            kept[os.path.basename(path)] = entry
        _write_cache(cache, kept)
    shards = []
    for path in paths:
        entry = dict(kept[os.path.basename(path)])
        del entry["stamp"]
        shards.append(Shard(path=path, **entry))
    return shards


def index_shard(path: str) -> Shard:
    """Walks the frames of one shard.

    Args:
        path: a TFRecord file, local or gs://.

    Returns:
        Its entry.

    Raises:
        ValueError: the shard is empty, cut short or damaged, or a record has no known layout.
    """
    layout, labels = None, []
    with _open(path) as buffer:
        for index, (start, stop) in enumerate(frames(buffer, path)):
            try:
                found = dict(_features(buffer, start, stop))
                if layout is None:
                    layout = _layout(found)
                labels.append(_integer(buffer, *found[LAYOUTS[layout].label.encode()]))
            except (KeyError, IndexError, ValueError) as error:
                known = "; ".join(f"{each.image}, {each.label}" for each in LAYOUTS)
                raise ValueError(
                    f"{path}, record {index}: Expected a tf.train.Example with the features of "
                    f"its shard's first record, one of: {known}. Received: {error}."
                ) from error
    if layout is None:
        raise ValueError(
            f"{path}: Expected a shard with records. Received: an empty file. Write it again, or "
            "take it out of the folder."
        )
    first = LAYOUTS[layout].first_label
    return Shard(path, len(labels), layout, min(labels) - first, max(labels) - first)


def labels(path: str, layout: int) -> Iterator[int]:
    """The labels of a shard, counted from 0, in the order of its records.

    Args:
        path: a TFRecord file.
        layout: index in `LAYOUTS`.

    Yields:
        The labels.

    Raises:
        ValueError: the shard is cut short or damaged.
    """
    names = LAYOUTS[layout]
    with _open(path) as buffer:
        for start, stop in frames(buffer, path):
            span = dict(_features(buffer, start, stop))[names.label.encode()]
            yield _integer(buffer, *span) - names.first_label


def frames(buffer: Buffer, path: str) -> Iterator[tuple[int, int]]:
    """Where the payload of each record starts and stops.

    Args:
        buffer: the file's bytes.
        path: its name, for messages.

    Yields:
        (start, stop) in bytes.

    Raises:
        ValueError: a frame is cut short, or its length does not match its checksum.
    """
    position, index, size = 0, 0, len(buffer)
    while position < size:
        if position + _HEADER.size > size:
            raise _cut(path, index, size - position, _HEADER.size)
        length, checksum = _HEADER.unpack_from(buffer, position)
        if masked_crc32c(buffer[position : position + 8]) != checksum:
            raise ValueError(
                f"{path}, record {index}: Expected a TFRecord frame whose length matches its "
                f"checksum, at byte {position}. Received: a damaged frame. Write the shard again."
            )
        start = position + _HEADER.size
        position = start + length + _FOOTER
        if position > size:
            raise _cut(path, index, size - start, length + _FOOTER)
        yield start, start + length
        index += 1


def masked_crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), rotated right by 15 bits plus 0xa282ead8, as TFRecord frames hold it.

    Args:
        data: a few bytes (this is plain Python).

    Returns:
        The checksum, 32 bits.
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC_TABLE = _crc_table()


def _cut(path: str, index: int, received: int, expected: int) -> ValueError:
    return ValueError(
        f"{path}, record {index}: Expected {expected} more bytes. Received: {received}; the shard "
        "is cut short. Write it again."
    )


def _check_complete(paths: Sequence[str]) -> None:
    matches = [_OF.search(path) for path in paths]
    if not all(matches):
        return
    totals = collections.Counter(int(match[2]) for match in matches)
    if len(totals) > 1:
        raise ValueError(
            f"Expected shards of one set in {os.path.dirname(paths[0])}. Received: files that end "
            f"in -of- {', '.join(map(str, sorted(totals)))}."
        )
    missing = sorted(set(range(next(iter(totals)))) - {int(match[1]) for match in matches})
    if missing:
        raise ValueError(
            f"Expected {next(iter(totals))} shards beside {paths[0]}. Received: {len(paths)}; "
            f"missing are numbers {', '.join(map(str, missing[:10]))}"
            f"{' ...' if len(missing) > 10 else ''}."
        )


@contextlib.contextmanager
def _open(path: str) -> Iterator[Buffer]:
    if not os.path.exists(path):  # gs:// and the like: one sequential read is the fastest
        with tf.io.gfile.GFile(path, "rb") as file:
            yield file.read()
    elif not os.path.getsize(path):
        yield b""  # nothing to map
    else:
        with (
            open(path, "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages,
        ):
            if hasattr(mmap, "MADV_RANDOM"):
                pages.madvise(mmap.MADV_RANDOM)  # no read-ahead: the images between are skipped
            yield pages


def _varint(buffer: Buffer, position: int) -> tuple[int, int]:
    value, shift = 0, 0
    while True:
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _fields(buffer: Buffer, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    # Of each field of a message: its number, and where its value starts and stops.
    while start < stop:
        tag, start = _varint(buffer, start)
        wire = tag & 7
        if wire == 2:
            length, start = _varint(buffer, start)
            end = start + length
        elif wire == 0:
            _, end = _varint(buffer, start)
        elif wire in (1, 5):
            end = start + (8 if wire == 1 else 4)
        else:
            raise ValueError("a payload that is not a protocol buffer")
        if end > stop:
            raise ValueError("a payload that is not a protocol buffer")
        yield tag >> 3, start, end
        start = end


def _features(buffer: Buffer, start: int, stop: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    # Example { Features features = 1 { map<string, Feature> feature = 1 { key 1, value 2 } } }
    for number, first, last in _fields(buffer, start, stop):
        if number != 1:
            continue
        for entry, begin, end in _fields(buffer, first, last):
            if entry == 1:
                parts = {part: span for part, *span in _fields(buffer, begin, end)}
                yield bytes(buffer[slice(*parts[1])]), tuple(parts[2])


def _layout(found: dict[bytes, tuple[int, int]]) -> int:
    for position, layout in enumerate(LAYOUTS):
        if layout.image.encode() in found and layout.label.encode() in found:
            return position
    names = ", ".join(sorted(name.decode(errors="replace") for name in found))
    raise ValueError(f"the features {names or '(none)'}")


def _integer(buffer: Buffer, start: int, stop: int) -> int:
    # Feature { Int64List int64_list = 3 { repeated int64 value = 1 } }, packed or not
    for kind, first, last in _fields(buffer, start, stop):
        if kind == 3:
            for _, begin, _ in _fields(buffer, first, last):
                value, _ = _varint(buffer, begin)
                return value - (1 << 64) if value >= 1 << 63 else value
    raise ValueError("a label that is not an integer")


def _stamp(path: str) -> list[int]:
    stat = tf.io.gfile.stat(path)
    return [int(stat.length), int(stat.mtime_nsec)]


def _read_cache(cache: str | None) -> dict[str, dict]:
    if cache is None or not tf.io.gfile.exists(cache):
        return {}
    with tf.io.gfile.GFile(cache) as file:
        text = file.read()
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return {}  # a file cut short is as good as none: it is made anew


def _write_cache(cache: str | None, entries: dict[str, dict]) -> None:
    if cache is None:
        return
    part = f"{cache}.{os.getpid()}.part"
    try:
        with tf.io.gfile.GFile(part, "w") as file:
            json.dump(entries, file)
        tf.io.gfile.rename(part, cache, overwrite=True)
    except (OSError, tf.errors.OpError) as error:
        _log.info("The index of the shards is not kept: %s", one_line(error))
