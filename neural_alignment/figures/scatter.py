"""W against B of a layer, element by element, at several checkpoints ([K] figure S3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from neural_alignment.config.flags import Rule, define_flags
from neural_alignment.config.flags import read as read_settings
from neural_alignment.figures import style
from neural_alignment.figures.material import Drawn, Material, NotDrawn, Row
from neural_alignment.figures.reader import Run

_MOST_POINTS = 4000
_MOST_COLUMNS = 4
_MOST_LAYERS = 3
_REMEDY = (
    "Train with a rule that has a kernel B, and with --keep_epochs=0,2 to keep the checkpoints of "
    "those epochs beside the newest."
)


def draw(material: Material) -> Drawn:
    """B against W of some layers (down) at some epochs (across), for the first run that has both.

    Of a large kernel some elements are drawn, evenly spread; angle and correlation are of all.

    Args:
        material: runs with checkpoints; `choices.layers` and `choices.epochs` say which layers and
            which checkpoints, by default the first, middle and last layer at four checkpoints.

    Returns:
        The figure, and the elements drawn: `layer`, `epoch`, `W`, `B`.

    Raises:
        NotDrawn: no run has both kernels in a checkpoint, or not those that were asked for.
    """
    runs = material.having(
        lambda run: bool(run.layers) and bool(run.checkpoints()),
        "checkpoints with W and B",
        _REMEDY,
    )
    run = runs[0]
    if len(runs) > 1:
        material.notes.append(f"scatter: of {run.folder}, the first of {len(runs)} runs")
    layers = _layers(run, material.choices.layers)
    steps = _steps(run, material.choices.epochs)
    rule = _rule(run)
    figure = style.Figure(
        figsize=(2.3 * len(steps) + 0.5, 2.3 * len(layers) + 0.3), layout="constrained"
    )
    grid = figure.subplots(len(layers), len(steps), squeeze=False)
    table: list[Row] = []
    for column, (epoch, step) in enumerate(steps.items()):
        kernels = _kernels(run, step, layers, rule)
        for row, layer in enumerate(layers):
            panel = grid[row, column]
            w, b = (kernel.ravel() for kernel in kernels[layer])
            drawn = np.linspace(0, len(w) - 1, min(len(w), _MOST_POINTS)).astype(int)
            panel.scatter(
                w[drawn], b[drawn], s=3, color=style.COLOURS[0], alpha=0.35, linewidths=0,
                rasterized=True,
            )  # fmt: skip
            panel.text(
                0.03, 0.97, _numbers(w, b), transform=panel.transAxes, va="top", fontsize=7,
                bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1},
            )  # fmt: skip
            table += [
                {"layer": layer, "epoch": epoch, "W": x, "B": y}
                for x, y in zip(w[drawn].tolist(), b[drawn].tolist(), strict=True)
            ]
            if row == 0:
                panel.set_title(f"epoch {epoch:g}")
            if row == len(layers) - 1:
                panel.set_xlabel("W")
            if column == 0:
                panel.set_ylabel(f"{layer}\nB")
    for row in grid:
        _same_limits(row)
    figure.suptitle(style.shorten(f"{run.rule}, {run.folder.name}", 60), fontsize=9)
    return Drawn(figure, table)


def _numbers(w: np.ndarray, b: np.ndarray) -> str:
    """Angle and correlation in two lines."""
    norms = math.sqrt(float(w @ w) * float(b @ b))
    angle = math.degrees(math.acos(min(1.0, max(-1.0, float(w @ b) / norms)))) if norms else 90.0
    constant = w.std() == 0.0 or b.std() == 0.0
    r = "–" if constant else f"{float(np.corrcoef(w, b)[0, 1]):.2f}"
    return f"{angle:.0f}°, r = {r}"


def _same_limits(row: Sequence[Any]) -> None:
    """One scale across a row, so that growth and decay are seen."""
    for which in ("xlim", "ylim"):
        most = max(abs(end) for panel in row for end in getattr(panel, f"get_{which}")())
        for panel in row:
            getattr(panel, f"set_{which}")(-most, most)


def _layers(run: Run, wanted: Sequence[str]) -> list[str]:
    names = list(run.layers)
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise NotDrawn(
            f"Expected layers of {run.folder}: {', '.join(names)}. Received: {unknown[0]!r}"
        )
    if wanted or len(names) <= _MOST_LAYERS:
        return list(wanted) or names
    return [names[0], names[len(names) // 2], names[-1]]


def _steps(run: Run, wanted: Sequence[float]) -> dict[float, int]:
    kept = run.checkpoints()
    by_epoch = {round(epoch, 6): step for epoch, step in kept.items()}
    missing = [epoch for epoch in wanted if round(epoch, 6) not in by_epoch]
    if missing:
        raise NotDrawn(
            f"Expected epochs that {run.folder} kept a checkpoint of: "
            f"{', '.join(f'{epoch:g}' for epoch in by_epoch)}. Received: {missing[0]:g}. "
            f"Train with --keep_epochs={','.join(f'{epoch:g}' for epoch in wanted)}"
        )
    if wanted:
        return {epoch: by_epoch[round(epoch, 6)] for epoch in wanted}
    epochs = list(by_epoch)
    count = min(_MOST_COLUMNS, len(epochs))
    chosen = [epochs[round(i * (len(epochs) - 1) / max(count - 1, 1))] for i in range(count)]
    return {epoch: by_epoch[epoch] for epoch in dict.fromkeys(chosen)}


def _rule(run: Run) -> Rule:
    fv = flags.FlagValues()
    define_flags(fv)
    try:
        fv(["figures", *(f"--{name}={text}" for name, text in run.flags.items() if name in fv)])
    except flags.Error as error:  # a rule of a module of the user's, say
        raise NotDrawn(
            f"Expected a rule of this package, which says what B is. Received: {run.folder}, "
            f"{error}. Draw in Python, after importing what registers {run.rule!r}"
        ) from error
    return read_settings(fv).rule


def _kernels(
    run: Run, step: int, layers: Sequence[str], rule: Rule
) -> Mapping[str, tuple[np.ndarray, np.ndarray]]:
    """W and B of layers in a checkpoint; B as the rule makes it from what is kept."""
    import keras

    from neural_alignment.runs import checkpoints

    made = rule.make(**rule.biases())
    tensors = checkpoints.read(checkpoints.find(str(run.folder), step), within="model/")
    found = {}
    for layer in layers:
        head = f"model/{layer}/"
        weights = {n.removeprefix(head): x for n, x in tensors.items() if n.startswith(head)}
        if "kernel" not in weights:
            raise NotDrawn(
                f"Expected a kernel of {layer} in the checkpoint of step {step} of {run.folder}. "
                f"Received: {', '.join(sorted(weights)) or 'nothing of that layer'}"
            )
        w = keras.ops.convert_to_tensor(weights["kernel"])
        variables = {
            name: keras.ops.convert_to_tensor(x)
            for name, x in weights.items()
            if name.startswith("backward_")
        }
        seed = keras.ops.convert_to_tensor([int(run.seed), step], "int32")  # of rules that draw B
        b = made.backward_kernel(w, variables, seed)
        found[layer] = weights["kernel"], keras.ops.convert_to_numpy(b)
    return found
