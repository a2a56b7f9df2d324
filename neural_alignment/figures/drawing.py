"""Draws figures by name from folders, and writes them."""

from __future__ import annotations

import csv
import dataclasses
import errno
import io
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from neural_alignment import atomic, extras
from neural_alignment.figures.material import Choices, Drawn, Material, NotDrawn
from neural_alignment.figures.reader import Found, read
from neural_alignment.figures.registry import FORMATS, KINDS, RUNS, SEARCH

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Written:
    """What drawing left.

    Args:
        files: that were written.
        notes: runs that were left out, and why.
        not_drawn: figure to what it lacks.
    """

    files: Sequence[pathlib.Path]
    notes: Sequence[str]
    not_drawn: dict[str, str]


def draw(
    folders: Iterable[str | pathlib.Path] = (),
    outdir: str | pathlib.Path = "figures",
    names: Sequence[str] = (),
    formats: Sequence[str] = ("png", "pdf"),
    choices: Choices | None = None,
    labels: Mapping[str | pathlib.Path, str] | None = None,
) -> Written:
    """Draws figures, each to a file of every format and the numbers in it to a CSV file.

    Args:
        folders: run directories, search directories, or folders that hold some; runs that differ by
            their seed alone are drawn together.
        outdir: folder to write to; made if need be, files in it replaced.
        names: of figures; () is all that the folders have what it takes for.
        formats: of `FORMATS`.
        choices: of layers and epochs, where a figure shows a few.
        labels: what runs are to be called, by their folder as in `folders`.

    Returns:
        What was written, and what was not and why.

    Raises:
        NotDrawn: a figure that was asked for by name lacks something; nothing is written then.
        RunReadError: a folder that holds no run, or a table that cannot be read.
        ValueError: an unknown figure or format.
        MissingPackageError: Matplotlib is not installed.
        OSError: a file cannot be written.
    """
    _known("figure", names, KINDS)
    _known("format", formats, FORMATS)
    extras.require("drawing figures", "matplotlib")
    outdir = pathlib.Path(outdir)
    if any(path.is_file() for path in (outdir, *outdir.parents)):  # told before minutes of drawing
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(outdir))
    found = read(folders, labels)
    drawn, notes, not_drawn = _drawn(names or _fitting(found), bool(names), found, choices)
    outdir.mkdir(parents=True, exist_ok=True)
    files = [path for name, one in drawn.items() for path in write(one, outdir / name, formats)]
    return Written(files, notes, not_drawn)


def _known(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    for name in given:
        if name not in known:
            raise ValueError(f"Expected a {what} of {', '.join(known)}. Received: {name!r}")


def _fitting(found: Found) -> list[str]:
    """The figures that are made of what is there."""
    there = {RUNS: bool(found.runs), SEARCH: bool(found.searches)}
    return [name for name, kind in KINDS.items() if there.get(kind.of)]


def _drawn(
    names: Sequence[str], asked: bool, found: Found, choices: Choices | None
) -> tuple[dict[str, Drawn], list[str], dict[str, str]]:
    from neural_alignment.figures import style

    drawn: dict[str, Drawn] = {}
    not_drawn: dict[str, str] = {}
    of_figures: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        material = Material(found.runs, found.searches, choices or Choices())
        with style.context():
            try:
                if KINDS[name].of == RUNS and not found.runs:
                    raise NotDrawn("Expected run directories with a whole epoch. Received: none")
                drawn[name] = KINDS[name].draw(material)
            except NotDrawn as error:
                if asked:
                    raise NotDrawn(f"{name}: {error}") from error
                not_drawn[name] = str(error)
        for note in material.notes:
            of_figures.setdefault(note, []).append(name)
    notes = [*found.notes, *(f"{', '.join(names)}: {note}" for note, names in of_figures.items())]
    return drawn, notes, not_drawn


def write(drawn: Drawn, path: pathlib.Path, formats: Sequence[str]) -> list[pathlib.Path]:
    """Writes a figure and its numbers.

    Args:
        drawn: the figure.
        path: of the files, without an ending.
        formats: of `FORMATS`.

    Returns:
        The files.

    Raises:
        OSError: one cannot be written.
    """
    from neural_alignment.figures import style

    # No time of day and no version in a file: the same numbers give the same bytes.
    unsaid = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
    files = [path.with_name(f"{path.name}.{ending}") for ending in formats]
    with style.context():
        for file, ending in zip(files, formats, strict=True):
            with style.letters_told(file):
                _save(drawn.figure, file, format=ending, metadata=unsaid[ending])
    text = io.StringIO()
    writer = csv.DictWriter(text, list(drawn.table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(drawn.table)
    files.append(path.with_name(f"{path.name}.csv"))
    atomic.write_text(files[-1], text.getvalue(), shared=True)
    return files


def _save(figure: Figure, file: pathlib.Path, **options: Any) -> None:
    """Writes a figure so that its file is there whole, or is what it was before."""
    part = atomic.part_of(file)
    try:
        figure.savefig(part, **options)
        part.replace(file)
    except OSError as error:
        atomic.remove(part)
        if error.errno is None:  # of Matplotlib, with no file in it
            raise
        raise OSError(error.errno, error.strerror, str(file)) from error
