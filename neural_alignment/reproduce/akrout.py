"""The MNIST experiment of Akrout et al. 2019 as its authors' code has it, in NumPy.

A network 784-500-10 of sigmoids, sigmoid cross-entropy, batches of 128 that are never shuffled, and
biases whose rate is 128 times smaller: what only this table needs, and what is no flag of the
trainer therefore.

    python -m neural_alignment.reproduce.akrout --alignment=mirror --data_dir=DATA --workdir=RUN

The run directory has metrics.csv, layers.csv and times.csv as the trainer's have; the same command
goes on with a run.
"""

from __future__ import annotations

import dataclasses
import io
import os
import pathlib
import signal
import sys
import time
import zipfile
from collections.abc import Iterator, Sequence

import numpy as np
from absl import flags

from neural_alignment import atomic, data
from neural_alignment.config.options import PathText, define_group, option, read_group
from neural_alignment.exits import DONE, FAILED, USAGE, Interrupted
from neural_alignment.lock import FileLock
from neural_alignment.messages import of_system, told
from neural_alignment.runs.folders import check_run
from neural_alignment.runs.table import LAYER_METRICS, METRICS, TIMES, Table

# Rule to the rate of W (and of B, where it takes W's gradient).
RATES = {"backprop": 0.2, "feedback": 0.2, "kolen_pollack": 0.3, "mirror": 0.05}
BATCH, HIDDEN = 128, 500
MIRROR_BATCHES, MIRROR_RATE, MIRROR_WIDTH = 468, 0.01, 0.1

Array = np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a run."""

    alignment: str = option("backprop", "learning rule", tuple(RATES), main=True)
    train_epochs: float = option(400.0, "epochs to train", above=0, main=True)
    seed: int = option(0, "of the weights and of the mirror's noise", low=0, main=True)
    data_dir: PathText | None = option(None, "folder of MNIST's files", main=True)
    workdir: PathText | None = option(None, "run directory; the same one goes on", main=True)


class Network:
    """Two layers of sigmoids: `h = s(x W1 + b1)`, `p = s(h W2 + b2)`.

        e = p - t                           t one-hot
        dW2 = h^T e / batch                 dW1 = x^T (e B^T * h (1 - h)) / batch
        W -= rate dW                        b -= rate db / batch    (db a mean already)

    B is W2 (backprop), fixed (feedback), moved as W2 is (kolen_pollack), or by mirroring:
    `B += 0.01 x^T s(x W2 + b2)`, summed over a batch of x uniform within 0.05 of 0.

    Args:
        rule: a key of `RATES`.
        seed: of weights and noise.
        sizes: inputs, hidden units, outputs.
    """

    def __init__(self, rule: str, seed: int, sizes: tuple[int, int, int] = (784, HIDDEN, 10)):
        self.rule = rule
        self.rate = np.float32(RATES[rule])
        self._draw = np.random.default_rng(seed)
        inputs, hidden, outputs = sizes
        self.w1, self.w2, self.b = (
            self._normal(m, n) for m, n in ((inputs, hidden), (hidden, outputs), (hidden, outputs))
        )
        self.bias1, self.bias2 = np.zeros(hidden, np.float32), np.zeros(outputs, np.float32)

    def _normal(self, rows: int, columns: int) -> Array:
        drawn = self._draw.normal(0.0, (rows + columns) ** -0.5, (rows, columns))
        return drawn.astype(np.float32)

    @property
    def backward(self) -> Array:
        """B of the output layer, `[hidden, outputs]`."""
        return self.w2 if self.rule == "backprop" else self.b

    def outputs(self, x: Array) -> tuple[Array, Array]:
        """Hidden and output activities.

        Args:
            x: `[batch, inputs]`.

        Returns:
            `[batch, hidden]`, `[batch, outputs]`.
        """
        hidden = _sigmoid(x @ self.w1 + self.bias1)
        return hidden, _sigmoid(hidden @ self.w2 + self.bias2)

    def train(self, x: Array, t: Array) -> float:
        """One update.

        Args:
            x: `[batch, inputs]`, from 0 to 1.
            t: `[batch, outputs]`, one-hot.

        Returns:
            The mean cross-entropy before it.
        """
        hidden, p = self.outputs(x)
        size = np.float32(len(x))
        e2 = (p - t) / size
        e1 = (e2 @ self.backward.T) * hidden * (1.0 - hidden)
        dw2 = hidden.T @ e2
        self.w1 -= self.rate * (x.T @ e1)
        self.w2 -= self.rate * dw2
        self.bias1 -= self.rate / size * e1.sum(0)
        self.bias2 -= self.rate / size * e2.sum(0)
        if self.rule == "kolen_pollack":
            self.b -= self.rate * dw2
        inside = np.clip(p, 1e-7, 1.0 - 1e-7)
        return float(-np.sum(t * np.log(inside) + (1.0 - t) * np.log(1.0 - inside)) / size)

    def mirror(self) -> None:
        """One batch of noise through the output layer, and B's update."""
        noise = self._draw.random((BATCH, len(self.w2)), np.float32) - np.float32(0.5)
        noise *= np.float32(MIRROR_WIDTH)
        self.b += np.float32(MIRROR_RATE) * (noise.T @ _sigmoid(noise @ self.w2 + self.bias2))

    def measures(self) -> tuple[float, float]:
        """Angle of W2 and B in degrees, and |B| / |W2|."""
        w, b = self.w2.ravel().astype(np.float64), self.backward.ravel().astype(np.float64)
        norms = np.linalg.norm(w), np.linalg.norm(b)
        cosine = np.clip(w @ b / (norms[0] * norms[1]), -1.0, 1.0)
        return float(np.degrees(np.arccos(cosine))), float(norms[1] / norms[0])

    def state(self) -> dict[str, Array]:
        """Everything that a run goes on from."""
        words = np.frombuffer(repr(self._draw.bit_generator.state).encode(), np.uint8)
        names = ("w1", "w2", "b", "bias1", "bias2")
        return {name: getattr(self, name) for name in names} | {"draw": words}

    def restore(self, state: dict[str, Array]) -> None:
        """Takes up what `state` gave."""
        import ast

        for name in ("w1", "w2", "b", "bias1", "bias2"):
            setattr(self, name, state[name])
        self._draw.bit_generator.state = ast.literal_eval(state["draw"].tobytes().decode())


def _sigmoid(x: Array) -> Array:
    return np.float32(1.0) / (np.float32(1.0) + np.exp(-x))


def run(settings: Settings) -> None:
    """Trains from where the run directory stands to the last epoch.

    Args:
        settings: of the run.

    Raises:
        FileNotFoundError: MNIST is not in the folder.
        ValueError: the run directory holds a run with other settings.
        LockedError: it is in use.
    """
    mnist = data.get("mnist", data_dir=settings.data_dir)
    x, held_out = (_pixels(i) for i in (mnist.train_images, mnist.validation_images))
    t = np.eye(10, dtype=np.float32)[mnist.train_labels]
    folder = pathlib.Path(settings.workdir)
    check_run(folder)
    with FileLock(folder / "lock", "workdir"):
        _check(folder, settings)
        tables = {
            name: Table(folder / f"{name}.csv", columns)
            for name, columns in (("metrics", METRICS), ("layers", LAYER_METRICS), ("times", TIMES))
        }
        network = Network(settings.alignment, settings.seed)
        done = _restore(folder, network)
        for table in tables.values():
            table.truncate(done * (len(x) // BATCH))
        if not done and network.rule == "mirror":
            for _ in range(MIRROR_BATCHES):
                network.mirror()
        for epoch in range(done + 1, round(settings.train_epochs) + 1):
            _epoch(network, x, t, held_out, mnist.validation_labels, epoch, tables)
            _save(folder, network, epoch)


def _pixels(images: Array) -> Array:
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255.0)


def _batches(examples: int) -> Iterator[slice]:
    for start in range(0, examples // BATCH * BATCH, BATCH):
        yield slice(start, start + BATCH)


def _epoch(
    network: Network,
    x: Array,
    t: Array,
    held_out: Array,
    labels: Array,
    epoch: int,
    tables: dict[str, Table],
) -> None:
    began, losses = time.monotonic(), []
    for batch in _batches(len(x)):
        losses.append(network.train(x[batch], t[batch]))
        if network.rule == "mirror":
            network.mirror()
    trained = time.monotonic()
    p = network.outputs(held_out)[1]
    rank = np.sum(p > np.take_along_axis(p, labels[:, None], 1), 1)
    right = -np.log(np.clip(np.take_along_axis(p, labels[:, None], 1), 1e-7, 1.0))
    at = {"epoch": epoch, "global_step": epoch * len(losses)}
    angle, ratio = network.measures()
    layer = {"layer": "dense_output", "weight_angle": angle, "norm_ratio": ratio}
    accuracies = {"val_top1": float(np.mean(rank < 1)), "val_top5": float(np.mean(rank < 5))}
    tables["layers"].append([{**at, **layer, "alignment_loss": 0.0}])
    row = {"loss": float(np.mean(losses)), "alignment_loss": 0.0, "val_loss": float(right.mean())}
    tables["metrics"].append([{**at, **row, **accuracies}])
    times = {"train_seconds": trained - began, "other_seconds": time.monotonic() - trained}
    tables["times"].append([{**at, "steps": len(losses), **times}])


def lines(settings: Settings) -> list[str]:
    """What a run depended on, as its flags.cfg has it.

    Args:
        settings: of the run.

    Returns:
        Lines.
    """
    return [
        f"--alignment={settings.alignment}",
        "--dataset=mnist",
        f"--layers_list={HIDDEN}",
        f"--learning_rate={RATES[settings.alignment]}",
        f"--seed={settings.seed}",
        f"--train_batch_size={BATCH}",
    ]


def _check(folder: pathlib.Path, settings: Settings) -> None:
    path, wanted = folder / "flags.cfg", "\n".join(lines(settings)) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") != wanted:
        raise ValueError(
            "--workdir: expected a new folder, or a run with these flags. Received: "
            f"{folder}, whose flags.cfg has others"
        )
    atomic.write_text(path, wanted)


def _save(folder: pathlib.Path, network: Network, epoch: int) -> None:
    content = io.BytesIO()
    np.savez(content, epoch=epoch, **network.state())
    part = folder / "state.npz.part"
    part.write_bytes(content.getvalue())
    os.replace(part, folder / "state.npz")


def _restore(folder: pathlib.Path, network: Network) -> int:
    path = folder / "state.npz"
    if not path.exists():
        return 0
    try:
        with path.open("rb") as file, np.load(file) as state:
            network.restore(dict(state))
            return int(state["epoch"])
    except (EOFError, KeyError, SyntaxError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"Expected the state of a run in {path}. Received: {told(error)}. Put it back as it "
            "was, or give another --workdir"
        ) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what a command line says.

    Args:
        argv: the command line, the program's name first; None: this process's.

    Returns:
        The exit code: 0; 1 for an error; 2 for wrong usage; 130 where Ctrl-C ended it.
    """
    fv = flags.FlagValues()
    define_group(Settings, fv)
    try:
        fv(list(sys.argv if argv is None else argv))
        settings = read_group(Settings, fv)
        if settings.workdir is None or settings.data_dir is None:
            raise ValueError("--workdir, --data_dir: expected folders. Received: none")
        run(settings)
    except (ValueError, FileNotFoundError, flags.Error) as error:
        sys.stderr.write(f"error: {error}\n")
        return USAGE
    except OSError as error:
        sys.stderr.write(f"error: {of_system(error)}\n")
        return FAILED
    except RuntimeError as error:  # a folder that is in use, or a table that is none
        sys.stderr.write(f"error: {error}\n")
        return FAILED
    except KeyboardInterrupt:
        sys.stderr.write("Stopped; the same command goes on after the last whole epoch.\n")
        return Interrupted(signal.SIGINT).code
    return DONE


if __name__ == "__main__":
    sys.exit(main())
