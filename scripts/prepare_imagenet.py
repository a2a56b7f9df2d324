r"""Turns ImageNet, or any folder of class folders, into the TFRecords that --data_dir wants.

From folders (train/n01440764/*.JPEG, validation/n01440764/*.JPEG):

    python scripts/prepare_imagenet.py --train=train --validation=validation --output_dir=OUT

From the official archives, without unpacking them:

    python scripts/prepare_imagenet.py --train=ILSVRC2012_img_train.tar \
        --validation=ILSVRC2012_img_val.tar --validation_labels=LABELS.txt --output_dir=OUT

LABELS.txt has a line with the class (n01751748) of each validation image, in the order of their
names, or with the image's name in it (LOC_val_solution.csv will do). Classes sorted by name get the
labels 0, 1, ... Stopped at any moment, the same command goes on with the first unfinished shard.
"""

from __future__ import annotations

import os
import sys

from absl import app, flags

from neural_alignment.config.options import expand_path
from neural_alignment.data import prepare
from neural_alignment.exits import USAGE
from neural_alignment.lock import LockedError

_PATHS = ("train", "validation", "validation_labels", "output_dir")


def _define_flags() -> None:
    flags.DEFINE_string("train", None, "folder of class folders, or archive", required=True)
    flags.DEFINE_string("validation", None, "the same for validation", required=True)
    flags.DEFINE_string("validation_labels", None, "file with the validation images' classes")
    flags.DEFINE_string("output_dir", None, "folder to write to", required=True)
    flags.DEFINE_integer("train_shards", 1024, "files of the training split", lower_bound=1)
    flags.DEFINE_integer("validation_shards", 128, "files of validation", lower_bound=1)
    flags.DEFINE_enum(
        "layout",
        "usual",
        sorted(prepare.FORMATS),
        "features: image/encoded and image/class/label from 1, or images and labels from 0",
    )
    flags.DEFINE_integer("max_unreadable", 0, "corrupt images to leave out", lower_bound=0)
    flags.DEFINE_integer("workers", None, "threads; as many as cores by default", lower_bound=1)


def main(argv: list[str]) -> None:
    """Reads the flags, lists the images, writes the shards."""
    values = flags.FLAGS
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {' '.join(argv[1:])}.")
    try:
        for path in _PATHS:
            if values[path].value is not None:
                values[path].value = _path(path, values[path].value)
        _run(values)
    except (LockedError, OSError, ValueError) as error:
        sys.exit(f"{os.path.basename(sys.argv[0])}: {error}")
    except KeyboardInterrupt:
        sys.exit("Stopped. The same command goes on with the first unfinished shard.")


def _path(flag: str, text: str) -> str:
    try:
        return expand_path(text)
    except ValueError as error:
        raise ValueError(f"--{flag}: {error}") from None


def _parse(argv: list[str]) -> list[str]:
    if {"-h", "-help", "--help"}.intersection(argv):
        sys.stdout.write(f"{__doc__}\nflags:{flags.FLAGS.module_help('__main__')}\n")
        sys.exit(0)
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        sys.stderr.write(f"{os.path.basename(argv[0])}: {error}\nPass --help to see the flags.\n")
        sys.exit(USAGE)


def _run(values: flags.FlagValues) -> None:
    import rich.console
    import rich.progress

    if "://" in values.output_dir:
        raise ValueError(
            "--output_dir: Expected a local folder, or a mounted bucket. Received: "
            f"{values.output_dir}. Write to a local folder, then copy the files there."
        )
    console = rich.console.Console()
    others = {"train": [], "validation": []}
    train, classes = prepare.images(values.train, left_out=others["train"].append)
    validation, _ = prepare.images(
        values.validation, classes, values.validation_labels, others["validation"].append
    )
    splits = {"train": train, "validation": validation}
    for split, found in splits.items():
        console.print(f"{split}: {len(found)} images, {len(classes)} classes")
        if others[split]:
            console.print(f"{split}, left out: {prepare.summary(others[split])}")
    columns = (
        *rich.progress.Progress.get_default_columns(),
        rich.progress.MofNCompleteColumn(),
    )
    with rich.progress.Progress(*columns, console=console) as bar:
        tasks = {split: bar.add_task(split, total=len(found)) for split, found in splits.items()}
        manifest = prepare.write(
            splits,
            classes,
            values.output_dir,
            {"train": values.train_shards, "validation": values.validation_shards},
            values.layout,
            values.max_unreadable,
            values.workers,
            lambda split, count: bar.advance(tasks[split], count),
        )
    for split, counts in manifest["splits"].items():
        console.print(f"{split}: {sum(counts.values())} images in {len(counts)} shards")
    if manifest["unreadable"]:
        console.print(f"left out: {len(manifest['unreadable'])}, see {prepare.UNREADABLE}")


if __name__ == "__main__":
    _define_flags()
    app.run(main, flags_parser=_parse)
