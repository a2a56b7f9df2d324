"""Run directories as a job leaves them, with made-up numbers."""

import csv
import json
import pathlib

LAYERS = ("dense0", "dense1", "dense_output")
_METRICS = ("epoch", "global_step", "loss", "alignment_loss", "val_loss", "val_top1", "val_top5")
_LAYERS = ("epoch", "global_step", "layer", "weight_angle", "norm_ratio", "alignment_loss")
_PATH = ("error_angle",)


def make_run(
    folder: pathlib.Path,
    *,
    rule: str = "symmetric",
    seed: int = 0,
    epochs: int = 3,
    top1: float = 0.9,
    layers: tuple[str, ...] = LAYERS,
    path_metrics: bool = False,
    steps: tuple[int, ...] = (),
    **flags: object,
) -> pathlib.Path:
    """A run whose accuracy ends at `top1` and whose angles fall from 90° by depth and epoch."""
    folder.mkdir(parents=True)
    given = {"alignment": rule, "dataset": "digits", "model": "fc", "seed": seed} | flags
    given = {"train_epochs": float(max(epochs, 1)), "defaults": "none"} | given
    if rule != "backprop":  # a rule's every option is in the file
        given.setdefault("density", 1.0)
    known = {name: value for name, value in sorted(given.items()) if value is not None}
    lines = [f"--{name}={value}\n" for name, value in known.items()]
    (folder / "flags.cfg").write_text("".join(["# --preset=none\n", *lines]))
    rows, of_layers = [], []
    for epoch in range(1, epochs + 1):
        step, part = 42 * epoch, epoch / epochs
        rows.append((epoch, step, 1 / epoch, 0.5, 1.1 / epoch, top1 * part, 1.0))
        for depth, layer in enumerate(layers):
            row = (
                epoch,
                step,
                layer,
                90 - 60 * part * (depth + 1) / len(layers),
                0.5 + 0.1 * depth,
                0.1,
            )
            of_layers.append(row + (70.0 - depth,) * path_metrics)
    write_table(folder / "metrics.csv", _METRICS, rows)
    write_table(folder / "layers.csv", _LAYERS + _PATH * path_metrics, of_layers)
    (folder / "checkpoints").mkdir()
    for step in steps:
        prefix = folder / "checkpoints" / f"step-{step:09d}"
        prefix.with_suffix(".json").write_text(json.dumps({"step": step}))
        for ending in (".index", ".data-00000-of-00001"):
            prefix.with_suffix(ending).touch()
    return folder


def write_table(path: pathlib.Path, columns, rows) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def read_table(path: pathlib.Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
