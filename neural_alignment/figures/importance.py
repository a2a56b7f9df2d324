"""What each categorical metaparameter of a search is worth ([K] figure S2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from neural_alignment.figures import style
from neural_alignment.figures.material import Drawn, Material, NotDrawn, Row
from neural_alignment.search import plan as plans
from neural_alignment.search import report
from neural_alignment.search.objectives import LABELS
from neural_alignment.search.report import OptionScores
from neural_alignment.search.store import Store

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(material: Material) -> Drawn:
    """Mean score ± s.e.m. of the trials that have an option, for every choice of a search.

    The choice whose options differ most comes first.

    Args:
        material: one search directory or several, each a panel.

    Returns:
        The figure, and mean, s.e.m. and number of trials of each option.

    Raises:
        NotDrawn: there is no search, or none with a choice and a score.
    """
    if not material.searches:
        raise NotDrawn(
            "Expected a search directory. Received: none. Search with neural-alignment search "
            "--searchdir=DIR"
        )
    found = []
    for folder in material.searches:
        store = Store(folder)
        plan = plans.load(store)
        store.read()
        scores = [one for one in report.option_scores(plan, store.records) if one.trials]
        if scores:
            found.append((folder, LABELS[plan.objective], scores))
        else:
            material.notes.append(
                f"{folder} is left out, without a trial with a score and a choice"
            )
    if not found:
        raise NotDrawn(
            "Expected a search with trials that have a score, over a space with choices. Received: "
            f"{', '.join(map(str, material.searches))}. Let it run on"
        )
    options = max(sum(len(one.options) for one in scores) for _, _, scores in found)
    figure, axes = style.panels(len(found), 4.6, 1.0 + 0.27 * options)
    table: list[Row] = []
    names = [folder.name for folder, _, _ in found]
    for panel, (folder, label, scores) in zip(axes, found, strict=True):
        name = folder.name if names.count(folder.name) == 1 else str(folder)
        table += _draw(panel, scores, name)
        panel.set_xlabel(f"{label}, mean ± s.e.m.")
        if len(found) > 1:
            panel.set_title(style.in_lines(name))
    return Drawn(figure, table)


def _draw(panel: Axes, scores: Sequence[OptionScores], search: str) -> list[Row]:
    table: list[Row] = []
    names, place = [], 0
    for index, choice in enumerate(scores):
        look = {**style.series(index), "linestyle": "none"}
        for option, (mean, sem, trials) in choice.options.items():
            error = 0.0 if math.isnan(sem) else sem
            panel.errorbar([mean], [place], xerr=[error], **look)
            names.append(style.plain(f"{choice.name} = {option}"))
            table.append(
                {"search": search, "choice": choice.name, "option": option, "mean": mean}
                | {"sem": sem, "trials": trials}
            )
            place += 1
        if index < len(scores) - 1:
            panel.axhline(place - 0.5, color=style.GREY, linewidth=0.5)
    panel.set_yticks(range(place), names)
    panel.set_ylim(place - 0.4, -0.6)
    return table
