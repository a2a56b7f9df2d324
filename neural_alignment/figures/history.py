"""What `fit` logged of every layer, against the epochs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from neural_alignment.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 4.2, 3.2


def plot_history(
    history: Any,
    path: str | os.PathLike[str] | None = None,
    measures: str | Sequence[str] | None = None,
) -> Figure:
    """Draws every layer's measures against the epochs, a panel for each ([K] figure S4).

    The layers' lines are coloured by depth, from dark at the input to light at the output.

    Args:
        history: what `fit` returned, or its `history`: with the keys MEASURE/LAYER that the
            callbacks `AlignmentMetrics` and `AlignmentLosses(by_layer=True)` log.
        path: of a file to write, whose ending says the format (.png, .pdf, .svg); None for none.
        measures: which, in order, such as "weight_angle", one or several; None is all there are.

    Returns:
        The figure.

    Raises:
        ValueError: there is nothing of a layer, or not the measure asked for.
    """
    logs: Mapping[str, Sequence[float]] = getattr(history, "history", history)
    by_measure: dict[str, dict[str, Sequence[float]]] = {}
    for key, values in logs.items():
        measure, slash, layer = key.partition("/")
        if slash:
            by_measure.setdefault(measure, {})[layer] = values
    if not by_measure:
        raise ValueError(
            "Expected a history with measures of layers, MEASURE/LAYER. "
            f"Received: {', '.join(logs) or 'nothing'}. Give fit the callback "
            "neural_alignment.callbacks.AlignmentMetrics()."
        )
    measures = [measures] if isinstance(measures, str) else measures
    for measure in measures or ():
        if measure not in by_measure:
            raise ValueError(
                f"Expected measures of the history: {', '.join(by_measure)}. Received: {measure!r}"
            )
    shown = list(measures or by_measure)
    with style.context():
        size = (_WIDTH * len(shown), _HEIGHT)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(shown), squeeze=False)[0]
        layers = list(dict.fromkeys(layer for measure in shown for layer in by_measure[measure]))
        for panel, measure in zip(axes, shown, strict=True):
            _draw(panel, measure, by_measure[measure], layers, getattr(history, "epoch", None))
        _key(axes, layers)
        if path is not None:
            figure.savefig(path)
    return figure


def _key(axes: Sequence[Axes], layers: Sequence[str]) -> None:
    """A legend beside the panels, of every layer that any of them shows."""
    handles: dict[str, Any] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    named = [layer for layer in layers if style.in_legend(layer) in handles]
    axes[-1].legend(
        [handles[style.in_legend(layer)] for layer in named],
        [style.plain(layer) for layer in named],
        fontsize="small",
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
    )


def _draw(
    panel: Axes,
    measure: str,
    by_layer: Mapping[str, Sequence[float]],
    layers: Sequence[str],
    epochs: Sequence[int] | None,
) -> None:
    for layer, values in by_layer.items():
        # Keras counts epochs from 0; a value belongs to the end of its epoch. A layer that was not
        # measured in every epoch has its last ones.
        ends = [epoch + 1 for epoch in epochs or range(len(values))][-len(values) :]
        look = style.of_depth(layers.index(layer), len(layers), len(ends))
        panel.plot(ends, values, label=style.in_legend(layer), **look)
    style.whole_epochs(panel)
    panel.set_ylabel(style.MEASURES.get(measure, measure.replace("_", " ")))
    if measure.endswith("_angle"):
        panel.set_ylim(0.0, None)
