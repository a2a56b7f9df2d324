"""An output folder of a preparation: whose it is, what was begun in it, and whether it has room."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence

from neural_alignment import atomic
from neural_alignment.data.sources import Image
from neural_alignment.lazy import tf
from neural_alignment.lock import LockedError
from neural_alignment.messages import size, told

PLAN, MANIFEST, LABELS, UNREADABLE = "plan.json", "manifest.json", "labels.txt", "unreadable.txt"
LOCK = "prepare.lock"
_OVERHEAD = 300  # bytes of a record besides its image
_OWN = re.compile(
    r"(train|validation)-\d{5}-of-\d{5}(\.part)?|index-(train|validation)\.json"
    rf"|({PLAN}|{MANIFEST}|{LABELS}|{UNREADABLE})(\.part)?|{LOCK}"
)


@contextlib.contextmanager
def alone(output_dir: str) -> Iterator[None]:
    """Keeps other preparations out of a folder while this one writes there.

    The lock goes with its process, however that ends; the file goes with the lock, so that what is
    left are the shards.

    Args:
        output_dir: the folder; made if it is not there.

    Raises:
        LockedError: another process prepares into it.
        OSError: the folder cannot be made or written to.
    """
    path = os.path.join(output_dir, LOCK)
    with storage(output_dir):
        os.makedirs(output_dir, exist_ok=True)
        file = _locked(path)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.remove(path)
        os.close(file)


def _locked(path: str) -> int:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 64, 0).decode(errors="replace").strip() or "unknown"
            os.close(file)
            raise LockedError(
                f"{os.path.dirname(path)}: Expected a folder that no other preparation writes to. "
                f"Received: one in use by the process with pid {holder}. Wait for it, end it, or "
                "give another --output_dir."
            ) from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.stat(path)):
                os.ftruncate(file, 0)
                os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
                return file
        os.close(file)  # its holder ended, and took it away, in between


@contextlib.contextmanager
def storage(output_dir: str) -> Iterator[None]:
    """Makes one message of whatever keeps a folder from being written to.

    Args:
        output_dir: the folder.

    Raises:
        OSError: the disk is full, or fails, or may not be written to.
    """
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        raise OSError(
            f"{output_dir}: Expected a folder that can be written to. Received: {told(error)}. See "
            "that there is room; the same call then goes on."
        ) from error


def plan(
    splits: dict[str, Sequence[Image]],
    classes: Sequence[str],
    shards: dict[str, int],
    layout: str,
) -> dict:
    """What a call is about to write, so that a later one can tell whether it goes on with it.

    Args:
        splits: see `prepare.write`.
        classes: see `prepare.write`.
        shards: see `prepare.write`.
        layout: see `prepare.write`.

    Returns:
        JSON's types.
    """
    made = {"layout": layout, "classes": len(classes)}
    for split, found in splits.items():
        digest = hashlib.sha256()
        for image in found:
            # Not the size: an image that cannot be read may be replaced, and the call go on.
            digest.update(os.fsencode(f"{image.name}\t{classes[image.label]}\n"))
        made[split] = {
            "images": len(found),
            "shards": shards[split],
            "sha256": digest.hexdigest(),
        }
    return made


def claim(output_dir: str, made: dict) -> None:
    """Takes a folder that is empty, or was begun with the same plan.

    Args:
        output_dir: the folder; this process holds its lock.
        made: the `plan`.

    Raises:
        ValueError: the folder holds something else, or was begun with another plan.
        OSError: it cannot be written to.
    """
    path = os.path.join(output_dir, PLAN)
    if os.path.exists(path):
        with open(path) as file:
            earlier = json.load(file)
        if earlier != made:
            changed = [key for key in made if earlier.get(key) != made[key]]
            raise ValueError(
                f"Expected the images and options that {output_dir} was begun with. Received: "
                f"others in {', '.join(changed)}. Use another folder, or empty this one."
            )
    there = sorted(name for name in os.listdir(output_dir) if name != LOCK)
    foreign = [name for name in there if not _OWN.fullmatch(name)]
    if foreign or (there and not os.path.exists(path)):
        raise ValueError(
            f"Expected an empty folder, or one begun by an earlier call. Received: {output_dir}, "
            f"which holds {', '.join((foreign or there)[:3])}."
        )
    with storage(output_dir):
        atomic.write_text(path, json.dumps(made, indent=1))


def check_space(
    splits: dict[str, Sequence[Image]], shards: dict[str, int], output_dir: str
) -> None:
    """Compares the space that is free with what the shards that are missing will take.

    Args:
        splits: see `prepare.write`.
        shards: see `prepare.write`.
        output_dir: see `prepare.write`.

    Raises:
        OSError: it is too little.
    """
    needed = 0.0
    for split, found in splits.items():
        done = sum(
            os.path.exists(os.path.join(output_dir, f"{split}-{n:05d}-of-{shards[split]:05d}"))
            for n in range(shards[split])
        )
        needed += sum(image.size + _OVERHEAD for image in found) * (1 - done / shards[split])
    free = shutil.disk_usage(output_dir).free
    if needed > free:
        raise OSError(
            f"{output_dir}: Expected {size(needed)} of free space. Received: {size(free)}, "
            f"{size(needed - free)} too little. Make room, or give another folder."
        )
