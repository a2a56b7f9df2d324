"""The images of a split, listed: from a folder of class folders, or from an archive of one.

Both become the same tree of names first, so that an archive has the labels, and the report of what
is left out, of the folder it was made of.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import posixpath
import tarfile
import unicodedata
from collections.abc import Callable, Iterator, Sequence

from neural_alignment.data import splits
from neural_alignment.data.image_labels import read_labels

ENDINGS = (".jpeg", ".jpg", ".jfif", ".png", ".bmp", ".gif")
_PACKED = {  # how a file begins: what it is, and what to do
    b"\x1f\x8b": ("a gzip", "Unpack it with gunzip"),
    b"BZh": ("a bzip2", "Unpack it with bunzip2"),
    b"\xfd7zXZ": ("an xz", "Unpack it with unxz"),
    b"PK\x03\x04": ("a .zip", "Unpack it"),
}
_PROGRAMS = ("__MACOSX", "@eaDir")  # folders that archivers and file servers leave


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


@dataclasses.dataclass(frozen=True)
class _File:
    """Where a file's bytes lie; `regular` is False of what cannot be read as a file."""

    path: str
    offset: int
    size: int
    regular: bool = True


_Tree = dict[str, "_Tree | _File"]  # a folder: names to files and folders


def images(
    source: str,
    classes: Sequence[str] | None = None,
    labels: str | None = None,
    left_out: Callable[[str], None] | None = None,
) -> tuple[list[Image], list[str]]:
    """Lists the images of a split.

    Args:
        source: a folder of class folders; a folder of images (with `labels`); an archive of either,
            as ILSVRC2012_img_val.tar; or an archive of class archives, as
            ILSVRC2012_img_train.tar.
        classes: the class names in the order of their labels; None: those found, sorted.
        labels: a file with the class of each image where no folder tells it: a line an image, in
            the order of the images' names, or with the image's name in it; classes are names of
            `classes`, as n01440764.
        left_out: called with the name of every file that is no image by its ending or is hidden
            ("._x.jpg"), and of every folder (with a "/" at its end) that is not looked into.

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
    tree = _folder(source) if os.path.isdir(source) else _archive(source, labels is not None)
    for name, file in sorted(_entries(tree), key=lambda entry: entry[0]):
        if file is not None and file.regular and _is_image(name):
            found.append((name, file))
        else:
            others.append(name)
    _check_tree(source, tree)
    if not found:
        raise ValueError(
            f"Expected images ({' '.join(ENDINGS)}) in {source}. Received: {_endings(others)}."
        )
    owners = _owners(source, [name for name, _ in found], others, labels)
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
        Image(name, number[owner], file.path, file.offset, file.size)
        for (name, file), owner in zip(found, owners, strict=True)
    ], classes


def _owners(
    source: str, found: Sequence[str], others: Sequence[str], labels: str | None
) -> list[str]:
    """The class of each image."""
    if labels is not None:
        return read_labels(labels, found)
    _check_classes(source, found, others)
    owners = [os.path.dirname(name) for name in found]
    if "" in owners:
        raise ValueError(
            f"Expected class folders (or class archives) in {source}. Received: the image "
            f"{found[owners.index('')]} outside of any. Put it into the folder of its class, or "
            "take it away; `neural-alignment prepare` takes a file with the classes of such images "
            "(--validation_labels)."
        )
    # One name has several spellings in Unicode; macOS writes another than the others.
    return [unicodedata.normalize("NFC", owner) for owner in owners]


def summary(names: Sequence[str]) -> str:
    """How many files there are, and of which kinds.

    Args:
        names: of files that are no images; folders end in "/".

    Returns:
        As "3 files that are no images (.webp 2, folder 1)".
    """
    kinds = collections.Counter(_kind(name) for name in names)
    files = (
        "1 file that is no image" if len(names) == 1 else f"{len(names)} files that are no images"
    )
    return f"{files} ({', '.join(f'{kind} {count}' for kind, count in kinds.most_common())})"


def class_folders(folder: str) -> list[str]:
    """The folders in a folder that have images directly in them.

    Args:
        folder: where to look.

    Returns:
        Their names, sorted.
    """
    return sorted(
        name
        for name, node in _folder(folder).items()
        if isinstance(node, dict) and not _hidden(name) and _shows_images(node)
    )


def _kind(name: str) -> str:
    if name.endswith("/"):
        return "folder"
    return "hidden" if _hidden(name) else os.path.splitext(name)[1].lower() or "no ending"


def _entries(tree: _Tree) -> Iterator[tuple[str, _File | None]]:
    # Every file of the tree and of its folders; as "CLASS/" a class folder without any, as
    # "CLASS/FOLDER/" one that is not looked into, by its name alone one that is some program's.
    for name, node in tree.items():
        if isinstance(node, _File):
            yield name, node
        elif _hidden(name):
            yield name, None
        else:
            for inner, file in node.items():
                if isinstance(file, _File):
                    yield f"{name}/{inner}", file
                else:
                    yield f"{name}/{inner}/", None
            if not node:
                yield f"{name}/", None


def _hidden(name: str) -> bool:
    # Of a folder it is no class, of "._x.jpg" it is what macOS keeps beside an image.
    base = posixpath.basename(name)
    return base.startswith(".") or base in _PROGRAMS


def _is_image(name: str) -> bool:
    return name.lower().endswith(ENDINGS) and not _hidden(name)


def _shows_images(tree: _Tree) -> bool:
    return any(isinstance(node, _File) and _is_image(name) for name, node in tree.items())


def _check_classes(source: str, found: Sequence[str], others: Sequence[str]) -> None:
    # A class that is not noticed would shift the labels of those after it.
    seen = {name.partition("/")[0] for name in found}
    lost: dict[str, list[str]] = {}
    for name in others:
        owner, inside, file = name.partition("/")
        if inside and owner not in seen:
            lost.setdefault(owner, []).extend([file] if file else [])
    splits.check_no_classes(source, seen)
    if lost:
        owner, rest = min(lost), len(lost) - 1
        raise ValueError(
            f"Expected images ({' '.join(ENDINGS)}) in every class folder of {source}. Received: "
            f"{_endings(lost[owner])} in {owner}{f', nor in {rest} more' if rest else ''}. Convert "
            "what is there to JPEG, or take the folder away."
        )


def _check_tree(source: str, tree: _Tree) -> None:
    # A folder with train and validation in it has images two levels down only.
    folders = {name: node for name, node in tree.items()
               if isinstance(node, dict) and not _hidden(name)}  # fmt: skip
    nested = [name for name, node in folders.items()
              if any(isinstance(inner, dict) for inner in node.values())]  # fmt: skip
    if nested and not _shows_images(tree) and not any(map(_shows_images, folders.values())):
        raise ValueError(
            f"Expected class folders of images in {source}. Received: folders of folders, as "
            f"{', '.join(sorted(nested)[:3])}. Give the one that holds the classes (of an archive: "
            "archive it alone)."
        )


def _endings(names: Sequence[str]) -> str:
    return f"none, but {summary(names)}" if names else "none"


def _folder(folder: str) -> _Tree:
    """A folder's tree, as deep as classes lie."""
    with os.scandir(folder) as entries:
        return {
            entry.name: _files(entry.path) if _is_folder(entry) else _file(entry)
            for entry in entries
        }


def _files(folder: str) -> _Tree:
    with os.scandir(folder) as entries:
        return {entry.name: {} if _is_folder(entry) else _file(entry) for entry in entries}


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _file(entry: os.DirEntry) -> _File:
    if not _is_image(entry.name):
        return _File(entry.path, 0, 0)
    try:
        return _File(entry.path, 0, entry.stat().st_size, entry.is_file())
    except OSError:  # a link to nowhere: an image that cannot be read, which is told by name
        return _File(entry.path, 0, 0)


def _archive(path: str, flat: bool) -> _Tree:
    """An archive's tree; an archive in it is a folder of its name.

    Args:
        path: a .tar file.
        flat: whether images are expected without class folders.
    """
    _check_archive(path)
    try:
        with tarfile.open(path, "r:") as outer:  # uncompressed, so that spans can be read
            tree, rooted = _members(outer, path, 0)
    except tarfile.TarError as error:
        raise ValueError(
            f"{path}: Expected a complete, uncompressed .tar archive. Received: {error}. Fetch it "
            "again, or give a folder."
        ) from error
    return tree if rooted else _unwrapped(tree, flat)


def _check_archive(path: str) -> None:
    with open(path, "rb") as file:
        begins = file.read(6)
        # The reader takes the end of a file for the end of the archive, wherever that is.
        file.seek(-min(1024, os.path.getsize(path)), os.SEEK_END)
        ends = file.read()
    for beginning, (kind, remedy) in _PACKED.items():
        if begins.startswith(beginning):
            raise ValueError(
                f"{path}: Expected an uncompressed .tar archive. Received: {kind} file. {remedy}, "
                "or give a folder."
            )
    if ends.strip(b"\0"):
        raise ValueError(
            f"{path}: Expected an archive that ends in two empty blocks. Received: one that is "
            "cut short, or no archive. Fetch it again."
        )


def _members(archive: tarfile.TarFile, path: str, start: int) -> tuple[_Tree, bool]:
    # The tree, and whether the archived folder is its root for sure (tar -C FOLDER .).
    tree: _Tree = {}
    unpacked: list[tuple[list[str], _Tree]] = []
    rooted, links, packed = False, [], []
    for member in archive:
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        if not parts:
            rooted = True
        elif member.isdir():
            _within(tree, parts)
        elif member.issym() or member.islnk():
            links.append((parts, member))
        else:
            regular = member.isfile() and not member.issparse()
            place = _File(path, start + member.offset_data, member.size, regular)
            _within(tree, parts[:-1])[parts[-1]] = place
            if member.isfile() and member.name.endswith(".tar") and not _hidden(member.name):
                packed.append((parts, member))
    for parts, member in packed:
        beside = _within(tree, parts[:-1])
        folders = [node for node in beside.values() if isinstance(node, dict)]
        if any(map(_shows_images, [beside, *folders])):
            continue  # no class, but what is left out, as in a folder: the classes are unpacked
        with tarfile.open(fileobj=archive.extractfile(member), mode="r:") as inner:
            inside, _ = _members(inner, path, start + member.offset_data)
        unpacked.append(([*parts[:-1], parts[-1].removesuffix(".tar")], inside))
        del beside[parts[-1]]
    for parts, inside in unpacked:
        _within(tree, parts).update(_unwrapped(inside, flat=True))
    for parts, member in links:
        _within(tree, parts[:-1])[parts[-1]] = _linked(tree, parts, member, path)
    return tree, rooted


def _within(tree: _Tree, parts: Sequence[str]) -> _Tree:
    for part in parts:
        inner = tree.setdefault(part, {})
        if isinstance(inner, _File):  # of an earlier state of the archive
            inner = tree[part] = {}
        tree = inner
    return tree


def _linked(tree: _Tree, parts: list[str], member: tarfile.TarInfo, path: str) -> _Tree | _File:
    # A hard link names a member, a symbolic one a place beside itself.
    base = [] if member.islnk() else parts[:-1]
    target = posixpath.normpath(posixpath.join("/", *base, member.linkname)).split("/")
    node: _Tree | _File | None = tree
    for part in target[1:]:
        node = node.get(part) if isinstance(node, dict) else None
    if node is None and _is_image(member.name):
        raise ValueError(
            f"{path}: Expected the images themselves. Received: {member.name}, a link to "
            f"{member.linkname}, which the archive does not hold. Archive with tar --dereference."
        )
    return _File(path, 0, 0) if node is None else node


def _unwrapped(tree: _Tree, flat: bool) -> _Tree:
    # Without the folder around all others that archives are made with; what lies beside it stays.
    while not _shows_images(tree):
        folders = [name for name, node in tree.items()
                   if isinstance(node, dict) and not _hidden(name)]  # fmt: skip
        if len(folders) != 1 or (_shows_images(tree[folders[0]]) and not flat):
            break
        inner = tree[folders[0]]
        if not any(isinstance(node, dict) for node in inner.values()) and not flat:
            break
        beside = {name: node for name, node in tree.items() if name != folders[0]}
        tree = beside | inner
    return tree
