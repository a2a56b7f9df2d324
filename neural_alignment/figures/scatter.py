"""W against B of a layer, element by element, at several checkpoints ([K] figure S3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from neural_alignment import config, extras
from neural_alignment.config.flags import Rule, every_setting
from neural_alignment.figures import style
from neural_alignment.figures.material import Drawn, Material, NotDrawn, Row
from neural_alignment.figures.predictivity import correlation
from neural_alignment.figures.reader import Run, grouped
from neural_alignment.runs.steps import whole_steps

_MOST_POINTS = 4000
_MOST_COLUMNS = 4
_MOST_GROUPS = 5
_REMEDY = (
    "Train with a rule that has a kernel B, and with --keep_epochs=0,2 to keep the checkpoints of "
    "those epochs beside the newest."
)


def draw(material: Material) -> Drawn:
    """B against W at some epochs: of some layers of a run, or of one layer of several runs.

    Of a large kernel some elements are drawn, evenly spread; angle and correlation are of all.

    Args:
        material: runs with checkpoints, of which each group's first seed is drawn;
            `choices.layers` and `choices.epochs` say which layers and which checkpoints, by default
            the first, middle and last layer (of several groups the middle one) at four checkpoints.

    Returns:
        The figure, and the elements drawn: `group`, `layer`, `epoch`, `W`, `B`.

    Raises:
        NotDrawn: no run has both kernels in a checkpoint, or not those that were asked for; or
            there is no TensorFlow, which reads checkpoints.
    """
    if extras.missing("tensorflow"):
        raise NotDrawn(extras.message("reading checkpoints", ["tensorflow"]))
    material.leave_out_backprop()
    runs = material.having(_has_kernels, "checkpoints with W and B", _REMEDY)
    groups = grouped(runs)
    if len(groups) > _MOST_GROUPS:
        material.notes.append(f"the first {_MOST_GROUPS} of {len(groups)} groups")
        groups = groups[:_MOST_GROUPS]
    shown = [
        (group, layer)
        for group in groups
        for layer in _layers(group.runs[0], material.choices.layers, 3 if len(groups) == 1 else 1)
    ]
    epochs = _epochs([group.runs[0] for group in groups], material.choices.epochs)
    figure = Figure(figsize=(2.3 * len(epochs) + 0.5, 2.2 * len(shown) + 0.2), layout="constrained")
    grid = figure.subplots(len(shown), len(epochs), squeeze=False)
    table: list[Row] = []
    for row, (group, layer) in zip(grid, shown, strict=True):
        run = group.runs[0]
        rule = _rule(run)
        for panel, epoch in zip(row, epochs, strict=True):
            w, b = _kernels(run, _step(run, epoch), layer, rule)
            drawn = np.linspace(0, len(w) - 1, min(len(w), _MOST_POINTS)).astype(int)
            table += [
                {"group": group.label, "layer": layer, "epoch": epoch, "W": x, "B": y}
                for x, y in zip(w[drawn].tolist(), b[drawn].tolist(), strict=True)
            ]
            look = {"s": 3, "color": style.COLOURS[0], "alpha": 0.35, "linewidths": 0}
            panel.scatter(w[drawn], b[drawn], **look, rasterized=True)
            panel.set_title(f"epoch {epoch:g}: {_numbers(w, b)}", fontsize=8)
            panel.locator_params(nbins=4)
        row[0].set_ylabel(f"{style.in_lines(group.label, 30)}\n{style.in_lines(layer, 30)}\nB")
        _same_limits(row)
    for panel in grid[-1]:
        panel.set_xlabel("W")
    return Drawn(figure, table)


def _has_kernels(run: Run) -> bool:
    return run.measures("weight_angle") and bool(run.checkpoints())


def _numbers(w: np.ndarray, b: np.ndarray) -> str:
    """Angle and correlation."""
    w, b = w.astype(float), b.astype(float)
    if not (np.isfinite(w).all() and np.isfinite(b).all()):
        return "not finite"
    norms = math.sqrt(float(w @ w) * float(b @ b))
    angle = math.degrees(math.acos(min(1.0, max(-1.0, float(w @ b) / norms)))) if norms else 90.0
    found = float(correlation(w[:, None], b[:, None])[0])
    r = "–" if math.isnan(found) else f"{round(found, 2) + 0.0:.2f}"
    return f"{angle:.0f}°, r = {r}"


def _same_limits(row: Sequence[Any]) -> None:
    """One scale across a row, so that growth and decay are seen."""
    for which in ("xlim", "ylim"):
        most = max(abs(end) for panel in row for end in getattr(panel, f"get_{which}")())
        for panel in row:
            getattr(panel, f"set_{which}")(-most, most)


def _layers(run: Run, wanted: Sequence[str], most: int) -> list[str]:
    names = list(run.layers)
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise NotDrawn(
            f"Expected layers of {run.folder}: {', '.join(names)}. Received: {unknown[0]!r}"
        )
    if wanted:
        return list(wanted)
    middle = names[len(names) // 2]
    return [middle] if most == 1 else list(dict.fromkeys([names[0], middle, names[-1]]))


def _step(run: Run, epoch: float) -> int:
    """The step of an epoch; one that ends within a step is that step's, as --keep_epochs has it."""
    return whole_steps(epoch, run.steps_per_epoch)


def _epochs(runs: Sequence[Run], wanted: Sequence[float]) -> list[float]:
    """The epochs to draw: those asked for, or some that every run has a checkpoint of."""
    for run in runs:
        kept = run.checkpoints()
        missing = [epoch for epoch in wanted if _step(run, epoch) not in kept.values()]
        if missing:
            raise NotDrawn(
                f"Expected epochs that {run.folder} kept a checkpoint of: "
                f"{', '.join(f'{epoch:g}' for epoch in kept)}. Received: {missing[0]:g}. "
                f"Train with --keep_epochs={','.join(f'{epoch:g}' for epoch in wanted)}"
            )
    if wanted:
        return list(wanted)
    common = [e for e in runs[0].checkpoints() if all(e in run.checkpoints() for run in runs)]
    if not common:
        raise NotDrawn(
            "Expected an epoch that all runs kept a checkpoint of. Received: none. Train them with "
            "--keep_epochs=0,2"
        )
    count = min(_MOST_COLUMNS, len(common))
    places = [round(i * (len(common) - 1) / max(count - 1, 1)) for i in range(count)]
    return [common[place] for place in dict.fromkeys(places)]


def _rule(run: Run) -> Rule:
    known = {setting.flag for setting in every_setting()}
    given = (f"--{name}={text}" for name, text in run.flags.items() if name in known)
    try:
        return config.read(config.parsed(["figures", *given])).rule
    except config.UsageError as error:  # a rule of a module of the user's, say
        raise NotDrawn(
            f"Expected a rule of this package, which says what B is. Received: {run.folder}, "
            f"{error}. Draw in Python, after importing what registers {run.rule!r}"
        ) from error


def _kernels(run: Run, step: int, layer: str, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """W and B of a layer in a checkpoint, flat; B as the rule makes it from what is kept."""
    import keras

    from neural_alignment.runs import checkpoints

    head = f"model/{layer}/"
    try:
        tensors = checkpoints.read(checkpoints.find(str(run.folder), step), within=head)
    except checkpoints.CheckpointError as error:
        others = ",".join(f"{each:g}" for each, its in run.checkpoints().items() if its != step)
        raise NotDrawn(
            f"Expected a whole checkpoint of step {step}. Received: {error}. Choose others with "
            f"--epochs={others or '0,2'}"
        ) from error
    weights = {name.removeprefix(head): values for name, values in tensors.items()}
    if "kernel" not in weights:
        raise NotDrawn(
            f"Expected a kernel of {layer} in the checkpoint of step {step} of {run.folder}. "
            f"Received: {', '.join(sorted(weights)) or 'nothing of that layer'}"
        )
    variables = {
        name: keras.ops.convert_to_tensor(values)
        for name, values in weights.items()
        if name.startswith("backward_")
    }
    w = keras.ops.convert_to_tensor(weights["kernel"])
    seed = keras.ops.convert_to_tensor([int(run.seed), step], "int32")  # of rules that draw B
    made = rule.make(**rule.biases())
    if made is None:
        raise NotDrawn(f"Expected a rule with a kernel B. Received: {run.folder}, {rule.name}")
    b = made.backward_kernel(w, variables, seed)
    return weights["kernel"].ravel(), keras.ops.convert_to_numpy(b).ravel()
