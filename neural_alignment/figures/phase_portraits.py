"""Phase portraits: of the alignment losses, and of a two-layer scalar network under a rule."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neural_alignment.figures import gradient_flow, style, two_layer
from neural_alignment.figures.material import Drawn, Material, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FIELD: dict[str, Any] = {"color": "#c4c4c4", "linewidth": 0.6, "arrowsize": 0.6, "density": 0.9}
# Rule, input x, and title: mirror at lambda = 1 on either side of x^2 = lambda.
_FLOWS = (
    ("symmetric", 1.0, "symmetric"),
    ("activation", 1.0, "activation, $x^2 = 1$"),
    ("mirror", 0.7, "mirror, $x^2 = 0.49 < \\lambda$"),
    ("mirror", 1.2, "mirror, $x^2 = 1.44 > \\lambda$"),
)


def draw_alignment_losses(material: Material) -> Drawn:
    """The flow of R_SA, R_AA and R_WM in one dimension ([K] figure 2, appendix D.1).

    Args:
        material: nothing of it is used.

    Returns:
        The figure, and the trajectories drawn with the eigenvalues of each flow.
    """
    del material
    reach = 2.0
    figure = Figure(figsize=(6.6, 6.9), layout="compressed")
    axes = figure.subplots(2, 2, sharex=True, sharey=True).flat
    table: list[Row] = []
    for panel, (rule, x, title) in zip(axes, _FLOWS, strict=True):
        matrix = gradient_flow.flow_matrix(rule, x)
        along_u, along_v = gradient_flow.eigenvalues(matrix)
        _streams(panel, reach, functools.partial(gradient_flow.field, matrix=matrix))
        panel.plot([-reach, reach], [-reach, reach], color=style.GREY, linewidth=0.8, label="w = b")
        for number, start in enumerate(_starts()):
            times = np.linspace(0.0, 3.0, 60)
            path = gradient_flow.trajectory(np.array(start), times, matrix)
            table += [
                {"rule": rule, "x": x, "lambda_u": along_u, "lambda_v": along_v}
                | {"trajectory": number, "time": t, "w": w, "b": b}
                for t, (w, b) in zip(times.tolist(), path.tolist(), strict=True)
            ]
            _path(panel, path, reach)
        panel.set_title(f"{title}\n$\\lambda_u = {along_u:.3g},\\ \\lambda_v = {along_v:.3g}$")
        _square(panel, reach, "w", "b")
    figure.legend(*_path_key(("w = b",)), loc="outside lower center", ncols=4)
    return Drawn(figure, table)


def _starts() -> list[tuple[float, float]]:
    return [(1.6, -0.9), (-1.6, 0.9), (0.3, 1.5), (-0.3, -1.5), (-1.2, 1.7), (1.2, -1.7)]


def draw_two_layer(material: Material) -> Drawn:
    """Trajectories of a two-layer scalar network under each rule ([K] appendix D.2).

    Solutions w2 w1 = 1 are drawn through where they are sinks, dotted where they are not. For
    symmetric the trajectories start at b = 1, and the field is that of b = w2, where they end.

    Args:
        material: nothing of it is used.

    Returns:
        The figure, and the trajectories drawn.
    """
    del material
    reach, b = 2.5, 1.0
    figure = Figure(figsize=(9.6, 3.9), layout="compressed")
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    titles = ("backprop", f"feedback, b = {b:g}", f"symmetric, b = {b:g} at the start")
    table: list[Row] = []
    for panel, rule, title in zip(axes, two_layer.RULES, titles, strict=True):
        _streams(panel, reach, functools.partial(_in_plane, rule, b=b))
        _solutions(panel, reach, b if rule == "feedback" else None)
        starts = itertools.product((-1.9, -0.6, 0.6, 1.9), (-1.6, 0.0, 1.6))
        states = np.array([start if rule == "backprop" else (*start, b) for start in starts])
        paths = two_layer.integrate(functools.partial(two_layer.flow, rule), states, 20.0, 2000)
        for number, path in enumerate(np.moveaxis(paths, 1, 0)):
            kept = path[::20]
            table += [
                {"rule": rule, "trajectory": number, "time": 0.2 * k, "w1": s[0], "w2": s[1]}
                | {"b": s[1] if rule == "backprop" else s[2]}
                for k, s in enumerate(kept.tolist())
            ]
            _path(panel, path, reach)
        panel.set_title(title)
        _square(panel, reach, "$w_1$", "$w_2$" if rule == "backprop" else "")
    names = ("solutions, sinks", "solutions, no sinks")
    figure.legend(*_path_key(names), loc="outside lower center", ncols=5)
    return Drawn(figure, table)


def _in_plane(rule: str, points: np.ndarray, b: float) -> np.ndarray:
    """The velocity of w1 and w2, b fixed for feedback, and at w2 for symmetric."""
    if rule == "feedback":
        points = np.concatenate([points, np.full((*points.shape[:-1], 1), b)], axis=-1)
        return two_layer.flow(rule, points)[..., :2]
    return two_layer.flow("backprop", points)


def _solutions(panel: Axes, reach: float, b: float | None) -> None:
    for sign in (-1.0, 1.0):
        w1 = sign * np.geomspace(1.0 / reach, reach, 400)
        w2 = 1.0 / w1
        sinks = two_layer.is_sink(w1, w2, w2 if b is None else np.full_like(w2, b))
        for mask, look in ((sinks, "-"), (~sinks, ":")):
            part = np.where(mask, w2, np.nan)
            panel.plot(w1, part, color=style.COLOURS[1], linestyle=look, linewidth=2.2)


def _streams(panel: Axes, reach: float, velocity: Callable[[np.ndarray], np.ndarray]) -> None:
    line = np.linspace(-reach, reach, 41)
    points = np.stack(np.meshgrid(line, line), axis=-1)
    moved = velocity(points)
    panel.streamplot(line, line, moved[..., 0], moved[..., 1], **_FIELD)


def _path(panel: Axes, path: np.ndarray, reach: float) -> None:
    inside = np.abs(path[:, :2]).max(axis=1) <= reach
    shown = path[: len(path) if inside.all() else max(1, int(np.argmin(inside)))]
    panel.plot(shown[:, 0], shown[:, 1], color=style.COLOURS[0], linewidth=1.3)
    panel.plot(*shown[0, :2], "o", color=style.COLOURS[0], markersize=3.5, fillstyle="none")
    if inside.all():
        panel.plot(*shown[-1, :2], "s", color=style.COLOURS[0], markersize=3.5)


def _path_key(lines: tuple[str, ...]) -> tuple[list[Line2D], list[str]]:
    looks: dict[str, dict[str, Any]] = {
        "w = b": {"color": style.GREY, "linewidth": 0.8},
        "solutions, sinks": {"color": style.COLOURS[1], "linewidth": 2.2},
        "solutions, no sinks": {"color": style.COLOURS[1], "linewidth": 2.2, "linestyle": ":"},
        "trajectory": {"color": style.COLOURS[0], "linewidth": 1.3},
        "start": {"color": style.COLOURS[0], "marker": "o", "fillstyle": "none", "linewidth": 0},
        "end": {"color": style.COLOURS[0], "marker": "s", "linewidth": 0},
    }
    names = [*lines, "trajectory", "start", "end"]
    return [Line2D([], [], **looks[name]) for name in names], names


def _square(panel: Axes, reach: float, x: str, y: str) -> None:
    panel.set_xlim(-reach, reach)
    panel.set_ylim(-reach, reach)
    panel.set_aspect("equal")
    panel.grid(False)
    panel.set_xlabel(x)
    panel.set_ylabel(y)
    panel.label_outer()
