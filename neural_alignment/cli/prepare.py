"""`neural-alignment prepare`: turns images into the TFRecords that `--data_dir` wants."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from neural_alignment import config
from neural_alignment.cli import environment
from neural_alignment.cli.parse import Program, help_text, parse, wants_help
from neural_alignment.cli.running import run
from neural_alignment.config.options import (
    PathText,
    UsageError,
    define_group,
    option,
    read_group,
    settings_of,
)
from neural_alignment.data import prepare
from neural_alignment.data.folders import check_two_classes
from neural_alignment.exits import DONE, INTERRUPTED, Interrupted
from neural_alignment.lock import LockedError


def _layouts() -> tuple[str, ...]:
    return tuple(sorted(prepare.FORMATS))


# Files of a split where no flag says how many; of fewer images one each.
_SHARDS = {"train": 1024, "validation": 128}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preparation:
    """What is to be prepared, and how."""

    train: PathText | None = option(None, "folder of class folders, or archive", main=True)
    validation: PathText | None = option(None, "the same for validation", main=True)
    validation_labels: PathText | None = option(
        None,
        "file with the class of each validation image, a line each in the order of their names, or "
        "with the image's name in it (LOC_val_solution.csv will do)",
        main=True,
    )
    output_dir: PathText | None = option(None, "folder to write to", main=True)
    train_shards: int | None = option(
        None, f"files of the training split; {_SHARDS['train']} by default", low=1, main=True
    )
    validation_shards: int | None = option(
        None, f"files of validation; {_SHARDS['validation']} by default", low=1, main=True
    )
    layout: str = option(
        "usual",
        "features: image/encoded and image/class/label from 1, or images and labels from 0",
        _layouts,
        main=True,
    )
    max_unreadable: int = option(0, "corrupt images to leave out", low=0, main=True)
    workers: int | None = option(None, "threads; as many as cores by default", low=1, main=True)


_PROGRAM = Program(
    usage="usage: neural-alignment prepare --train=PATH --validation=PATH --output_dir=PATH "
    "[--FLAG=VALUE ...]",
    about="Turns ImageNet, or any folder of class folders, into the TFRecords that --data_dir "
    "wants. Stopped at any moment, the same command goes on with the first unfinished shard.",
    define=lambda fv: define_group(Preparation, fv),
    sections=lambda: [("Images", settings_of(Preparation))],
    page="docs/imagenet.md",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the flags, lists the images, writes the shards.

    Args:
        argv: the command line, the script's name first; None: this process's.

    Returns:
        The exit code: 0; 1 for an error; 2 for wrong usage; 75 where it was interrupted.
    """
    words = "Stopped. The same command goes on with the first unfinished shard."
    errors = (LockedError, ValueError, environment.UnusableError)
    return run(_main, argv, errors, stopped=Interrupted(signal.SIGINT, words, INTERRUPTED))


def _main(argv: Sequence[str]) -> int:
    if wants_help(argv):
        sys.stdout.write(help_text(_PROGRAM, full=True))
        return DONE
    wanted = _read(argv)
    environment.prepare("prepare")
    environment.import_tensorflow()
    _run(wanted)
    return DONE


def _read(argv: Sequence[str]) -> Preparation:
    fv, rest = parse(_PROGRAM, config.expand(argv, presets=False))
    if rest:
        raise UsageError(f"expected flags only. Received: {' '.join(rest)}")
    wanted = read_group(Preparation, fv)
    for name in ("train", "validation", "output_dir"):
        if getattr(wanted, name) is None:
            raise UsageError(f"--{name}: expected a path; it is required. Received: none")
    return wanted


def _run(wanted: Preparation) -> None:
    import rich.console
    import rich.progress

    if "://" in wanted.output_dir:
        raise ValueError(
            "--output_dir: Expected a local folder, or a mounted bucket. Received: "
            f"{wanted.output_dir}. Write to a local folder, then copy the files there."
        )
    _check_places(wanted)
    console = rich.console.Console()
    others = {"train": [], "validation": []}
    train, classes = prepare.images(wanted.train, left_out=others["train"].append)
    check_two_classes(classes, wanted.train)
    validation, _ = prepare.images(
        wanted.validation, classes, wanted.validation_labels, others["validation"].append
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
            wanted.output_dir,
            _shards(wanted, splits),
            wanted.layout,
            wanted.max_unreadable,
            wanted.workers,
            lambda split, count: bar.advance(tasks[split], count),
        )
    for split, counts in manifest["splits"].items():
        console.print(f"{split}: {sum(counts.values())} images in {len(counts)} shards")
    if manifest["unreadable"]:
        console.print(f"left out: {len(manifest['unreadable'])}, see {prepare.UNREADABLE}")


def _shards(wanted: Preparation, splits: Mapping[str, Sequence[Any]]) -> dict[str, int]:
    given = {"train": wanted.train_shards, "validation": wanted.validation_shards}
    return {
        split: given[split] or max(1, min(_SHARDS[split], len(found)))
        for split, found in splits.items()
    }


def _check_places(wanted: Preparation) -> None:
    """Refuses to validate on the training images, and to write among the classes."""
    train, validation = map(os.path.realpath, (wanted.train, wanted.validation))
    if train == validation and os.path.exists(train):
        raise UsageError(
            f"--validation: expected other images than those of --train. Received: {train} for both"
        )
    output = os.path.realpath(wanted.output_dir)
    for flag, source in (("train", train), ("validation", validation)):
        if os.path.isdir(source) and os.path.commonpath([source, output]) == source:
            raise UsageError(
                f"--output_dir: expected a folder outside of --{flag}={source}, where it would be "
                f"taken for a class. Received: {output}"
            )
