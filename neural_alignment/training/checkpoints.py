"""Checkpoints: named tensors in TensorFlow's format, a checksum beside them, the old ones kept.

    WORKDIR/checkpoints/step-000000120.index, .data-00000-of-00001     tf.train.load_checkpoint
    WORKDIR/checkpoints/step-000000120.json                            sizes and SHA-256 of both

The json file is written last and moved into place: a checkpoint without it does not exist.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

_log = logging.getLogger(__name__)
_NAME = re.compile(r"step-(\d{9,})\.json$")
_CHUNK = 1 << 24


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, found, read or matched."""


class Checkpoints:
    """The checkpoints of one folder.

    Args:
        folder: made when the first one is saved; local or gs://.
        keep: how many of the newest are kept.
    """

    def __init__(self, folder: str, keep: int = 5) -> None:
        self.folder = str(folder)
        self._keep = keep

    def steps(self) -> list[int]:
        """Steps that there are checkpoints of, ascending; whether they are whole is not checked."""
        if not tf.io.gfile.isdir(self.folder):
            return []
        found = (_NAME.search(name) for name in tf.io.gfile.listdir(self.folder))
        return sorted(int(match.group(1)) for match in found if match)

    def prefix(self, step: int) -> str:
        """The path that `tf.train.load_checkpoint` takes."""
        return f"{self.folder}/step-{step:09d}"

    def save(self, step: int, tensors: Mapping[str, Any]) -> str:
        """Writes a checkpoint; those before it are untouched until it is whole.

        Args:
            step: the global step.
            tensors: by name.

        Returns:
            Its prefix.

        Raises:
            CheckpointError: it could not be written, because there is no space left, say.
        """
        prefix = self.prefix(step)
        try:
            tf.io.gfile.makedirs(self.folder)
            self._remove(step)
            names = sorted(tensors)
            with tf.device("CPU:0"):
                tf.raw_ops.SaveV2(
                    prefix=prefix,
                    tensor_names=names,
                    shape_and_slices=[""] * len(names),
                    tensors=[tf.convert_to_tensor(tensors[name]) for name in names],
                )
            manifest = {
                _leaf(path): {"bytes": _size(path), "sha256": _sha256(path)}
                for path in _files(prefix)
            }
            _write_atomically(f"{prefix}.json", json.dumps({"step": step, "files": manifest}))
        except (OSError, tf.errors.OpError) as error:
            self._remove(step)
            kept = ", ".join(map(str, self.steps())) or "none"
            raise CheckpointError(
                f"could not write the checkpoint of step {step} in {self.folder}: "
                f"{getattr(error, 'message', None) or error}. Checkpoints there still: steps "
                f"{kept}. Make space or check the folder, then run the same command again."
            ) from error
        for old in self.steps()[: -self._keep]:
            self._remove(old)
        return prefix

    def _remove(self, step: int) -> None:
        prefix = self.prefix(step)
        for path in (f"{prefix}.json", *_files(prefix)):
            try:
                tf.io.gfile.remove(path)
            except tf.errors.NotFoundError:
                continue
            except tf.errors.OpError as error:
                _log.warning("could not remove %s: %s", path, error.message)

    def damage(self, step: int) -> str | None:
        """What is wrong with a checkpoint's files; None where they are as they were written."""
        prefix = self.prefix(step)
        try:
            with tf.io.gfile.GFile(f"{prefix}.json") as file:
                files = json.loads(file.read())["files"]
            for name, expected in files.items():
                path = f"{self.folder}/{name}"
                if not tf.io.gfile.exists(path):
                    return f"{name} is missing"
                if _size(path) != expected["bytes"]:
                    return f"{name} has {_size(path)} bytes, not {expected['bytes']}"
                if _sha256(path) != expected["sha256"]:
                    return f"{name} does not have the checksum it was written with"
        except (ValueError, KeyError, TypeError, tf.errors.OpError) as error:
            return f"{_leaf(prefix)}.json is unreadable: {error}"
        return None

    def newest_whole(self) -> int | None:
        """The newest step whose files are whole; damaged ones are named in the log.

        Returns:
            The step, or None where there is no checkpoint at all.

        Raises:
            CheckpointError: there are checkpoints, and every one is damaged.
        """
        steps = self.steps()
        damaged = []
        for step in reversed(steps):
            problem = self.damage(step)
            if problem is None:
                return step
            damaged.append(f"step {step}: {problem}")
            _log.warning("the checkpoint of step %d is damaged, going back: %s", step, problem)
        if damaged:
            raise CheckpointError(
                f"every checkpoint in {self.folder} is damaged ({'; '.join(damaged)}). Put a whole "
                "one back, or give another --workdir to start anew."
            )
        if tf.io.gfile.isdir(self.folder) and any(
            re.search(r"step-\d+\.(index|data)", name) for name in tf.io.gfile.listdir(self.folder)
        ):
            _log.warning("%s holds an unfinished checkpoint, which is ignored", self.folder)
        return None

    def restore(self, step: int, variables: Mapping[str, Any]) -> None:
        """Assigns every variable its value.

        Args:
            step: of the checkpoint.
            variables: by name, the same names as were saved.

        Raises:
            CheckpointError: damaged; or a variable that the checkpoint lacks, one that it has too
                many, or one of another shape, by name.
        """
        problem = self.damage(step)
        if problem is not None:
            raise CheckpointError(f"the checkpoint {self.prefix(step)} is damaged: {problem}")
        assign(self.prefix(step), variables)


def assign(prefix: str, variables: Mapping[str, Any], within: str = "") -> None:
    """Assigns variables the values of a checkpoint.

    Args:
        prefix: path of a checkpoint.
        variables: by name.
        within: only the checkpoint's names that start so are looked at.

    Raises:
        CheckpointError: names or shapes differ.
    """
    reader = tf.train.load_checkpoint(prefix)
    shapes = reader.get_variable_to_shape_map()
    saved = {name for name in shapes if name.startswith(within)}
    problems = [f"it lacks {name}" for name in sorted(set(variables) - saved)]
    problems += [f"it has {name} too many" for name in sorted(saved - set(variables))]
    problems += [
        f"{name} has shape {tuple(shapes[name])}, not {tuple(variables[name].shape)}"
        for name in sorted(saved & set(variables))
        if tuple(shapes[name]) != tuple(variables[name].shape)
    ]
    if problems:
        shown = "; ".join(problems[:8]) + ("; ..." if len(problems) > 8 else "")
        raise CheckpointError(f"the checkpoint {prefix} does not fit this run: {shown}.")
    for name, variable in variables.items():
        variable.assign(reader.get_tensor(name))


def find(path: str, step: int | None = None) -> str:
    """The prefix of a checkpoint that a user named.

    Args:
        path: a run directory, its checkpoints folder, or a prefix (with or without ending).
        step: which one of a run directory; None is the newest whole one.

    Returns:
        The prefix.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    for folder in (f"{path}/checkpoints", path):
        checkpoints = Checkpoints(folder)
        steps = checkpoints.steps()
        if not steps:
            continue
        chosen = checkpoints.newest_whole() if step is None else step
        if chosen not in steps:
            raise CheckpointError(
                f"no checkpoint of step {step} in {folder}. There are: "
                f"{', '.join(map(str, steps))}."
            )
        problem = checkpoints.damage(chosen)
        if problem is not None:
            raise CheckpointError(f"{checkpoints.prefix(chosen)} is damaged: {problem}")
        return checkpoints.prefix(chosen)
    prefix = re.sub(r"\.(index|json|data-\d+-of-\d+)$", "", path)
    if tf.io.gfile.exists(f"{prefix}.index"):
        return prefix
    raise CheckpointError(
        f"no checkpoint at {path}. Expected a run directory, its checkpoints folder, or the path "
        "of a checkpoint such as RUN/checkpoints/step-000000120."
    )


def step_of(prefix: str) -> int:
    """The global step in a checkpoint.

    Args:
        prefix: of the checkpoint.

    Returns:
        The step; 0 where the checkpoint holds none.
    """
    reader = tf.train.load_checkpoint(prefix)
    return int(reader.get_tensor("global_step")) if reader.has_tensor("global_step") else 0


def _files(prefix: str) -> list[str]:
    return [f"{prefix}.index", f"{prefix}.data-00000-of-00001"]


def _leaf(path: str) -> str:
    return path.rpartition("/")[2]


def _size(path: str) -> int:
    return tf.io.gfile.stat(path).length


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with tf.io.gfile.GFile(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _write_atomically(path: str, text: str) -> None:
    with tf.io.gfile.GFile(f"{path}.part", "w") as file:
        file.write(text)
    tf.io.gfile.rename(f"{path}.part", path, overwrite=True)


def not_finite(tensors: Mapping[str, Any]) -> list[str]:
    """Names of the tensors that hold a NaN or an infinity.

    Args:
        tensors: by name.

    Returns:
        The names, sorted.
    """
    return sorted(
        name
        for name, value in tensors.items()
        if np.issubdtype((array := np.asarray(value)).dtype, np.floating)
        and not np.isfinite(array).all()
    )
