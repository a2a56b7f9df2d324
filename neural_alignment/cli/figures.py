"""`neural-alignment figures`: draws figures of runs, of searches, and of the papers' theory."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neural_alignment import config
from neural_alignment.cli import environment
from neural_alignment.cli.parse import Program, check_given, help_text, parse, wants_help
from neural_alignment.cli.running import run, table, to_stdout
from neural_alignment.config.options import (
    PathText,
    UsageError,
    define_group,
    option,
    path_of,
    read_group,
    settings_of,
)
from neural_alignment.exits import DONE, FAILED
from neural_alignment.figures.assembly import AssemblyError
from neural_alignment.figures.material import Choices, NotDrawn
from neural_alignment.figures.reader import has_checkpoints
from neural_alignment.figures.registry import FORMATS, KINDS, RUNS, SEARCH
from neural_alignment.figures.tables import RunReadError
from neural_alignment.runs.folders import is_run


def _names() -> tuple[str, ...]:
    return tuple(KINDS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawing:
    """What is to be drawn, and where to."""

    figures: tuple[str, ...] = option(
        (),
        "figures to draw, comma-separated; without it all that the runs have what it takes for",
        _names,
        flag="figure",
        main=True,
    )
    outdir: PathText = option("figures", "folder to write to", main=True)
    formats: tuple[str, ...] = option(
        ("png", "pdf"), "formats, beside the CSV file", FORMATS, flag="format", main=True
    )
    layers: tuple[str, ...] = option(
        (),
        "layers to show (scatter, as layers.csv names them) or to score (predictivity)",
        main=True,
    )
    epochs: tuple[float, ...] = option((), "epochs of its checkpoints", low=0, main=True)
    assembly: PathText | None = option(
        None, "responses of neurons, HDF5 or netCDF-4 (predictivity)", main=True
    )
    features: PathText | None = option(
        None,
        "a network's features for the same images, .npz or HDF5, an array a layer; or a run "
        "directory, whose newest model sees the assembly's pixels",
        main=True,
    )
    components: int = option(25, "of the partial least squares (predictivity)", low=1)
    listed: bool = option(False, "list the figures and what each needs", flag="list", main=True)


_PROGRAM = Program(
    usage="usage: neural-alignment figures [LABEL=]RUN ... [--figure=NAME,...] [--outdir=DIR]\n"
    "       neural-alignment figures --list",
    about="Draws figures from run directories (or folders of them) and search directories: each as "
    "PNG, PDF and the CSV behind it. Runs that differ by their seed alone are drawn together.",
    define=lambda fv: define_group(Drawing, fv),
    sections=lambda: [("Figures", settings_of(Drawing))],
    page="docs/figures.md",
)

_SOURCES = (
    "Figures of [K] Kunin et al. 2020, [A] Akrout et al. 2019, [P] Ji-An & Benna 2024, and of runs"
)

# Flags that only one figure reads.
_OF_FIGURES = {
    "layers": ("scatter", "predictivity"),
    "epochs": ("scatter",),
    "assembly": ("predictivity",),
    "features": ("predictivity",),
    "components": ("predictivity",),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Draws what a command line asks for; may be called again in the same process.

    Args:
        argv: the command line, the program's name first; None: this process's.

    Returns:
        The exit code: 0; 1 for an error; 2 for wrong usage.
    """
    return run(_main, argv, (AssemblyError, NotDrawn, RunReadError, RuntimeError))


def _main(argv: Sequence[str]) -> int:
    if wants_help(argv):
        sys.stdout.write(help_text(_PROGRAM, full=True))
        return DONE
    fv, folders = parse(_PROGRAM, config.expand(argv, presets=False))
    check_given(fv, "figure", "format", "layers", "epochs")
    drawing = read_group(Drawing, fv)
    if drawing.listed:
        _show_kinds()
        return DONE
    for flag, figures in _OF_FIGURES.items():
        drawn = set(figures) & set(drawing.figures or ("scatter",))
        if fv[flag].present and not drawn:
            raise UsageError(
                f"--{flag}: expected with --figure={' or '.join(figures)} alone. Received: "
                f"--figure={','.join(drawing.figures) or 'none'}"
            )
    of_folders = [name for name in drawing.figures if KINDS[name].of in (RUNS, SEARCH)]
    if not folders and (of_folders or not drawing.figures):
        raise UsageError(
            "expected run directories, or --figure=NAME of one that needs none. Received: none. "
            "--list lists the figures"
        )
    return _draw(drawing, folders)


def _draw(drawing: Drawing, folders: Sequence[str]) -> int:
    of_neurons = ("h5py", "sklearn") if "predictivity" in drawing.figures else ()
    environment.require("figures", "rich", "matplotlib", *of_neurons)
    from neural_alignment.figures import draw

    labels, paths = {}, []
    for given in folders:
        label, mark, path = given.partition("=")
        if not mark or Path(given).exists():
            label, path = "", given
        paths.append(path_of("RUN", path))
        if label:
            labels[paths[-1]] = label
    if "scatter" in drawing.figures or (not drawing.figures and any(map(has_checkpoints, paths))):
        # TensorFlow reads the checkpoints; without it there are the other figures.
        spared = () if drawing.figures else environment.UnusableError
        with contextlib.suppress(spared):
            environment.prepare("figures")
            environment.import_tensorflow()
    features: str | dict[str, Any] | None = drawing.features
    if drawing.features and drawing.assembly and is_run(Path(drawing.features)):
        features = _features_of_run(drawing.features, drawing.assembly, drawing.layers)
    written = draw(
        paths,
        drawing.outdir,
        drawing.figures,
        drawing.formats,
        Choices(
            drawing.layers,
            drawing.epochs,
            drawing.assembly,
            features,
            drawing.components,
        ),
        labels,
    )
    console = to_stdout()
    for path in written.files:
        console.print(str(path), soft_wrap=True, highlight=False, markup=False)
    for name, lacking in written.not_drawn.items():
        environment.say(f"{name} is not drawn: {lacking}\n")
    for note in written.notes:
        environment.say(f"note: {note}\n")
    if not written.files:
        environment.say("error: nothing could be drawn\n")
    return DONE if written.files else FAILED


def _features_of_run(run: str, assembly: str, layers: Sequence[str]) -> dict[str, Any]:
    """What the layers of a run's newest model give for the assembly's pixels."""
    from neural_alignment.figures.assembly import read_images
    from neural_alignment.figures.features import layer_features

    images = read_images(assembly)
    environment.prepare("figures")
    environment.import_tensorflow()
    from neural_alignment.training import load_run

    return layer_features(load_run(run), images, layers)


def _show_kinds() -> None:
    environment.require("figures", "rich")
    listed = table(_SOURCES, ("figure", "shows", "published as", "of", "needs"))
    for name, kind in KINDS.items():
        listed.add_row(name, kind.about, kind.source, kind.of, kind.needs.replace("`", ""))
    to_stdout().print(listed, markup=False)


if __name__ == "__main__":
    sys.exit(main())
