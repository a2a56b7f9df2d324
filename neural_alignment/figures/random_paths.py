"""What an expansion does to a product path, and what one-way pairs do to a correlation ([P])."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.lines import Line2D

from neural_alignment.figures import connectivity, random_product, style
from neural_alignment.figures.material import Drawn, Material, Row
from neural_alignment.figures.summary import summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_EXPANSIONS = (1.0, 2.0, 4.0, 10.0, 20.0, 50.0)
_UNITS = 512  # of a hidden layer of [P]'s MNIST network
_DRAWS = 3
_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def draw_eigenvalues(material: Material) -> Drawn:
    """The spectrum of `Q^T Q` against the expansion, with its Marchenko–Pastur edges ([P] fig. 3a).

    Args:
        material: nothing of it is used.

    Returns:
        The figure, and for each expansion the edges and quantiles of 512 eigenvalues.
    """
    del material
    generator = np.random.default_rng(0)
    figure, (spread, density) = style.panels(2, 3.6, 3.0)
    table: list[Row] = []
    for expansion in _EXPANSIONS:
        found = np.linalg.eigvalsh(random_product.gram(_UNITS, expansion, generator))
        marks = np.quantile(found, _QUANTILES)
        lower, upper = random_product.marchenko_pastur_edges(expansion)
        table.append(
            {"expansion": expansion, "lower_edge": lower, "upper_edge": upper}
            | {f"quantile_{q:g}": float(m) for q, m in zip(_QUANTILES, marks, strict=True)}
        )
        own: dict[str, Any] = {"color": style.COLOURS[0], "linestyle": "none"}
        spread.plot([expansion] * 2, marks[[0, -1]], **own, marker="_", markersize=8)
        spread.plot([expansion] * 2, marks[[1, 3]], color=style.COLOURS[0], linewidth=4, alpha=0.5)
        spread.plot([expansion], marks[[2]], **own, marker="o")
        if expansion in (2.0, 10.0, 50.0):
            _density(density, found, expansion, _EXPANSIONS.index(expansion) // 2)
    line = np.geomspace(_EXPANSIONS[0], _EXPANSIONS[-1], 200)
    edges = np.array([random_product.marchenko_pastur_edges(x) for x in line])
    for side in (0, 1):
        spread.plot(line, edges[:, side], color=style.COLOURS[1], linestyle="--")
    spread.set_xscale("log")
    spread.set_xticks(_EXPANSIONS, [f"{x:g}" for x in _EXPANSIONS])
    spread.minorticks_off()
    spread.set_xlabel("expansion")
    spread.set_ylabel(r"eigenvalues of $Q^\top Q$")
    density.set_xlabel(r"eigenvalue of $Q^\top Q$")
    density.set_ylabel("density")
    density.legend(title="expansion")
    keys: dict[str, dict[str, Any]] = {
        r"edges, $(1 \pm \sqrt{1/\mathrm{expansion}})^2$": {
            "color": style.COLOURS[1], "linestyle": "--"},
        "median": {"color": style.COLOURS[0], "marker": "o", "linestyle": "none"},
        "quartiles": {"color": style.COLOURS[0], "linewidth": 4, "alpha": 0.5},
        "least and greatest": {"color": style.COLOURS[0], "marker": "_", "linestyle": "none"},
    }  # fmt: skip
    handles = [Line2D([], [], **look) for look in keys.values()]
    figure.legend(handles, list(keys), loc="outside upper center", ncols=4)
    return Drawn(figure, table)


def _density(panel: Axes, found: np.ndarray, expansion: float, index: int) -> None:
    """A histogram of eigenvalues, and the density that it has for many units."""
    lower, upper = random_product.marchenko_pastur_edges(expansion)
    look = style.series(index)
    panel.hist(found, bins=24, density=True, color=look["color"], alpha=0.25)
    line = np.linspace(lower + 1e-9, upper, 300)
    panel.plot(
        line,
        random_product.marchenko_pastur_density(line, expansion),
        color=look["color"],
        linestyle=look["linestyle"],
        label=f"{expansion:g}",
    )


def draw_path_angle(material: Material) -> Drawn:
    """The angle of a random W and its path `W Q^T Q` against the expansion ([P] figure 3b).

    Args:
        material: nothing of it is used.

    Returns:
        The figure, and measured and expected angle of each expansion.
    """
    del material
    generator = np.random.default_rng(0)
    figure, (panel,) = style.panels(1, 4.0, 3.0)
    table: list[Row] = []
    for expansion in _EXPANSIONS:
        one = summarise(
            random_product.measured_path_angle(_UNITS, _UNITS, expansion, generator)
            for _ in range(_DRAWS)
        )
        expected = random_product.path_angle(expansion)
        table.append({"expansion": expansion, "expected": expected, **one.row()})
    panel.errorbar(
        _EXPANSIONS,
        [row["mean"] for row in table],
        yerr=[row["sd"] for row in table],
        label=f"{_UNITS} units, {_DRAWS} draws",
        **{**style.series(0), "linestyle": "none"},
    )
    line = np.geomspace(_EXPANSIONS[0], _EXPANSIONS[-1], 200)
    label = r"$\arccos\,(1 + 1/\mathrm{expansion})^{-1/2}$"
    look: dict[str, Any] = {"color": style.COLOURS[1], "linestyle": "--"}
    panel.plot(line, [random_product.path_angle(x) for x in line], label=label, **look)
    panel.set_xscale("log")
    panel.set_xticks(_EXPANSIONS, [f"{x:g}" for x in _EXPANSIONS])
    panel.minorticks_off()
    panel.set_ylim(0.0, None)
    panel.set_xlabel("expansion")
    panel.set_ylabel("angle of W and its path (°)")
    panel.legend()
    return Drawn(figure, table)


def draw_connectivity(material: Material) -> Drawn:
    """Correlation and angle of W and B against the share of pairs connected both ways ([P] app. B).

    Args:
        material: nothing of it is used.

    Returns:
        The figure, and expected and sampled correlation of each share.
    """
    del material
    generator = np.random.default_rng(0)
    figure, (left, right) = style.panels(2, 3.4, 2.9)
    table: list[Row] = []
    shares = np.linspace(0.05, 1.0, 39)
    for index, correlation in enumerate((connectivity.CORRELATION, 1.0)):
        sampled = {}
        for both in (0.1, connectivity.BOTH_WAYS, 0.5, 0.7, 0.9):
            w, b = connectivity.sample_pairs(1.0 - both, both, correlation, 200_000, generator)
            sampled[both] = float(w @ b / np.sqrt((w @ w) * (b @ b)))
            expected = connectivity.pair_correlation(1.0 - both, both, correlation)
            table.append(
                {"of_pairs_both_ways": correlation, "share_both_ways": both}
                | {"expected": expected, "sampled": sampled[both]}
                | {"expected_angle": connectivity.pair_angle(expected)}
            )
        r = [connectivity.pair_correlation(1.0 - s, s, correlation) for s in shares]
        look = style.series(index)
        line = {"color": look["color"], "linestyle": look["linestyle"]}
        points = {"color": look["color"], "linestyle": "none", "marker": look["marker"]}
        left.plot(100 * shares, r, **line, label=f"r = {correlation:g} of pairs both ways")
        left.plot([100 * s for s in sampled], list(sampled.values()), **points)
        right.plot(100 * shares, [connectivity.pair_angle(x) for x in r], **line)
        angles = [connectivity.pair_angle(x) for x in sampled.values()]
        right.plot([100 * s for s in sampled], angles, **points)
    for panel in (left, right):
        panel.axvline(100 * connectivity.BOTH_WAYS, color=style.GREY, linewidth=0.8, zorder=0)
        panel.set_xlabel("pairs connected both ways (%)")
        panel.set_xlim(0, 103)
    left.set_ylabel("correlation of W and B")
    right.set_ylabel("angle of W and B (°)")
    figure.legend(loc="outside upper center", ncols=2)
    return Drawn(figure, table)
