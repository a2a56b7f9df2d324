"""The same images as a folder and as archives: the same labels, report and shards."""

import bz2
import gzip
import io
import lzma
import os
import tarfile

import numpy as np
import pytest
import tensorflow as tf

from neural_alignment.data import prepare

JPEG = tf.io.encode_jpeg(np.full((8, 8, 3), 90, np.uint8)).numpy()

# Files of a folder of classes (a name that ends in "/" is an empty folder), and what is left out.
TREES = {
    "plain": (["lion/i0.jpg", "zebra/i0.jpg", "zebra/i1.PNG"], []),
    "one class": (["zebra/i0.jpg", "zebra/i1.jpg"], []),
    "checkpoints of notebooks": (
        ["lion/i0.jpg", ".ipynb_checkpoints/i0.jpg", "zebra/i0.jpg",
         "zebra/.ipynb_checkpoints/i0-checkpoint.jpg"],
        [".ipynb_checkpoints", "zebra/.ipynb_checkpoints/"],
    ),
    "hidden images": (
        ["lion/i0.jpg", "lion/._i0.jpg", "._zebra", "._i.jpg", "zebra/i0.jpg", "zebra/.i9.jpeg"],
        ["._i.jpg", "._zebra", "lion/._i0.jpg", "zebra/.i9.jpeg"],
    ),
    "hidden folders": (
        ["lion/i0.jpg", ".cache/a/b.jpg", ".thumbnails/zebra.jpg", "zebra/i0.jpg"],
        [".cache", ".thumbnails"],
    ),
    "folders of programs": (
        ["__MACOSX/zebra/._i0.jpg", "lion/@eaDir/i0.jpg", "lion/i0.jpg", "zebra/i0.jpg"],
        ["__MACOSX", "lion/@eaDir/"],
    ),
    "a folder in a class": (
        ["lion/i0.jpg", "zebra/i0.jpg", "zebra/night/n0.jpg"],
        ["zebra/night/"],
    ),
    "a folder in each class": (
        ["lion/i0.jpg", "lion/night/n0.jpg", "zebra/i0.jpg", "zebra/night/deep/n0.jpg"],
        ["lion/night/", "zebra/night/"],
    ),
    "a folder in the only class": (["zebra/i0.jpg", "zebra/night/n0.jpg"], ["zebra/night/"]),
    "an empty folder in a class": (["lion/i0.jpg", "zebra/i0.jpg", "zebra/e/"], ["zebra/e/"]),
    "other files": (
        ["README.txt", "lion/i0.jpg", "lion/notes", "zebra/i0.jpg", "zebra/x.webp", "zebra/y.tif"],
        ["README.txt", "lion/notes", "zebra/x.webp", "zebra/y.tif"],
    ),
    "an archive beside the classes": (
        ["lion/i0.jpg", "more.tar", "zebra/i0.jpg", "zebra/all.tar"],
        ["more.tar", "zebra/all.tar"],
    ),
    "names of other scripts": (["löwe/ä ö.jpg", "シマウマ/１.jpg"], []),
    "names that sort apart": (["a/i.jpg", "a b/i.jpg", "a-b/i.jpg", "B/i.jpg"], []),
}  # fmt: skip
FORMS = [
    "folder",
    "tar -C folder .",
    "tar folder",
    "tar ./folder",
    "tar of a path",
    "tar of a tree",
]


def write_tree(folder, names):
    for name in names:
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG if name.lower().endswith(("jpg", "jpeg")) else png(name))
    return folder


def png(name):
    return tf.io.encode_png(np.full((8, 8, 3), 9, np.uint8)).numpy() if "PNG" in name else b"x"


def archived(folder, form, path):
    """The folder as `form` has it; archives hold their members in no order of names."""
    if form == "folder":
        return folder
    name = {
        "tar -C folder .": ".",
        "tar folder": folder.name,
        "tar ./folder": f"./{folder.name}",
        "tar of a path": f"home/user/data/{folder.name}",
        "tar of a tree": folder.name,
    }[form]
    with tarfile.open(path, "w") as file:
        if form == "tar of a tree":  # files alone, as Python's and GNU tar's -T list them
            for each in sorted(folder.rglob("*"), reverse=True):
                if each.is_file() or not any(each.iterdir()):
                    file.add(each, f"{name}/{each.relative_to(folder)}", recursive=False)
        else:
            file.add(folder, name)
    return path


def listed(source, **options):
    left_out = []
    found, classes = prepare.images(str(source), left_out=left_out.append, **options)
    return [(i.name, i.label, i.read()) for i in found], classes, left_out


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tree", TREES)
def test_every_form_has_the_folders_labels_and_report(tree, form, tmp_path):
    names, left_out = TREES[tree]
    folder = write_tree(tmp_path / "train", names)
    wanted = [n for n in names if n.lower().endswith(("jpg", "png", "jpeg"))
              and len(n.split("/")) == 2 and not n.split("/")[-1].startswith(".")
              and not n.startswith((".", "__"))]  # fmt: skip
    classes = sorted({name.split("/")[0] for name in wanted})
    images, found, report = listed(archived(folder, form, tmp_path / "train.tar"))
    assert found == classes
    assert [(name, label) for name, label, _ in images] == [
        (name, classes.index(name.split("/")[0])) for name in sorted(wanted)
    ]
    assert {content for *_, content in images} <= {JPEG, png("PNG")}
    assert report == sorted(left_out)


def shards(source, output, **options):
    found, classes = prepare.images(str(source))
    splits = {"train": found, "validation": found}
    prepare.write(splits, classes, str(output), {"train": 2, "validation": 1}, **options)
    return {path.name: path.read_bytes() for path in output.iterdir()}


@pytest.mark.parametrize("form", FORMS[1:])
def test_equal_images_give_equal_bytes(form, tmp_path):
    names = ["lion/i0.jpg", "lion/i1.PNG", "lion/.x.jpg", "zebra/i0.jpg", "zebra/n/i1.jpg"]
    folder = write_tree(tmp_path / "train", names)
    whole = shards(folder, tmp_path / "one", workers=1)
    assert "manifest.json" in whole and "prepare.lock" not in whole
    assert shards(folder, tmp_path / "two", workers=3) == whole
    assert shards(archived(folder, form, tmp_path / "t.tar"), tmp_path / "three") == whole


PARENTS = {
    "two splits": ["train/lion/i0.jpg", "train/zebra/i0.jpg", "validation/lion/i0.jpg"],
    "three splits": ["test/lion/i0.jpg", "train/lion/i0.jpg", "val/lion/i0.jpg"],
    "with files beside": ["README", "train/lion/i0.jpg", "val/lion/i0.jpg", "._train"],
    "with classes at one depth more": ["a/train/lion/i0.jpg", "b/train/lion/i0.jpg"],
    "one split bare": ["train/lion/i0.jpg", "validation/i0.jpg"],
    "one split empty": ["train/lion/i0.jpg", "validation/"],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("parent", PARENTS)
def test_the_parent_of_train_and_validation_is_refused(parent, form, tmp_path):
    folder = write_tree(tmp_path / "data", PARENTS[parent])
    with pytest.raises(ValueError, match="Expected .*class folder.*Received: .*"):
        listed(archived(folder, form, tmp_path / "data.tar"))


def test_the_parent_is_told_what_to_give(tmp_path):
    folder = write_tree(tmp_path / "data", PARENTS["two splits"])
    with pytest.raises(ValueError, match="folders of folders, as train, validation. Give the one"):
        listed(folder)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("names", "lost"),
    [
        (["lion/i0.jpg", "zebra/"], "none in zebra"),
        (["lion/i0.jpg", "zebra/._i0.jpg"], r"hidden 1\) in zebra"),
        (["lion/i0.jpg", "zebra/night/n0.jpg"], r"folder 1\) in zebra"),
        (["lion/i0.jpg", "zebra/x.webp"], r".webp 1\) in zebra"),
        (["i0.jpg", "lion/i0.jpg", "zebra/i0.jpg"], "the image i0.jpg outside of any"),
    ],
)
def test_what_is_no_class_is_refused_in_every_form(names, lost, form, tmp_path):
    if "outside" in lost and form not in FORMS[:2]:
        pytest.skip("one folder with images and folders: the only class, with folders in it")
    folder = write_tree(tmp_path / "train", names)
    with pytest.raises(ValueError, match=lost):
        listed(archived(folder, form, tmp_path / "train.tar"))


@pytest.mark.parametrize("form", FORMS)
def test_images_without_classes_in_every_form(form, tmp_path):
    names = ["v2.jpg", "v1.jpg", "._v1.jpg", "notes.txt"]
    folder = write_tree(tmp_path / "val", names)
    (tmp_path / "labels").write_text("n01440764\nn01443537\n")
    images, classes, report = listed(
        archived(folder, form, tmp_path / "val.tar"),
        classes=["n01440764", "n01443537"],
        labels=str(tmp_path / "labels"),
    )
    assert [(name, label) for name, label, _ in images] == [("v1.jpg", 0), ("v2.jpg", 1)]
    assert report == ["._v1.jpg", "notes.txt"]


def member(name, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, io.BytesIO(content)


def tar(path, *members):
    with tarfile.open(path, "w") as file:
        for each in members:
            file.addfile(*each)
    return path


def test_links_in_an_archive_are_followed(tmp_path):
    path = tar(
        tmp_path / "links.tar",
        member("t/lion/first.jpg", type=tarfile.SYMTYPE, linkname="../zebra/i0.jpg"),
        member("t/zebra/i0.jpg", JPEG),
        member("t/zebra/i1.jpg", type=tarfile.LNKTYPE, linkname="t/zebra/i0.jpg"),
    )
    images, classes, _ = listed(path)
    assert classes == ["lion", "zebra"]
    assert images == [("lion/first.jpg", 0, JPEG), ("zebra/i0.jpg", 1, JPEG),
                      ("zebra/i1.jpg", 1, JPEG)]  # fmt: skip


def test_a_link_out_of_an_archive_is_named(tmp_path):
    path = tar(
        tmp_path / "links.tar",
        member("zebra/i0.jpg", JPEG),
        member("zebra/i1.jpg", type=tarfile.SYMTYPE, linkname="/data/i1.jpg"),
    )
    with pytest.raises(ValueError, match="links.tar: .*zebra/i1.jpg, a link to /data/i1.jpg"):
        listed(path)


def test_the_last_of_equal_names_counts_as_when_unpacked(tmp_path):
    path = tar(
        tmp_path / "twice.tar",
        member("zebra/i0.jpg", b"an earlier state"),
        member("zebra/i0.jpg", JPEG),
    )
    assert listed(path)[0] == [("zebra/i0.jpg", 0, JPEG)]


def test_what_is_no_regular_file_is_left_out(tmp_path):
    folder = write_tree(tmp_path / "train", ["zebra/i0.jpg"])
    os.mkfifo(folder / "zebra/pipe.jpg")
    assert listed(folder)[2] == ["zebra/pipe.jpg"]


def test_a_link_to_nowhere_in_a_folder_is_named(tmp_path):
    folder = write_tree(tmp_path / "train", ["zebra/i0.jpg"])
    (folder / "zebra/i1.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(ValueError, match="zebra/i1.jpg: Expected an image .*No such file"):
        shards(folder, tmp_path / "out")


def test_class_archives_with_folders_and_hidden_files_in_them(tmp_path):
    inner = tar(tmp_path / "inner.tar", member("./n1/i0.jpg", JPEG), member("./n1/._i0.jpg", b"x"))
    path = tar(
        tmp_path / "train.tar",
        member("n1.tar", inner.read_bytes()),
        member("n2.tar", tar(tmp_path / "i.tar", member("i0.jpg", JPEG)).read_bytes()),
        member("._n3.tar", b"x"),
    )
    images, classes, report = listed(path)
    assert classes == ["n1", "n2"]
    assert images == [("n1/i0.jpg", 0, JPEG), ("n2/i0.jpg", 1, JPEG)]
    assert report == ["._n3.tar", "n1/._i0.jpg"]


@pytest.mark.parametrize(
    ("pack", "kind"), [(gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "an xz")]
)
def test_a_packed_archive_is_told_how_to_be_unpacked(pack, kind, tmp_path):
    path = tar(tmp_path / "train.tar.gz", member("zebra/i0.jpg", JPEG))
    path.write_bytes(pack(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{path}: .* uncompressed .*{kind} file. Unpack it with"):
        listed(path)


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 5000, bytes(5000)])
def test_what_is_no_archive_is_refused(content, tmp_path):
    (tmp_path / "train.tar").write_bytes(content)
    with pytest.raises(ValueError, match="train.tar"):
        listed(tmp_path / "train.tar")


def test_hidden_files_are_counted_as_such():
    names = ["a/._i.jpg", ".cache", "a/.ipynb_checkpoints/", "a/x.webp"]
    assert prepare.summary(names) == ("4 files that are no images (hidden 2, folder 1, .webp 1)")
