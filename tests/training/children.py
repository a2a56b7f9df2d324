"""Training jobs in processes of their own, forked after the imports, and killed where a test says.

A fork server imports TensorFlow once and starts nothing of it, so that a job's process costs only
what the job does.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import pathlib
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence

ROOT = pathlib.Path(__file__).parents[2]
TIMEOUT = 300.0

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["neural_alignment.training.job", __name__])

# What a kill can be aimed at: the module's or class's function, called once an event.
EVENTS = {
    "build": ("neural_alignment.training.job", "make_trainer"),
    "steps": ("neural_alignment.training.loop", "Trainer._chunk"),
    "validation": ("neural_alignment.training.evaluate", "Evaluator.__call__"),
    "row": ("neural_alignment.runs.table", "Table.append"),
    "save": ("neural_alignment.runs.checkpoints", "Checkpoints.save"),
    "manifest": ("neural_alignment.runs.checkpoints", "_write_manifest"),
}


@dataclasses.dataclass(frozen=True)
class Signal:
    """A signal that a job's process sends itself.

    Args:
        number: of the signal.
        event: a key of EVENTS, or None for all of them.
        nth: it counts from the nth such event in this process, from 1,
        delay: so many seconds on.
    """

    number: int
    event: str | None = None
    nth: int = 1
    delay: float = 0.0

    def arm(self) -> None:
        """Replaces the functions of the events by ones that count."""
        seen = 0

        def counted(function: Callable) -> Callable:
            def call(*args, **kwargs):
                nonlocal seen
                seen += 1
                if seen == self.nth and not self.delay:
                    os.kill(os.getpid(), self.number)
                elif seen == self.nth:
                    threading.Thread(target=self._send, daemon=True).start()
                return function(*args, **kwargs)

            return call

        for event, (module, path) in EVENTS.items():
            if self.event in (None, event):
                owner, _, name = path.rpartition(".")
                holder = sys.modules[module]
                holder = getattr(holder, owner) if owner else holder
                setattr(holder, name, counted(getattr(holder, name)))

    def _send(self) -> None:
        time.sleep(self.delay)
        os.kill(os.getpid(), self.number)


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a job ended: exit code (minus the signal that killed it), and what it wrote."""

    code: int
    output: str
    errors: str


def start(
    folder: pathlib.Path,
    script: str,
    flags: Sequence[str],
    prepare: Callable[[], None] | None = None,
) -> multiprocessing.Process:
    """Starts a script; what it writes goes to `folder`.

    Args:
        folder: for stdout and stderr.
        script: its name in scripts/.
        flags: its command line.
        prepare: called in the process first; a function or method of an importable module.
    """
    folder.mkdir(parents=True, exist_ok=True)
    process = _context.Process(target=_main, args=(folder, script, list(flags), prepare))
    process.start()
    return process


def wait(process: multiprocessing.Process, folder: pathlib.Path) -> Ended:
    """Waits for the end of what `start` started."""
    process.join(TIMEOUT)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"no end after {TIMEOUT} s: {(folder / 'stderr').read_text()}")
    return Ended(process.exitcode, (folder / "stdout").read_text(), (folder / "stderr").read_text())


def run(
    folder: pathlib.Path,
    script: str,
    flags: Sequence[str],
    prepare: Callable[[], None] | None = None,
) -> Ended:
    """Runs a script to its end; see `start`."""
    return wait(start(folder, script, flags, prepare), folder)


def apart(function: Callable[..., None], *arguments: object) -> None:
    """Calls a function in a process of its own, whose memory goes with it; it must not raise.

    Args:
        function: of an importable module.
        *arguments: its arguments.
    """
    process = _context.Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0, f"exit code {process.exitcode}; its traceback is on stderr"


def _main(
    folder: pathlib.Path, script: str, flags: list[str], prepare: Callable[[], None] | None
) -> None:
    for stream, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, stream)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    register_models()
    if prepare is not None:
        prepare()
    sys.argv = [str(ROOT / "scripts" / script), *flags]
    with contextlib.suppress(BrokenPipeError):
        runpy.run_path(sys.argv[0], run_name="__main__")


def register_models() -> None:
    """Registers a model with dropout, of two layers with a rule; once a process."""
    import keras

    from neural_alignment import layers, models

    if "dropout" in models.names():
        return

    @models.register("dropout")
    def dropout(input_shape, num_classes, alignment=None):
        x = inputs = keras.Input(input_shape)
        x = keras.layers.Flatten()(x)
        x = layers.Dense(16, activation="relu", alignment=alignment, name="hidden")(x)
        x = keras.layers.Dropout(0.3, name="dropout")(x)
        x = layers.Dense(num_classes, alignment=alignment, name="output")(x)
        return keras.Model(inputs, x)
