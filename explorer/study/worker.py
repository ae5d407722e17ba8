"""The process that computes: `python -m explorer.study.worker FD` serves requests from a socket until it is closed.

Holds torch, the networks and the spike trains. Each request has a thread of its own, so that a long one keeps no other
waiting. What comes in: ("do", id, name, args, asks, tells), ("yes", id, ask); what goes out: ("tell", id, what, args),
("done", id, value), ("failed", id, error).
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from explorer.engine.errors import ExplorerError
from explorer.study.executor import find, is_lost_device
from explorer.study.memory import trim

IDLE = 15.0  # seconds without a request after which memory is given back
BUSY = 5.0  # seconds between which the allocator's own spare memory is given back while there is work
BADNESS = "500"  # of 1000: where memory runs out, the system ends this process and not the server
AT_ONCE = 64  # pieces of work
YIELDS = 5  # of 19: where processors are short, pages are drawn before images are simulated
LOST_DEVICE = 77  # exit status


class Service:
    """The requests that are being worked on."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._asked: dict[int, dict[str, threading.Event]] = {}
        self._threads = ThreadPoolExecutor(AT_ONCE)  # kept: each thread that torch meets gets helpers of its own

    def serve(self) -> None:
        """Take requests until the other side is gone."""
        with suppress(EOFError, OSError):
            fresh, trimmed = False, time.monotonic()
            while True:
                if fresh and time.monotonic() - trimmed > BUSY:
                    trim()
                    trimmed = time.monotonic()
                if not self._connection.poll(IDLE):
                    if fresh and not self._asked:
                        relax()
                        fresh = False
                    continue
                kind, id, *rest = pickle.loads(self._connection.recv_bytes())
                if kind == "yes":
                    events = self._asked.get(id, {})
                    for event in [events[name] for name in rest if name in events]:
                        event.set()
                else:
                    fresh = True
                    self._begin(id, *rest)

    def _begin(self, id: int, name: str, args: tuple[Any, ...], asks: list[str], tells: list[str]) -> None:
        self._asked[id] = {ask: threading.Event() for ask in asks}
        self._threads.submit(self._do, id, name, args, tells)

    def _do(self, id: int, name: str, args: tuple[Any, ...], tells: list[str]) -> None:
        asks = {ask: event.is_set for ask, event in self._asked[id].items()}
        try:
            value = find(name)(*args, **asks, **{tell: self._teller(id, tell) for tell in tells})
            answer = packed("done", id, value)
        except BaseException as error:
            if is_lost_device(error):
                traceback.print_exc()
                os._exit(LOST_DEVICE)  # nothing in this process can use the device again
            if not isinstance(error, ExplorerError):
                traceback.print_exc()
            answer = packed("failed", id, sendable(error))
        del self._asked[id]
        self._send(answer)

    def _teller(self, id: int, what: str) -> Callable[..., None]:
        return lambda *args: self._send(packed("tell", id, what, args))

    def _send(self, content: bytes) -> None:
        with self._sending, suppress(OSError):
            self._connection.send_bytes(content)


def packed(*message: Any) -> bytes:
    """Return a message as it travels."""
    return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)


def sendable(error: BaseException) -> BaseException:
    """Return a fault as it can be sent: one that cannot be pickled by its type and words alone."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def relax() -> None:
    """Give memory back: spike trains that nobody has asked for lately, and what the allocator holds."""
    if "explorer.study.library" in sys.modules:
        sys.modules["explorer.study.library"].store().clear()
    trim()


def main() -> None:
    """Serve the other end of a socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the server, which closes the socket
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with suppress(OSError):
        os.nice(YIELDS)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(BADNESS)
    Service(Connection(int(sys.argv[1]))).serve()
    os._exit(0)  # threads in the midst of a run are not waited for


if __name__ == "__main__":
    main()
