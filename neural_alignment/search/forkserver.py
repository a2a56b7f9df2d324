"""A process that has TensorFlow imported and forks for each trial.

Importing TensorFlow and Keras takes seconds, as long as a small trial trains. The server imports
them once and starts nothing of TensorFlow's runtime, so that its forks are as good as new
processes: each is a process group of its own, killed with the server, which is killed with the
search.

Run as `python -m neural_alignment.search.forkserver MODULE...`. Requests and answers are JSON:

    {"argv": [...], "environment": {...}, "log": path}   ->   {"pid": 12}
                                                              {"pid": 12, "exit": -11}
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from neural_alignment.messages import last_line
from neural_alignment.search.processes import (
    Process,
    end_group,
    end_with_parent,
    has_ended,
    interpreter,
)

# What it imports where it is to fork training jobs.
TRAINING = ("neural_alignment.cli.preload",)


class ForkServer:
    """Starts scripts as forks of a server that has the modules imported.

    Args:
        modules: What the server imports.
        environment: Added to this process's environment for the server and its forks.
        log: A file for what the server itself prints.
        otherwise: What starts the scripts without a server, for whom it ends: "with --FLAG".
    """

    def __init__(
        self,
        modules: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        otherwise: str | None = None,
    ) -> None:
        parent = os.getpid()
        self._log, self._otherwise = log, otherwise
        with open(log, "wb") as output:
            self._server = subprocess.Popen(
                [*interpreter(), "-m", __name__, *modules],
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
                preexec_fn=lambda: end_with_parent(parent),
            )
        self._exits: dict[int, int] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._server.stdout, selectors.EVENT_READ)
        self._buffer = b""

    def start(self, argv: Sequence[str], environment: Mapping[str, str], log: Path) -> Process:
        """Starts the script argv[0], or the module argv[1] after -m; its output goes to `log`.

        Raises:
            RuntimeError: the server is gone.
        """
        request = {"argv": list(argv), "environment": dict(environment), "log": str(log)}
        try:
            self._server.stdin.write(json.dumps(request).encode() + b"\n")
            self._server.stdin.flush()
        except BrokenPipeError:
            self._lost()
        while True:
            for answer in self._answers(timeout=None):
                if "exit" not in answer:
                    return _Fork(self, answer["pid"])

    def exit_code(self, pid: int, timeout: float) -> int | None:
        """The exit code of a fork, once the server has reported it."""
        if pid not in self._exits:
            for _ in self._answers(timeout):
                continue
        return self._exits.get(pid)

    def close(self) -> None:
        """Ends the server."""
        with contextlib.suppress(BrokenPipeError):  # it has ended, and what was wrong was said
            self._server.stdin.close()
        self._server.wait()
        self._selector.close()
        self._server.stdout.close()

    def _answers(self, timeout: float | None) -> list[dict[str, Any]]:
        """The server's next answers, exits noted; none if it is silent for so long."""
        if not self._selector.select(timeout):
            return []
        data = os.read(self._server.stdout.fileno(), 65536)
        if not data:
            self._lost()
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        answers = [json.loads(line) for line in lines]
        self._exits.update({a["pid"]: a["exit"] for a in answers if "exit" in a})
        return answers

    def _lost(self) -> NoReturn:
        code = self._server.wait()
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        line = last_line(text)
        said = f": {line.rstrip('.')}" if line else ""
        # Without the server every run would say the same of a TensorFlow that is unusable.
        helps = self._otherwise and not said.startswith(": Expected")
        raise RuntimeError(
            f"The process that runs are forked from ended with exit code {code}{said}. What it "
            f"printed is in {self._log}. Mend that and give the same command again"
            f"{f', {self._otherwise} if this goes on' if helps else ''}."
        )


class _Fork:
    def __init__(self, server: ForkServer, pid: int) -> None:
        self._server = server
        self.pid = pid

    def poll(self) -> int | None:
        return self._server.exit_code(self.pid, timeout=0)

    def wait(self, timeout: float) -> int | None:
        return self._server.exit_code(self.pid, timeout)


def main(modules: Sequence[str]) -> None:
    """Serves until the input closes; in a fork, runs the requested script and returns."""
    server = os.getpid()
    # Whatever an import prints must not get between the answers.
    answers = os.dup(1)
    os.dup2(2, 1)
    for name in modules:
        importlib.import_module(name)
    # What is imported stays: without this a fork's first collection copies all of it.
    gc.collect()
    gc.freeze()
    request = _serve(answers)
    os.close(answers)
    if request is not None:
        end_with_parent(server)
        _become(request)
        _run(request["argv"])


def _serve(answers: int) -> dict[str, Any] | None:
    """Forks for each request. Returns the request in a fork, None in the server at its end."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write)
    children: set[int] = set()
    buffer = b""
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(wake_read, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                data = os.read(key.fd, 65536)
                if key.fd == wake_read:
                    _report(answers, children)
                    continue
                if not data:
                    for child in children:
                        end_group(child)
                    return None
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    child = os.fork()
                    if child == 0:
                        signal.set_wakeup_fd(-1)
                        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                        os.close(wake_read)
                        os.close(wake_write)
                        return json.loads(line)
                    # Also done by the fork; here so that the group exists when the pid is known.
                    _set_group(child)
                    children.add(child)
                    _answer(answers, {"pid": child})


def _report(answers: int, children: set[int]) -> None:
    for child in list(children):
        if has_ended(child):
            end_group(child)
            _, status = os.waitpid(child, 0)
            children.remove(child)
            _answer(answers, {"pid": child, "exit": os.waitstatus_to_exitcode(status)})


def _answer(answers: int, data: Mapping[str, Any]) -> None:
    os.write(answers, json.dumps(data).encode() + b"\n")


def _set_group(child: int) -> None:
    try:
        os.setpgid(child, child)
    except (PermissionError, ProcessLookupError):
        # It has made its own session already, or has ended.
        return


def _become(request: Mapping[str, Any]) -> None:
    """Turns a fork into `python argv...`: streams, environment, arguments."""
    os.setpgid(0, 0)
    output = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(nothing)
    os.close(output)
    os.environ.update(request["environment"])
    sys.argv = list(request["argv"])
    if sys.argv[0] == "-m":
        del sys.argv[0]
    else:
        if not sys.flags.safe_path:
            del sys.path[0]
        sys.path.insert(0, str(Path(sys.argv[0]).parent))


def _run(argv: Sequence[str]) -> NoReturn:
    """Runs a script, or a module, and ends the process as an interpreter would.

    But for taking itself apart: taking apart all that the server imported takes seconds, and
    touches every page that the forks share.
    """
    code = 0
    try:
        if argv[0] == "-m":
            runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as end:
        code = _exit_code(end)
    except BaseException:
        traceback.print_exc()
        code = 1
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _exit_code(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return (end.code or 0) & 0xFF
    sys.stderr.write(f"{end.code}\n")
    return 1


if __name__ == "__main__":
    main(sys.argv[1:])
