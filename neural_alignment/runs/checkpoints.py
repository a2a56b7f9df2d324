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
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from neural_alignment import atomic
from neural_alignment.messages import one_line

_log = logging.getLogger(__name__)
_NAME = re.compile(r"step-(\d{9,})\.json$")
_FILE = re.compile(r"step-(\d{9,})\.(index|data-|json)")
_CHUNK = 1 << 24
# TensorFlow's reader translates some of its errors to Python's.
_READ_ERRORS = (IndexError, RuntimeError, ValueError, tf.errors.OpError)


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, found, read or matched."""


class Checkpoints:
    """The checkpoints of one folder.

    Args:
        folder: made when the first one is saved; on a local or mounted file system.
        keep: how many of the newest are kept.
        always: steps whose checkpoints are kept beside those.
    """

    def __init__(self, folder: str, keep: int = 5, always: Collection[int] = ()) -> None:
        self.folder = str(folder)
        self._keep = keep
        self._always = frozenset(always)

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

        What is left of unfinished ones goes first, and checkpoints of later steps after it: a run
        is only ever behind its newest checkpoint when that one was damaged.

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
            self._remove_unfinished()
            names = sorted(tensors)
            with tf.device("CPU:0"):
                tf.raw_ops.SaveV2(
                    prefix=prefix,
                    tensor_names=names,
                    shape_and_slices=[""] * len(names),
                    tensors=[tf.convert_to_tensor(tensors[name]) for name in names],
                )
            files = {
                _leaf(path): {"bytes": _size(path), "sha256": _sha256(path)}
                for path in _files(prefix)
            }
            _write_manifest(f"{prefix}.json", {"step": step, "files": files})
        except (OSError, tf.errors.OpError) as error:
            self._remove_unfinished()
            kept = ", ".join(map(str, self.steps())) or "none"
            raise CheckpointError(
                f"could not write the checkpoint of step {step} in {self.folder}: "
                f"{one_line(error)}. Checkpoints there still: steps "
                f"{kept}. Make space or check the folder, then run the same command again."
            ) from error
        steps = self.steps()
        later = [other for other in steps if other > step]
        passing = [other for other in steps if other <= step and other not in self._always]
        for other in passing[: -self._keep] + later:
            self._remove(other)
        return prefix

    def _remove(self, step: int) -> None:
        prefix = self.prefix(step)
        for path in (f"{prefix}.json", *_files(prefix)):
            _remove_file(path)

    def _unfinished(self) -> dict[str, int]:
        """Files of checkpoints without a json file that says they are whole, and their steps."""
        if not tf.io.gfile.isdir(self.folder):
            return {}
        whole = self.steps()
        found = (_FILE.match(name) for name in tf.io.gfile.listdir(self.folder))
        steps = {match.string: int(match.group(1)) for match in found if match}
        return {name: step for name, step in steps.items() if step not in whole}

    def _remove_unfinished(self) -> None:
        for name in self._unfinished():
            _remove_file(f"{self.folder}/{name}")

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
            return f"{_leaf(prefix)}.json is unreadable: {one_line(error)}"
        return None

    def newest_whole(self) -> int | None:
        """The newest step whose files are whole; damaged ones are named in the log.

        Returns:
            The step, or None where there is no checkpoint at all.

        Raises:
            CheckpointError: there are checkpoints, and every one is damaged.
        """
        damaged = []
        for step in reversed(self.steps()):
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
        # Saving removes what is unfinished first, so that an interrupted run leaves one at most.
        unfinished = sorted(set(self._unfinished().values()))
        if len(unfinished) > 1:
            raise CheckpointError(
                f"the checkpoints of steps {', '.join(map(str, unfinished))} in {self.folder} lack "
                "their json files, which say that they are whole. Put those back, or give another "
                "--workdir to start anew."
            )
        if unfinished:
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
    reader = _reader(prefix)
    shapes = reader.get_variable_to_shape_map()
    saved = {name for name in shapes if name.startswith(within)}
    of_0_1 = {name.replace(".", "_"): name for name in saved}
    if saved != set(variables) == set(of_0_1):
        # Version 0.1 had dots in the names of ResNets' layers, which PyTorch does not take.
        variables = {of_0_1[name]: variable for name, variable in variables.items()}
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
        variable.assign(_tensor(reader, prefix, name))


def read(prefix: str, within: str = "") -> dict[str, np.ndarray]:
    """The tensors of a checkpoint.

    Args:
        prefix: path of a checkpoint.
        within: only the names that start so.

    Returns:
        Name to array.

    Raises:
        CheckpointError: it cannot be read.
    """
    reader = _reader(prefix)
    names = (name for name in reader.get_variable_to_shape_map() if name.startswith(within))
    return {name: np.asarray(_tensor(reader, prefix, name)) for name in sorted(names)}


def differences(prefix: str, other: str) -> list[str]:
    """Where two checkpoints differ, bit by bit.

    Args:
        prefix: path of a checkpoint.
        other: path of another.

    Returns:
        Names of the tensors that only one of them has, or that differ.

    Raises:
        CheckpointError: one cannot be read.
    """
    readers = {path: _reader(path) for path in (prefix, other)}
    first, second = (set(r.get_variable_to_shape_map()) for r in readers.values())
    differing = first ^ second
    for name in first & second:
        a, b = (_tensor(reader, path, name) for path, reader in readers.items())
        a, b = np.asarray(a), np.asarray(b)
        if (a.dtype, a.shape, a.tobytes()) != (b.dtype, b.shape, b.tobytes()):
            differing.add(name)
    return sorted(differing)


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
        return _whole(prefix, step)
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
    reader = _reader(prefix)
    if not reader.has_tensor("global_step"):
        return 0
    return int(_tensor(reader, prefix, "global_step"))


def _whole(prefix: str, step: int | None) -> str:
    """The prefix that a user gave, if it is of that step and as it was written."""
    if step is not None and step != step_of(prefix):
        raise CheckpointError(
            f"{prefix} is the checkpoint of step {step_of(prefix)}, not {step}. Give the run "
            "directory to choose among its steps."
        )
    folder, _, leaf = prefix.rpartition("/")
    match = _NAME.fullmatch(f"{leaf}.json")
    if match and tf.io.gfile.exists(f"{prefix}.json"):
        problem = Checkpoints(folder or ".").damage(int(match.group(1)))
        if problem is not None:
            raise CheckpointError(f"{prefix} is damaged: {problem}")
    return prefix


def _reader(prefix: str) -> Any:
    try:
        return tf.train.load_checkpoint(prefix)
    except _READ_ERRORS as error:
        raise CheckpointError(f"{prefix} cannot be read: {one_line(error)}") from error


def _tensor(reader: Any, prefix: str, name: str) -> Any:
    try:
        return reader.get_tensor(name)
    except _READ_ERRORS as error:
        raise CheckpointError(f"{name} of {prefix} cannot be read: {one_line(error)}") from error


def _remove_file(path: str) -> None:
    try:
        tf.io.gfile.remove(path)
    except tf.errors.NotFoundError:
        return
    except tf.errors.OpError as error:
        _log.warning("could not remove %s: %s", path, one_line(error))


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


def _write_manifest(path: str, manifest: Mapping[str, Any]) -> None:
    atomic.write_text(path, json.dumps(manifest))


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
