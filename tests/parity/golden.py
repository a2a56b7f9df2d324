"""Loads the golden vectors: outputs of the original code on small fixed inputs."""

from __future__ import annotations

import functools
import json
import pathlib
from typing import Any

import keras
import numpy as np

Case = dict[str, Any]
Arrays = dict[str, np.ndarray]

FOLDER = pathlib.Path(__file__).parent / "data"


class Golden:
    """The vectors of one folder.

    Args:
        folder: holds index.json and the npz files it names.
    """

    def __init__(self, folder: str | pathlib.Path) -> None:
        self.folder = pathlib.Path(folder)
        index = json.loads((self.folder / "index.json").read_text())
        self.cases: list[Case] = index["cases"]
        self._tolerances = index["tolerances"]

    @functools.cache  # noqa: B019  (one object a session)
    def _archive(self, file: str) -> Any:
        return np.load(self.folder / file)

    def load(self, case: Case) -> tuple[Arrays, Arrays]:
        """Inputs and expected outputs of a case."""
        archive = self._archive(case["file"])
        return tuple(
            {name: archive[f"{case['name']}/{tag}.{name}"] for name in case[field]}
            for tag, field in (("in", "inputs"), ("out", "outputs"))
        )

    def tolerance(self, case: Case, output: str) -> dict[str, float]:
        """Of the longest prefix of the output's name that has one; a case's own goes first."""
        known = {**self._tolerances[case["group"]], **case.get("tolerances", {})}
        prefixes = [name for name in known if name != "default" and output.startswith(name)]
        return known[max(prefixes, key=len, default="default")]

    def digits(self) -> tuple[np.ndarray, np.ndarray]:
        """Images float32 [1797, 64] in [0, 1] and labels int32, of the training group."""
        archive = self._archive("digits.npz")
        images = archive["images"].astype(np.float32) / np.float32(16)
        return images, archive["labels"].astype(np.int32)

    def model_weights(self, case: Case) -> list[tuple[str, np.ndarray]]:
        """Name and value of every variable of a models/forward case, by its weight rule."""
        return [
            (name, _weight(name, shape, case["weight_seed"] + i))
            for i, (name, shape, _) in enumerate(case["variables"])
        ]

    def model_input(self, case: Case) -> tuple[np.ndarray, np.ndarray]:
        """Input and labels of a models/forward case."""
        shape, seed = case["input_shape"], case["seed"]
        x = np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
        y = np.random.RandomState(seed + 1).randint(0, 10, size=shape[0]).astype(np.int32)
        return x, y


def _weight(name: str, shape: list[int], seed: int) -> np.ndarray:
    leaf = name.split("/")[-1].split(":")[0]
    if leaf in ("forward_kernel", "backward_kernel", "kernel"):
        drawn = np.random.RandomState(seed).standard_normal(shape)
        value = drawn * np.sqrt(1.0 / np.prod(shape[:-1]))
    elif leaf == "bias":
        value = 0.1 * np.random.RandomState(seed).standard_normal(shape)
    else:
        value = np.full(shape, 1.0 if leaf in ("gamma", "moving_variance") else 0.0)
    return value.astype(np.float32)


def assert_close(got: Any, expected: np.ndarray, tolerance: dict[str, float], what: str) -> None:
    """Largest difference at most `rel * max|expected| + abs`, or element by element."""
    got = np.asarray(keras.ops.convert_to_numpy(got), np.float64)
    expected = np.asarray(expected, np.float64)
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, expected {expected.shape}"
    assert np.isfinite(got).all(), f"{what}: not finite"
    if not expected.size:
        return
    size = np.abs(expected)
    scale = size if tolerance.get("elementwise") else size.max()
    excess = np.abs(got - expected) - (tolerance["rel"] * scale + tolerance["abs"])
    worst = np.unravel_index(np.argmax(excess), excess.shape)
    assert excess[worst] <= 0, (
        f"{what} at {worst}: got {got[worst]:.8g}, expected {expected[worst]:.8g} ({tolerance})"
    )
