"""From folders and archives to TFRecords, through the script as a user runs it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from neural_alignment import data
from neural_alignment.cli import prepare as command
from neural_alignment.data import prepare
from tests.data import jpegs
from tests.data.jpegs import archive
from tests.data.test_preprocessing import CMYK

CLASSES = ("n01440764", "n01443537", "n02084071")
TRAIN, VALIDATION = 7, 4  # images of a class


def picture(label, number, encode=tf.io.encode_jpeg):
    pixels = np.full((20, 24, 3), 40 * number, np.uint8)
    pixels[:, :, label] = 250
    return encode(pixels).numpy()


@pytest.fixture
def source(tmp_path):
    """Folders train and validation with a folder a class; one PNG and one CMYK JPEG in disguise."""
    for split, count in (("train", TRAIN), ("validation", VALIDATION)):
        for label, name in enumerate(CLASSES):
            folder = tmp_path / "source" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                content = picture(label, number)
                if (split, label, number) == ("train", 0, 2):
                    content = picture(label, number, tf.io.encode_png)
                (folder / f"{name}_{number}.JPEG").write_bytes(content)
    (tmp_path / "source/train/n01440764/n01440764_3.JPEG").write_bytes(CMYK)
    return tmp_path / "source"


def write(source, output, train_shards=3, **options):
    train, classes = prepare.images(str(source / "train"))
    validation, _ = prepare.images(str(source / "validation"), classes)
    splits = {"train": train, "validation": validation}
    return prepare.write(
        splits, classes, str(output), {"train": train_shards, "validation": 2}, **options
    )


def labels_of(folder):
    dataset = data.get("imagenet", data_dir=str(folder), image_size=16)
    return [
        sorted(int(y) for _, labels in batches for y in labels)
        for batches in (dataset.train(1, 0, 0), dataset.validation(5))
    ]


@pytest.mark.parametrize("layout", ["usual", "original"])
def test_folders(source, tmp_path, layout):
    manifest = write(source, tmp_path / "out", layout=layout)
    assert manifest == json.loads((tmp_path / "out/manifest.json").read_text())
    assert {split: sum(each.values()) for split, each in manifest["splits"].items()} == {
        "train": 3 * TRAIN,
        "validation": 3 * VALIDATION,
    }
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "labels.txt", "manifest.json", "plan.json",
        *(f"train-0000{i}-of-00003" for i in range(3)),
        *(f"validation-0000{i}-of-00002" for i in range(2)),
    ]  # fmt: skip
    assert (tmp_path / "out/labels.txt").read_text().split() == list(CLASSES)
    assert labels_of(tmp_path / "out") == [sorted([0, 1, 2] * n) for n in (TRAIN, VALIDATION)]


def test_every_record_is_its_image(source, tmp_path):
    write(source, tmp_path / "out")
    seen = set()
    for path in sorted((tmp_path / "out").glob("train-*")):
        for record in jpegs.read(path):
            feature = tf.train.Example.FromString(record).features.feature
            value = {key: (each.bytes_list.value or each.int64_list.value)[0]
                     for key, each in feature.items()}  # fmt: skip
            name, synset = value["image/filename"].decode(), value["image/class/synset"].decode()
            seen.add(name)
            assert value["image/class/label"] == CLASSES.index(synset) + 1
            original = (source / "train" / synset / name).read_bytes()
            jpeg = value["image/encoded"]
            assert (value["image/height"], value["image/width"]) == (
                (8, 8) if original == CMYK else (20, 24)
            )
            if original == CMYK:
                pixels = tf.io.decode_jpeg(jpeg).numpy()
                np.testing.assert_allclose(pixels.mean((0, 1)), [255, 0, 0], atol=12)
            elif original.startswith(b"\x89PNG"):
                assert jpeg.startswith(b"\xff\xd8\xff")
                np.testing.assert_allclose(
                    tf.io.decode_jpeg(jpeg), tf.io.decode_png(original), atol=12
                )
            else:
                assert jpeg == original
    assert len(seen) == 3 * TRAIN


def test_the_images_are_mixed(source, tmp_path):
    write(source, tmp_path / "out", train_shards=1)
    records = jpegs.read(tmp_path / "out/train-00000-of-00001")
    order = [
        tf.train.Example.FromString(r).features.feature["image/class/label"].int64_list.value[0]
        for r in records
    ]
    assert order != sorted(order)


@pytest.fixture
def archives(source, tmp_path):
    """The same images as ILSVRC's archives, and a file with the classes of validation."""
    inner = []
    for name in CLASSES[::-1]:
        files = sorted((source / "train" / name).iterdir())
        content = archive(tmp_path / "inner.tar", [(f.name, f.read_bytes()) for f in files])
        inner.append((f"{name}.tar", content))
    archive(tmp_path / "train.tar", inner)
    files = sorted((source / "validation").glob("*/*"), key=lambda f: f.name[::-1])
    names = [f"ILSVRC2012_val_{number:08d}" for number in range(1, len(files) + 1)]
    members = [(f"./{name}.JPEG", f.read_bytes()) for name, f in zip(names, files, strict=True)]
    archive(tmp_path / "val.tar", members[::-1])
    return tmp_path, names, [f.parent.name for f in files]


@pytest.mark.parametrize("form", ["order", "name", "csv"])
def test_archives_give_what_folders_give(archives, source, form):
    root, names, owners = archives
    rows = {
        "order": owners,
        "name": [f"{n}.JPEG {o}" for n, o in zip(names, owners, strict=True)][::-1],
        "csv": ["ImageId,PredictionString"]
        + [f"{n},{o} 85 1 499 272 {o} 1 2 3 4" for n, o in zip(names, owners, strict=True)][::-1],
    }[form]
    (root / "labels").write_text("\n".join(rows) + "\n")
    train, classes = prepare.images(str(root / "train.tar"))
    folders, found = prepare.images(str(source / "train"))
    assert classes == found == list(CLASSES)
    assert [(i.name, i.label, i.read()) for i in train] == [
        (i.name, i.label, i.read()) for i in folders
    ]
    validation, _ = prepare.images(str(root / "val.tar"), classes, str(root / "labels"))
    wanted = sorted(zip(names, owners, strict=True))
    assert [(i.name, classes[i.label]) for i in validation] == [(f"{n}.JPEG", o) for n, o in wanted]


@pytest.mark.parametrize(
    "saved",
    [
        lambda text: text.encode("utf-8-sig"),
        lambda text: f"ImageId,Prädiktion\r\n{text}".replace("\n", "\r\n").encode("latin-1"),
        lambda text: f"ImageId,Pr\n{text}\n\n".encode(),
    ],
    ids=["with a mark", "of Windows, in Latin-1", "with empty lines"],
)
def test_labels_saved_by_an_editor(archives, saved):
    root, names, owners = archives
    rows = [f"{n},{o} 85 1 499 272" for n, o in zip(names, owners, strict=True)]
    (root / "labels").write_bytes(saved("\n".join(rows)))
    found, _ = prepare.images(str(root / "val.tar"), CLASSES, str(root / "labels"))
    wanted = sorted(zip(names, owners, strict=True))
    assert [(i.name, CLASSES[i.label]) for i in found] == [(f"{n}.JPEG", o) for n, o in wanted]
    (root / "labels").write_text("\n".join(rows), encoding="utf-16")
    with pytest.raises(ValueError, match="labels: Expected text in UTF-8"):
        prepare.images(str(root / "val.tar"), CLASSES, str(root / "labels"))


def test_names_of_another_encoding_are_kept(source, tmp_path):
    """As they come out of old archives: bytes that are no UTF-8."""
    name = b"stra\xdfe"
    for split in ("train", "validation"):
        os.rename(source / split / CLASSES[2], os.path.join(os.fsencode(source / split), name))
    first = os.fsencode(source / "train" / CLASSES[0])
    os.rename(os.path.join(first, b"n01440764_0.JPEG"), os.path.join(first, b"\xfc.JPEG"))
    write(source, tmp_path / "out")
    assert (tmp_path / "out" / prepare.LABELS).read_bytes().splitlines()[2] == name
    records = tf.data.TFRecordDataset(sorted(map(str, (tmp_path / "out").glob("train-*"))))
    found = [tf.train.Example.FromString(one.numpy()).features.feature for one in records]
    assert {one["image/filename"].bytes_list.value[0] for one in found} > {b"\xfc.JPEG"}
    assert {one["image/class/synset"].bytes_list.value[0] for one in found} > {name}
    write(source, tmp_path / "out")  # goes on


def test_a_class_of_two_lines_is_refused(source, tmp_path):
    for split in ("train", "validation"):
        (source / split / CLASSES[2]).rename(source / split / "two\nlines")
    with pytest.raises(ValueError, match=r"of one line.*'two\\nlines'"):
        write(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_labels_that_do_not_fit(archives):
    root, _, owners = archives
    options = (str(root / "val.tar"), CLASSES, str(root / "labels"))
    (root / "labels").write_text("\n".join(owners[:-1]))
    with pytest.raises(ValueError, match="classes of 12 images. Received: 11 lines, none for ILSV"):
        prepare.images(*options)
    (root / "labels").write_text("\n".join(["n99999999", *owners[1:]]))
    with pytest.raises(ValueError, match="3 classes of the training .* Received: n99999999"):
        prepare.images(*options)
    (root / "labels").write_text("n01440764\n7\n")
    with pytest.raises(ValueError, match="class like n01440764 in every line. Received: '7'"):
        prepare.images(*options)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        prepare.images(str(root / "val.tar"), CLASSES, str(root / "nowhere"))
    with pytest.raises(ValueError, match="outside of any.*--validation_labels"):
        prepare.images(str(root / "val.tar"), CLASSES)


def test_sources_that_are_none(tmp_path, archives):
    with pytest.raises(FileNotFoundError, match="Expected a folder or a .tar archive"):
        prepare.images(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="Expected images .* Received: none"):
        prepare.images(str(tmp_path / "empty"))
    root, *_ = archives
    whole = (root / "train.tar").read_bytes()
    for content in (whole[: len(whole) // 2], b"no archive at all" * 100):
        (root / "train.tar").write_bytes(content)
        with pytest.raises(ValueError, match="train.tar: Expected"):
            prepare.images(str(root / "train.tar"))


def test_an_unreadable_image_is_named(source, tmp_path):
    name = f"{CLASSES[1]}/{CLASSES[1]}_4.JPEG"
    path = source / "train" / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"{name}: Expected an image that can be decoded"):
        write(source, tmp_path / "out")
    manifest = write(source, tmp_path / "out", max_unreadable=1)  # goes on with the same folder
    assert manifest["unreadable"] == [name]
    assert (tmp_path / "out/unreadable.txt").read_text() == f"{name}\n"
    assert sum(manifest["splits"]["train"].values()) == 3 * TRAIN - 1
    assert len(labels_of(tmp_path / "out")[0]) == 3 * TRAIN - 1


def test_an_unreadable_image_may_be_replaced(source, tmp_path):
    paths = [source / f"train/{CLASSES[1]}/{CLASSES[1]}_{number}.JPEG" for number in (1, 4)]
    for path in paths:
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="allow more .* with --max_unreadable .now 1"):
        write(source, tmp_path / "out", train_shards=1, max_unreadable=1)
    for path in paths:
        path.write_bytes(picture(1, 5))  # of another size than it was cut to
    manifest = write(source, tmp_path / "out", train_shards=1, max_unreadable=1)
    assert manifest["unreadable"] == []
    assert manifest["splits"]["train"] == {"train-00000-of-00001": 3 * TRAIN}


def test_what_is_no_image_is_told(source, tmp_path):
    folder = source / "train" / CLASSES[0]
    for name in ("one.webp", "two.WEBP", "notes"):
        (folder / name).write_bytes(b"x")
    (folder / "more").mkdir()
    (source / "train/README.txt").write_text("x")
    (source / "train/.cache").mkdir()
    (folder / "three.jfif").write_bytes(picture(0, 3))
    left_out = []
    found, _ = prepare.images(str(source / "train"), left_out=left_out.append)
    assert len(found) == 3 * TRAIN + 1
    assert sorted(left_out) == [
        ".cache", "README.txt",
        *(f"{CLASSES[0]}/{name}" for name in ("more/", "notes", "one.webp", "two.WEBP")),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["c/a.webp", "c/b.WEBP", "c/d/"], "3 files that are no images (.webp 2, folder 1)"),
        (["notes"], "1 file that is no image (no ending 1)"),
    ],
)
def test_what_is_no_image_is_counted_by_kind(names, expected):
    assert prepare.summary(names) == expected


@pytest.mark.parametrize(
    ("archived", "files"),
    [
        (None, ["a.webp", "b.webp"]),
        (None, []),
        ("classes", ["a.webp", "b.webp"]),
        ("classes", []),
        ("files", ["a.webp", "b.webp"]),
    ],
)
def test_a_class_without_images_is_an_error(source, archives, archived, files):
    root, *_ = archives
    lost = source / "train/n01000000"  # the first: the labels of all others would shift
    lost.mkdir()
    for name in files:
        (lost / name).write_bytes(b"x")
    place = source / "train"
    if archived == "classes":
        place = root / "lost.tar"
        inner = [
            (
                f"{folder.name}.tar",
                archive(root / "inner.tar", [(f.name, f.read_bytes()) for f in folder.iterdir()]),
            )
            for folder in (source / "train").iterdir()
        ]
        archive(place, inner)
    elif archived == "files":
        place = root / "lost.tar"
        members = [(f"top/{f.parent.name}/{f.name}", f.read_bytes())
                   for f in (source / "train").glob("*/*")]  # fmt: skip
        archive(place, [("top/README", b"x"), *members])
    received = "none, but 2 files that are no images .*webp 2.*" if files else "none"
    with pytest.raises(ValueError, match=f"in every class .* Received: {received} in n01000000"):
        prepare.images(str(place))


def test_files_beside_the_classes_of_an_archive(source, tmp_path):
    members = [(f"top/{f.parent.name}/{f.name}", f.read_bytes())
               for f in (source / "train").glob("*/*")]  # fmt: skip
    archive(tmp_path / "train.tar", [("top/README", b"x"), *members])
    left_out = []
    found, classes = prepare.images(str(tmp_path / "train.tar"), left_out=left_out.append)
    assert (len(found), classes, left_out) == (3 * TRAIN, list(CLASSES), ["README"])


def test_a_folder_with_something_else_is_refused(source, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("unique")
    with pytest.raises(ValueError, match="Expected an empty folder.*thesis.tex"):
        write(source, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other/train-00000-of-00003").write_text("of another set")
    with pytest.raises(ValueError, match="Expected an empty folder"):
        write(source, tmp_path / "other")
    assert (tmp_path / "other/train-00000-of-00003").read_text() == "of another set"


def test_a_folder_begun_with_other_images_or_options_is_refused(source, tmp_path):
    write(source, tmp_path / "out")
    with pytest.raises(ValueError, match="Received: others in layout"):
        write(source, tmp_path / "out", layout="original")
    with pytest.raises(ValueError, match="Received: others in train"):
        write(source, tmp_path / "out", train_shards=4)
    (source / "validation" / CLASSES[0] / "more.JPEG").write_bytes(picture(0, 1))
    with pytest.raises(ValueError, match="Received: others in validation"):
        write(source, tmp_path / "out")


def test_it_goes_on_where_it_stopped(source, tmp_path, monkeypatch):
    write(source, tmp_path / "straight")
    whole = {path.name: path.read_bytes() for path in (tmp_path / "straight").iterdir()}
    to_jpeg, seen = prepare.to_jpeg, []

    def stop(contents):
        seen.append(contents)
        if len(seen) > 10:
            raise KeyboardInterrupt
        return to_jpeg(contents)

    monkeypatch.setattr(prepare, "to_jpeg", stop)
    with pytest.raises(KeyboardInterrupt):
        write(source, tmp_path / "out", workers=1)
    assert (tmp_path / "out/train-00000-of-00003").exists()
    assert not (tmp_path / "out/train-00001-of-00003").exists()
    assert not (tmp_path / "out/manifest.json").exists()
    again, progress = [], []
    monkeypatch.setattr(prepare, "to_jpeg", lambda c: again.append(c) or to_jpeg(c))
    write(source, tmp_path / "out", progress=lambda *each: progress.append(each))
    assert len(again) == 2 * TRAIN + 3 * VALIDATION
    assert sum(count for split, count in progress if split == "train") == 3 * TRAIN
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == whole


def test_options_without_sense(source, tmp_path):
    for options, message in (
        ({"layout": "best"}, "Expected a layout: original, usual"),
        ({"train_shards": 22}, "Expected 1 to 21 train shards"),
        ({"max_unreadable": -1}, "Expected max_unreadable >= 0"),
    ):
        with pytest.raises(ValueError, match=message):
            write(source, tmp_path / "out", **options)


def run(*arguments):
    command = [sys.executable, str(jpegs.ROOT / "scripts/prepare_imagenet.py"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(jpegs.ROOT)}
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_the_script(source, tmp_path):
    arguments = [
        f"--train={source}/train",
        f"--validation={source}/validation",
        f"--output_dir={tmp_path}/out",
        "--train_shards=3",
        "--validation_shards=2",
    ]
    (source / "train" / CLASSES[0] / "more.webp").write_bytes(b"x")
    process = run(*arguments)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "train, left out: 1 file that is no image (.webp 1)" in output
    assert "train: 21 images in 3 shards" in output
    assert "validation: 12 images in 2 shards" in output
    assert labels_of(tmp_path / "out") == [sorted([0, 1, 2] * n) for n in (TRAIN, VALIDATION)]


def test_the_script_without_sense(source, tmp_path):
    help_, wrong = (
        run("--help"),
        run(f"--train={source}/nowhere", "--validation=x", f"--output_dir={tmp_path}/out"),
    )
    bucket = run(f"--train={source}/train", "--validation=x", "--output_dir=gs://bucket/out")
    output, errors = bucket.communicate()
    assert bucket.returncode == 1 and "--output_dir: Expected a local folder" in errors
    output, errors = wrong.communicate()
    assert wrong.returncode == 1 and "Traceback" not in errors
    assert errors.strip().endswith(f"archive. Received: {source}/nowhere.")
    output, _ = help_.communicate()
    assert "--train_shards" in output and "tensorflow" not in output.lower()


# What is prepared into which folder; the words of the refusal.
PLACES = {
    "one folder twice": ("train", "train", "out", "--validation: expected other images"),
    "one folder, spelt anew": ("train", "validation/../train", "out", "--validation: expected"),
    "among the classes": ("train", "validation", "train/out", "outside of --train="),
    "a class itself": ("train", "validation", "train/n01440764", "outside of --train="),
    "among those of validation": ("train", "validation", "validation/x/y", "of --validation="),
}


@pytest.mark.parametrize("case", PLACES)
def test_places_that_make_no_sense(case, source, capsys):
    train, validation, output, words = PLACES[case]
    flags_ = [f"--train={source}/{train}", f"--validation={source}/{validation}"]
    before = sorted(source.rglob("*"))
    assert command.main(["prepare", *flags_, f"--output_dir={source}/{output}"]) == 2
    assert words in capsys.readouterr().err
    assert sorted(source.rglob("*")) == before


def test_a_small_set_needs_no_number_of_shards(source, tmp_path, capsys):
    flags_ = [f"--train={source}/train", f"--validation={source}/validation"]
    assert command.main(["prepare", *flags_, f"--output_dir={tmp_path}/out"]) == 0
    assert "train: 21 images in 21 shards" in capsys.readouterr().out
    assert labels_of(tmp_path / "out") == [sorted([0, 1, 2] * n) for n in (TRAIN, VALIDATION)]


@pytest.mark.parametrize("asked", ["-h", "--help"])
def test_help_of_the_script(asked):
    process = run(asked)
    output, errors = process.communicate()
    assert process.returncode == 0 and not errors
    assert "--train_shards" in output and "LOC_val_solution.csv" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bogus=1"], "Unknown command line flag 'bogus'"),
        (["--train=x", "--validation=y"], "--output_dir: expected a path; it is required"),
        (
            ["--train=x", "--validation=y", "--output_dir=z", "--workers=0"],
            "expected a whole number >= 1",
        ),
    ],
)
def test_flags_of_the_script_that_make_no_sense(arguments, message):
    process = run(*arguments)
    _, errors = process.communicate()
    assert process.returncode == 2 and message in errors and "Traceback" not in errors


@pytest.mark.parametrize(
    "flag",
    [
        "train",
        *(pytest.param(f, marks=pytest.mark.slow) for f in ("validation", "validation_labels")),
        pytest.param("output_dir", marks=pytest.mark.slow),
    ],
)
def test_paths_of_the_script(flag, source, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(source.parent))
    monkeypatch.chdir(tmp_path)
    paths = {"train": "~/source/train", "validation": "~/source/validation", "output_dir": "~/out"}
    shards = ["--train_shards=1", "--validation_shards=1"]
    process = run(*(f"--{name}={path}" for name, path in (paths | {flag: ""}).items()), *shards)
    _, errors = process.communicate()
    assert process.returncode == 2 and f"--{flag}=: expected a path" in errors
    assert not (source.parent / "out").exists()
    if flag == "output_dir":
        process = run(*(f"--{name}={path}" for name, path in paths.items()), *shards)
        _, errors = process.communicate()
        assert process.returncode == 0, errors
        assert (source.parent / "out/manifest.json").exists() and not (tmp_path / "~").exists()


@pytest.mark.slow
def test_the_digits_script_says_that_the_disk_is_full(tmp_path):
    (tmp_path / "file").touch()
    result = subprocess.run(
        [sys.executable, str(jpegs.ROOT / "scripts/make_digits_tfrecords.py"),
         f"--output_dir={tmp_path}/file/below"],
        env=os.environ | {"PYTHONPATH": str(jpegs.ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert f"{tmp_path}/file/below: Expected a folder that can be written to" in result.stderr


def test_the_digits_script_refuses_a_folder_in_use(tmp_path):
    (tmp_path / "file").touch()
    result = subprocess.run(
        [sys.executable, str(jpegs.ROOT / "scripts/make_digits_tfrecords.py"),
         f"--output_dir={tmp_path}"],
        env=os.environ | {"PYTHONPATH": str(jpegs.ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert result.returncode == 1 and "Expected an empty or new --output_dir" in result.stderr
