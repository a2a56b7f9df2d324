"""The process before a job: Keras's back end, TensorFlow's start-up lines, a closed stdout."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, TextIO

from neural_alignment import extras
from neural_alignment.messages import last_line, one_line

# What TensorFlow and its libraries say of themselves when they start: notes and warnings.
_NOTE = re.compile(
    r"WARNING: All log messages before absl::InitializeLog"
    r"|[IWE]\d{4} \d\d:\d\d:\d\d"
    r"|[IWE]0000 00:00:"
    r"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: [IWE] "
    r"|To enable the following instructions:"
)


_UNUSED = ("jax", "matplotlib")
# Where XLA keeps what it compiles, among TensorFlow's flags for it.
_CACHE = re.compile(r"(?:^|\s)--?tf_xla_persistent_cache_directory=(\S+)")
_READ_ONLY = re.compile(r"(?:^|\s)--?tf_xla_persistent_cache_read_only(?:=(?:true|1))?(?:\s|$)")


class UnusableError(RuntimeError):
    """A TensorFlow or a Keras that no job can run on."""


# What a command uses, whatever its flags are, besides Keras and NumPy.
NEEDS = {
    "train": ("rich", "tensorboard", "tensorflow"),
    "evaluate": ("rich", "tensorflow"),
    "search": ("rich", "hyperopt", "tensorboard", "tensorflow"),
    "figures": ("rich", "matplotlib", "tensorflow"),
    "leaderboard": ("rich",),
    "report": ("matplotlib",),
    "reproduce": ("rich", "matplotlib", "tensorboard", "tensorflow"),
    "prepare": ("rich", "PIL", "tensorflow"),
}


def require(command: str, *modules: str) -> None:
    """Checks that what a command uses is installed.

    Args:
        command: of `neural-alignment`.
        modules: keys of `extras.EXTRAS`.

    Raises:
        UnusableError: some are not; the message is the line that installs them.
    """
    try:
        extras.require(f"`neural-alignment {command}`", *modules)
    except extras.MissingPackageError as error:
        raise UnusableError(str(error)) from error


def prepare(command: str, *more: str) -> None:
    """Makes Keras take TensorFlow, and TensorFlow silent; before either is imported.

    Args:
        command: of `neural-alignment`, a key of `NEEDS`.
        *more: modules that its flags ask for.

    Raises:
        UnusableError: KERAS_BACKEND names another back end, Keras runs on one already, what the
            command needs is not installed, or XLA's cache cannot be where TF_XLA_FLAGS says.
    """
    require(command, *NEEDS[command], *more)
    if "tensorflow" in NEEDS[command]:
        _check_cache()
    chosen = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if "keras" in sys.modules and hasattr(sys.modules["keras"], "config"):
        chosen = sys.modules["keras"].config.backend()
    if chosen != "tensorflow":
        raise UnusableError(
            "Expected Keras on TensorFlow, whose strategies and checkpoints the scripts use. "
            f"Received: KERAS_BACKEND={chosen}. Unset it, or set KERAS_BACKEND=tensorflow."
        )
    os.environ["KERAS_BACKEND"] = chosen  # keras.json may say another
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def xla_cache() -> str | None:
    """The folder in which XLA keeps what it compiles, as TF_XLA_FLAGS says, or None."""
    found = _CACHE.findall(os.environ.get("TF_XLA_FLAGS", ""))
    return found[-1] if found else None


def _check_cache() -> None:
    """Sees that XLA's cache can be made: TensorFlow finds out when it has compiled a step."""
    folder = xla_cache()
    if folder is None or "://" in folder:
        return
    try:
        os.makedirs(folder, exist_ok=True)
        if not _READ_ONLY.search(os.environ["TF_XLA_FLAGS"]):
            tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UnusableError(
            "TF_XLA_FLAGS: Expected a folder that may be written to as "
            f"--tf_xla_persistent_cache_directory. Received: {folder} ({error.strerror}). Name "
            "another one, or unset TF_XLA_FLAGS."
        ) from error


def check_import() -> None:
    """Sees in a process of its own whether TensorFlow and Keras can be imported.

    Raises:
        UnusableError: one of them cannot.
    """
    from neural_alignment.search.processes import interpreter

    code = "from neural_alignment.cli import environment; environment.import_or_exit()"
    tried = subprocess.run([*interpreter(), "-c", code], capture_output=True, text=True)
    if tried.returncode:
        raise UnusableError(last_line(tried.stderr) or f"exit code {tried.returncode}")


def import_or_exit() -> None:
    """`import_tensorflow`; what is wrong is the process's last line."""
    try:
        prepare("train")
        import_tensorflow()
    except UnusableError as error:
        sys.exit(str(error))


def import_tensorflow(whole: bool = False) -> None:
    """Imports TensorFlow and Keras without their start-up lines.

    Args:
        whole: with what they import besides where it is installed, and no job needs: JAX, for
            TensorFlow Lite, and Matplotlib, for `keras.visualization`. It is a third of the time.

    Raises:
        UnusableError: one of them cannot be imported.
    """
    for name in ("tensorflow", "keras"):
        try:
            with without_notes(), _without_keras_file(), left_out(*(() if whole else _UNUSED)):
                importlib.import_module(name)
        except Exception as error:  # a build may fail in many ways
            raise UnusableError(
                f"Expected {name} to be importable. Received: {type(error).__name__}: "
                f"{one_line(error)}. Install a build for this machine: "
                'pip install --force-reinstall "neural-alignment[cpu]" (or [gpu], [tpu]).'
            ) from error


@contextlib.contextmanager
def left_out(*modules: str) -> Iterator[None]:
    """Lets nothing import these modules meanwhile, as if they were not installed.

    Args:
        modules: by name; one that is imported already stays.
    """
    absent = [name for name in modules if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


@contextlib.contextmanager
def _without_keras_file() -> Iterator[None]:
    """Keeps Keras from its configuration file, which may hold what Keras cannot start with."""
    before = os.environ.get("KERAS_HOME")
    with tempfile.TemporaryDirectory(prefix="keras") as home:
        os.environ["KERAS_HOME"] = home
        try:
            yield
        finally:
            if before is None:
                del os.environ["KERAS_HOME"]
            else:
                os.environ["KERAS_HOME"] = before


@contextlib.contextmanager
def without_notes() -> Iterator[None]:
    """Leaves out what libraries, C++ among them, say of themselves on stderr meanwhile."""
    try:
        kept = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") in ("0", "1"):  # they were asked for
        os.close(kept)
        yield
        return
    _flush(sys.stderr)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            _flush(sys.stderr)
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines = file.read().decode(errors="replace").splitlines()
            say("".join(f"{line}\n" for line in lines if not _NOTE.match(line)))


@contextlib.contextmanager
def logging_to_stderr() -> Iterator[None]:
    """Shows what this package logs, as it is, on stderr meanwhile."""
    logger = logging.getLogger("neural_alignment")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


def say(text: str) -> None:
    """Writes to stderr, if anybody is there."""
    if text and sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
            sys.stderr.flush()


def _flush(stream: Any) -> None:
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


class Output(io.TextIOBase):
    """stdout that may be closed at any time: says so once on stderr, and what follows is dropped.

    Args:
        stream: the real one; None where it was closed from the start.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.lost = False

    def write(self, text: str) -> int:
        if self._stream is None:
            self._lose("it was closed")
        elif not self.lost:
            try:
                self._stream.write(self._encodable(text))
            except (OSError, ValueError) as error:
                self._lose(one_line(error))
        return len(text)

    def _encodable(self, text: str) -> str:
        """The text, with escapes for what stdout's encoding has no signs for, as stderr does."""
        try:
            text.encode(self.encoding)
        except UnicodeEncodeError:
            return text.encode(self.encoding, "backslashreplace").decode(self.encoding)
        return text

    def flush(self) -> None:
        if self._stream is not None and not self.lost:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._lose(one_line(error))

    def isatty(self) -> bool:
        return self._stream is not None and not self.lost and self._stream.isatty()

    def fileno(self) -> int:
        if self._stream is None:
            raise io.UnsupportedOperation("stdout is closed")
        return self._stream.fileno()

    @property
    def encoding(self) -> str:
        return getattr(self._stream, "encoding", None) or "utf-8"

    def _lose(self, reason: str) -> None:
        if self.lost:
            return
        self.lost = True
        say(f"stdout cannot be written to ({reason}): going on without it.\n")
        # What is still in its buffer must not fail again when the process ends.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self._stream.fileno())
            os.close(nothing)


@contextlib.contextmanager
def guarded_stdout() -> Iterator[Output]:
    """Puts an `Output` in the place of stdout, and nothing else on a stream's number."""
    closed = []
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # or the next file that is opened would get what is printed
            os.open(os.devnull, os.O_RDWR)
            closed.append(number)
    before, output = sys.stdout, Output(None if 1 in closed else sys.stdout)
    sys.stdout = output
    try:
        yield output
    finally:
        output.flush()
        sys.stdout = before
