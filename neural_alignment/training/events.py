"""TensorBoard events of a run: every epoch's logs and schedules, each step once."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from neural_alignment.messages import one_line
from neural_alignment.runs.directory import RunDirectoryError


class TensorBoardScalars(keras.callbacks.Callback):
    """Writes an epoch's logs, and functions of the global step, as TensorBoard events.

    Args:
        folder: for the event file.
        schedules: name to function of the global step: learning rates, coefficients, loss rates.
        global_step: gives the number of steps taken.
    """

    def __init__(
        self,
        folder: str,
        schedules: Mapping[str, Callable[[int], Any]],
        global_step: Callable[[], int],
    ) -> None:
        super().__init__()
        self._folder = pathlib.Path(folder)
        self._schedules = dict(schedules)
        self._global_step = global_step
        self._writer: Any = None

    def truncate(self, step: int, every: int = 1) -> None:
        """Drops the events that a resumed run writes again, as `runs.table.Table.truncate` does.

        Args:
            step: events of later steps go.
            every: so do events whose step is not a multiple of it.
        """
        with _told(self._folder):
            for path in sorted(self._folder.glob("events.out.tfevents.*")):
                events, is_whole = _read(path)
                kept = [e for e in events if e.step <= step and e.step % every == 0]
                if len(kept) < len(events) or not is_whole:
                    _rewrite(path, kept)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the logs, and the schedules at the epoch's last step.

        Raises:
            RunDirectoryError: they could not be written.
        """
        step = self._global_step()
        with _told(self._folder):
            if self._writer is None:
                self._writer = tf.summary.create_file_writer(str(self._folder))
            with self._writer.as_default(step=step):
                for name, value in (logs or {}).items():
                    tf.summary.scalar(name, value)
                for name, schedule in self._schedules.items():
                    tf.summary.scalar(f"schedules/{name}", schedule(max(step - 1, 0)))
            self._writer.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


@contextlib.contextmanager
def _told(folder: pathlib.Path) -> Iterator[None]:
    """Errors of TensorFlow's, which name no file, with the folder."""
    try:
        yield
    except tf.errors.OpError as error:
        raise RunDirectoryError(
            f"could not write TensorBoard's events in {folder}: {one_line(error)}. Make space or "
            "check the folder, then run the same command again."
        ) from error


def _read(path: pathlib.Path) -> tuple[list[Any], bool]:
    """The events of a file, and whether that is all: what a kill left of a last one is none."""
    events = []
    try:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            events.append(tf.compat.v1.Event.FromString(record))
    except tf.errors.DataLossError:
        return events, False
    return events, True


def _rewrite(path: pathlib.Path, events: Sequence[Any]) -> None:
    part = path.with_name(f"part.{path.name}")
    with tf.io.TFRecordWriter(str(part)) as writer:
        for event in events:
            writer.write(event.SerializeToString())
    part.replace(path)
