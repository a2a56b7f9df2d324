"""The workers of TF_CONFIG: who they are, and waiting until all of them are there."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import time
from collections.abc import Sequence

_log = logging.getLogger(__name__)
_CALL_SECONDS = 5.0
# Who waits says for whom: soon, since a worker may have been forgotten, then now and then.
_FIRST_WORD_SECONDS = 2.0
_WORD_SECONDS = 30.0
_GO = b"go"


class DeviceError(RuntimeError):
    """Devices that were asked for and are not there, or no longer."""


def has_cluster() -> bool:
    """Whether TF_CONFIG names workers; platforms set it to {} for a single machine."""
    try:
        config = json.loads(os.environ.get("TF_CONFIG", "").strip() or "null")
    except ValueError:
        return True  # `cluster` says what is wrong with it
    if config is None:
        return False
    if not isinstance(config, dict):
        return True
    jobs = config.get("cluster")
    return bool(jobs) and (not isinstance(jobs, dict) or any(jobs.values()))


def cluster() -> tuple[list[str], int]:
    """Addresses of all workers, a chief first, and the index of this one.

    Raises:
        DeviceError: TF_CONFIG does not say so.
    """
    text = os.environ.get("TF_CONFIG", "none")
    try:
        config = json.loads(text)
        jobs, task = config["cluster"], config["task"]
        if set(jobs) - {"chief", "worker"}:
            raise ValueError("jobs other than chief and worker")
        addresses = [*jobs.get("chief", ()), *jobs.get("worker", ())]
        own = jobs[task["type"]][int(task["index"])]
        if not all(str(address).rpartition(":")[2].isdigit() for address in addresses):
            raise ValueError("an address without a port")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise DeviceError(
            "Expected the environment variable TF_CONFIG, such as "
            '{"cluster": {"worker": ["host0:port", "host1:port"]}, '
            '"task": {"type": "worker", "index": 0}}, for --strategy=multi_worker. '
            f"Received: {text} ({type(error).__name__}: {error})"
        ) from error
    return addresses, addresses.index(own)


def meet(addresses: Sequence[str], index: int, seconds: float) -> None:
    """Waits until every worker is there; TensorFlow itself waits for hours, deaf to signals.

    The first listens on its own port until all the others have called, then answers them. Who
    waits says for whom.

    Args:
        addresses: of all workers, as host:port.
        index: of this one.
        seconds: to wait at most.

    Raises:
        TimeoutError: somebody did not come; names them.
        OSError: the first one's port is not free.
    """
    patience = _Patience(seconds)
    host, _, port = addresses[0].rpartition(":")
    if index:
        _call(host, int(port), index, patience)
    else:
        _listen(addresses, int(port), patience)


def _listen(addresses: Sequence[str], port: int, patience: _Patience) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("", port)))
        calls: dict[int, socket.socket] = {}
        while missing := [w for i, w in enumerate(addresses) if i and i not in calls]:
            try:
                server.settimeout(patience.say(f"waiting for {', '.join(missing)}"))
                call = stack.enter_context(server.accept()[0])
                call.settimeout(_CALL_SECONDS)
                calls[int(call.recv(16))] = call
            except TimeoutError:
                if patience.ended:
                    raise TimeoutError(
                        f"no word from {', '.join(missing)} within {patience.seconds:.0f} seconds"
                    ) from None
            except ValueError:  # somebody else's call
                continue
        for call in calls.values():
            call.sendall(_GO)


def _call(host: str, port: int, index: int, patience: _Patience) -> None:
    first = f"the first worker, {host}:{port}"
    while not patience.ended:
        try:
            patience.say(f"waiting for {first}")
            with socket.create_connection((host, port), timeout=_CALL_SECONDS) as call:
                call.sendall(f"{index}".encode())
                if _told_to_go(call, f"waiting with {first}, for other workers", patience):
                    return
        except OSError:  # not there yet
            time.sleep(0.2)
    raise TimeoutError(f"no word from {first}, within {patience.seconds:.0f} seconds")


def _told_to_go(call: socket.socket, words: str, patience: _Patience) -> bool:
    while not patience.ended:
        call.settimeout(patience.say(words))
        with contextlib.suppress(TimeoutError):
            return call.recv(len(_GO)) == _GO
    return False


class _Patience:
    """How long is waited, and when to say so.

    Args:
        seconds: to wait at most.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._word = time.monotonic() + _FIRST_WORD_SECONDS

    @property
    def ended(self) -> bool:
        """Whether it is at an end."""
        return time.monotonic() > self._end

    def say(self, words: str) -> float:
        """Says it in the log where it is time to.

        Args:
            words: for whom is waited.

        Returns:
            Seconds until there is something to say again, or patience ends; more than 0.
        """
        now = time.monotonic()
        if now >= self._word:
            _log.info("%s, for %.0f seconds at most", words, self._end - now)
            self._word = now + _WORD_SECONDS
        return max(0.01, min(self._word, self._end) - now)
