"""Neural predictivity of a network's layers, drawn ([K] appendix B.5)."""

from __future__ import annotations

import numpy as np
import rich.console
import rich.progress

from neural_alignment import extras
from neural_alignment.figures import style
from neural_alignment.figures.assembly import read_assembly, read_features
from neural_alignment.figures.material import Drawn, Material, NotDrawn, Row
from neural_alignment.figures.predictivity import Predictivity, best, median, predictivity


def draw(material: Material) -> Drawn:
    """Median correlation over sites of every layer, with quartiles: raw, and by the reliability.

    Args:
        material: `choices.assembly` and `choices.features` are the files.

    Returns:
        The figure, and each layer's medians, quartiles and number of sites.

    Raises:
        NotDrawn: a file is not given, or no layer has a score.
        AssemblyError: a file cannot be used.
        MissingPackageError: h5py or scikit-learn is not installed.
    """
    choices = material.choices
    if choices.assembly is None or choices.features is None:
        raise NotDrawn(
            "Expected --assembly=FILE, responses of neurons (HDF5 or netCDF-4), and "
            "--features=FILE, a network's features for the same images (.npz or HDF5). Received: "
            f"assembly {choices.assembly}, features "
            f"{'given' if choices.features is not None else None}"
        )
    extras.require("neural predictivity", "h5py", "sklearn")
    assembly = read_assembly(choices.assembly)
    features = choices.features
    if isinstance(features, str):
        features = read_features(features, len(assembly.responses))
    unknown = [name for name in choices.layers if name not in features]
    if unknown:
        raise NotDrawn(f"Expected layers of {', '.join(features)}. Received: {unknown[0]!r}")
    if choices.layers:
        features = {name: values for name, values in features.items() if name in choices.layers}
    console = rich.console.Console(stderr=True)
    shown = {"console": console, "transient": True, "disable": not console.is_terminal}
    with rich.progress.Progress(**shown) as bar:
        task = bar.add_task("partial least squares", total=len(features))
        try:
            scores, notes = predictivity(
                features, assembly, choices.components, progress=lambda _: bar.advance(task)
            )
        except ValueError as error:
            raise NotDrawn(str(error)) from error
    try:
        winner = best(scores)
    except ValueError as error:
        raise NotDrawn("; ".join([str(error), *notes])) from error
    material.notes += [*notes, f"best layer: {winner.layer}, raw median {median(winner.raw):.3f}"]
    return _draw(scores, winner)


def _draw(scores: list[Predictivity], winner: Predictivity) -> Drawn:
    figure, (panel,) = style.panels(1, 2.4 + 0.5 * len(scores), 3.2)
    table: list[Row] = []
    for index, (name, words) in enumerate((("raw", "raw"), ("corrected", "raw / reliability"))):
        quartiles = [_quartiles(getattr(one, name)) for one in scores]
        low, middle, high = np.array(quartiles).T
        places = np.arange(len(scores)) + (index - 0.5) * 0.2
        look = {**style.series(index), "linestyle": "none", "label": words}
        if np.isfinite(middle).any():
            panel.errorbar(places, middle, yerr=[middle - low, high - middle], **look)
        table += [
            {"layer": one.layer, "score": name, "median": m, "quartile_1": a, "quartile_3": b}
            | {"sites": int(np.isfinite(getattr(one, name)).sum()), "best": one is winner}
            for one, (a, m, b) in zip(scores, quartiles, strict=True)
        ]
    ceiling = median(winner.ceiling)
    if np.isfinite(ceiling):
        panel.axhline(ceiling, color=style.GREY, linestyle=":", label="ceiling, √reliability")
    names = [f"{one.layer} ★" if one is winner else one.layer for one in scores]
    style.named_ticks(panel, names)
    panel.set_ylabel("correlation, median over sites")
    style.legend_above(figure)
    return Drawn(figure, table)


def _quartiles(values: np.ndarray) -> tuple[float, float, float]:
    there = values[np.isfinite(values)]
    if not there.size:
        return (float("nan"),) * 3
    low, middle, high = np.percentile(there, (25, 50, 75))
    return float(low), float(middle), float(high)
