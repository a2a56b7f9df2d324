"""How every figure looks: apart without colour vision, and on a black and white printer."""

from __future__ import annotations

import contextlib
import logging
import math
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import matplotlib.cm
import matplotlib.colors
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_log = logging.getLogger(__name__)

# Okabe and Ito's colours, but for yellow, which is too light on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
GREY = "#767676"
# What stands on the axis of a measure of layers.
MEASURES = {
    "weight_angle": "angle of W and B (°)",
    "norm_ratio": "|B| / |W|",
    "projection_angle": "angle of x W and x B (°)",
    "local_gradient_angle": "angle of dy B$^T$ and dy W$^T$ (°)",
    "error_angle": "angle to BP's error (°)",
    "error_norm": "error's norm / BP's",
    "backprop_norm": "norm of BP's error",
    "weight_correlation": "correlation of W and B",
    "alignment_loss": "R",
}
# Layers that a legend has room for; more of them get a colour bar.
MOST_IN_LEGEND = 10
_MOST_COLUMNS = 3
_MARKED_UP_TO = 12
_RC: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "errorbar.capsize": 2.5,
    "font.size": 9,
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 2.8,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "pdf.fonttype": 42,  # text stays text
    "savefig.dpi": 150,
    "svg.fonttype": "none",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}


@contextlib.contextmanager
def letters_told(where: object) -> Iterator[None]:
    """Says in one line that Matplotlib's font lacks letters of what is drawn meanwhile.

    Args:
        where: they are drawn to.
    """
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield
    lacking = [each for each in told if "missing from font" in str(each.message)]
    if lacking:
        _log.warning("%s: Matplotlib's font lacks letters of its names.", where)
    for each in told:
        if each not in lacking:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


@contextlib.contextmanager
def context() -> Iterator[None]:
    """The style, for what is drawn and saved meanwhile."""
    with matplotlib.rc_context(_RC):
        yield


def columns(count: int) -> int:
    """How many of so many panels stand in a row."""
    return 2 if count == 4 else min(count, _MOST_COLUMNS)


def panels(
    count: int, width: float = 3.1, height: float = 2.6, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels, three in a row at most.

    Args:
        count: of panels.
        width: of a panel, inches.
        height: of a panel, inches.
        **options: of `Figure.subplots`.

    Returns:
        The figure, and its panels in reading order.
    """
    across = columns(count)
    rows = math.ceil(count / across)
    figure = Figure(figsize=(width * across + 0.4, height * rows), layout="constrained")
    grid = figure.subplots(rows, across, squeeze=False, **options)
    for spare in grid.flat[count:]:
        spare.remove()
    return figure, list(grid.flat[:count])


def series(index: int, points: int = 1) -> dict[str, Any]:
    """The look of one of several series: colour, line and marker.

    Args:
        index: of the series, from 0.
        points: it has; of many, some are marked.

    Returns:
        Options of `Axes.plot`.
    """
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": LINES[index % len(LINES)],
        "marker": MARKERS[index % len(MARKERS)],
        "markevery": max(1, math.ceil(points / _MARKED_UP_TO)),
    }


def of_depth(index: int, count: int, points: int = 1) -> dict[str, Any]:
    """The look of a layer: from dark at the input to light at the output ([K] figure S4).

    Args:
        index: of the layer, from 0 at the input.
        count: of layers.
        points: its line has; of many, some are marked.

    Returns:
        Options of `Axes.plot`.
    """
    look: dict[str, Any] = {"color": depth_colours(count)[index]}
    if count <= MOST_IN_LEGEND:
        look["marker"] = MARKERS[index % len(MARKERS)]
        look["markevery"] = max(1, math.ceil(points / _MARKED_UP_TO))
        look["linestyle"] = LINES[index % len(LINES)]
    elif points == 1:  # which no line shows
        look["marker"] = "."
    return look


def depth_colours(count: int) -> list[Any]:
    """A colour for each layer, of falling darkness.

    Args:
        count: of layers.
    """
    viridis = matplotlib.colormaps["viridis"]
    return [viridis(0.88 * index / max(count - 1, 1)) for index in range(count)]


def legend_above(figure: Figure, title: str | None = None) -> None:
    """A legend over the panels, of every label once, in as many columns as fit.

    Args:
        figure: whose panels have labelled lines.
        title: of the legend.
    """
    found: dict[str, Any] = {}
    for panel in figure.axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    characters = int(13 * figure.get_figwidth())
    names = [in_lines(name, characters - 8) for name in found]
    longest = max(len(line) for name in names for line in name.split("\n"))
    columns = max(1, characters // (longest + 8))
    lines = sum(name.count("\n") + 1 for name in names)
    figure.set_figheight(figure.get_figheight() + 0.17 * math.ceil(lines / columns))
    figure.legend(
        list(found.values()), names, loc="outside upper center", ncols=columns, title=title
    )


def whole_epochs(panel: Axes) -> None:
    """An x axis of epochs, from 0, with ticks at whole ones."""
    panel.set_xlabel("epoch")
    panel.set_xlim(0, None)
    panel.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def depth_key(figure: Figure, axes: Sequence[Axes], layers: Sequence[str]) -> None:
    """Says which line is which layer: a legend, or of many layers a colour bar.

    Args:
        figure: to write in.
        axes: the panels that it is for.
        layers: their names, from input to output.
    """
    count, named = len(layers), [plain(layer) for layer in layers]
    if count <= MOST_IN_LEGEND:
        handles = [Line2D([], [], **of_depth(index, count)) for index in range(count)]
        if len(axes) == len(figure.axes):
            figure.legend(handles, named, loc="outside right upper", title="layer")
        else:
            axes[0].legend(handles, named, fontsize=7)
        return
    colours = matplotlib.colors.ListedColormap(depth_colours(count))
    norm = matplotlib.colors.BoundaryNorm([index - 0.5 for index in range(count + 1)], count)
    shown = sorted({round(step * (count - 1) / 8) for step in range(9)})
    mappable = matplotlib.cm.ScalarMappable(norm, colours)
    bar = figure.colorbar(mappable, ax=list(axes), ticks=shown, aspect=30)
    bar.ax.set_yticklabels([named[index] for index in shown])
    bar.ax.invert_yaxis()
    bar.set_label("layer, from the input")


def named_ticks(axis: Axes, names: Sequence[str]) -> None:
    """Puts names on the x axis, at 0, 1, 2, ..., as many as can be read.

    Args:
        axis: the panel.
        names: in order.
    """
    every = math.ceil(len(names) / 20)
    places = list(range(0, len(names), every))
    crowded = sum(len(names[place]) for place in places) > 28
    axis.set_xticks(
        places,
        [plain(names[place]) for place in places],
        rotation=40 if crowded else 0,
        ha="right" if crowded else "center",
        rotation_mode="anchor" if crowded else None,
    )
    axis.set_xlim(-0.4, len(names) - 0.6)


def in_legend(label: str) -> str:
    """A label as it is given to Matplotlib, which leaves those out that begin with "_"."""
    return f" {label}" if label.startswith("_") else label


def plain(text: str) -> str:
    """A text of the user's as Matplotlib draws it: between two dollars is no formula."""
    return text.replace("$", r"\$")


def in_lines(text: str, most: int = 36) -> str:
    """A text of the user's in lines that fit over a panel, whole: its middle may tell it apart."""
    return plain("\n".join(textwrap.wrap(text, most, break_on_hyphens=False)) or text)
