"""An executor whose work is done in a process of its own: see `worker`.

The process may die (memory, a signal, a fault in native code) or lose its GPU. Then a new one is started, what was in
work is begun anew, once, one piece after another, and only what loses its process twice is given up, in words.
"""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from explorer.study.executor import NONE, Asks, Inline, Tells, WorkerLost
from explorer.study.memory import in_use_mib
from explorer.study.worker import LOST_DEVICE, packed

ROOT = Path(__file__).resolve().parents[2]
ASKED_EVERY = 0.05  # seconds
ARENAS = "2"  # of the C library: with one for each thread, memory that is free stays with all of them
GATHER = 0.05  # seconds in which all that lost one process have noticed it
ENDED = 5.0  # seconds that a process gets to end by itself
log = logging.getLogger("explorer.server")
Supply = Callable[[str], tuple[Any, ...] | None]  # from an upload's key to the work, name and arguments, that brings it


class Lost(Exception):
    """The process ended in mid-work; how it ended, in words. device: it lost its GPU."""

    def __init__(self, child: Child) -> None:
        super().__init__(child.how())
        self.device = child.process.poll() == LOST_DEVICE


class Child:
    """One process and the socket to it. answers: where the messages of each piece of work go."""

    def __init__(self, environment: dict[str, str]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
            self.process = subprocess.Popen(
                [sys.executable, "-m", "explorer.study.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={"MALLOC_ARENA_MAX": ARENAS} | os.environ | environment | {"PYTHONPATH": os.pathsep.join(paths)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self._socket = ours
        self._connection = Connection(os.dup(ours.fileno()))
        self._sending = threading.Lock()
        self.answers: dict[int, queue.SimpleQueue[tuple[Any, ...]]] = {}
        self.ended = threading.Event()
        threading.Thread(target=self._listen, name="answers", daemon=True).start()

    def _listen(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                message = pickle.loads(self._connection.recv_bytes())
                waiting = self.answers.get(message[1])
                if waiting is not None:
                    waiting.put(message)
        self.ended.set()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(ENDED)
        for waiting in list(self.answers.values()):
            waiting.put(("lost",))

    def send(self, *message: Any) -> None:
        """Send a message; a process that is gone is noticed elsewhere."""
        content = packed(*message)
        with self._sending, suppress(OSError):
            self._connection.send_bytes(content)

    def how(self) -> str:
        """Return how it ended."""
        code = self.process.poll()
        if code == LOST_DEVICE:
            return "the GPU failed or is gone"
        if code == -9:
            return "it was killed, as the system does where memory runs out"
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"

    def close(self) -> None:
        """End it: by the end of its socket, else by force."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        try:
            self.process.wait(ENDED)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Turns:
    """Work that lost its process has its second try alone, the last begun first.

    What ended the process then takes nothing else along, and something long that was merely beside it waits its turn.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[int] = []
        self._busy = False

    @contextmanager
    def take(self, begun: int) -> Iterator[None]:
        """Wait for one's turn, and have it."""
        with self._changed:
            self._waiting.append(begun)
            self._changed.wait_for(lambda: False, GATHER)
            self._changed.wait_for(lambda: not self._busy and max(self._waiting) == begun)
            self._waiting.remove(begun)
            self._busy = True
        try:
            yield
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()


class Process:
    """Work is done in one process beside this one, which is started when it is first needed and whenever it ended.

    supply: brings what the process lacks, an upload by its key: the work that takes it in; None: nobody has it.
    """

    def __init__(self, supply: Supply = lambda key: None) -> None:
        self._supply = supply
        self._child: Child | None = None
        self._starting = threading.Lock()
        self._turns = Turns()
        self._ids = itertools.count()
        self._closed = False
        self._failed_gpu: set[int] = set()  # processes that lost it

    def start(self) -> Child:
        """Return the process, a new one if there is none."""
        with self._starting:
            if self._closed:
                raise WorkerLost("The server is ending.")
            if self._child is None or self._child.ended.is_set():
                self._child = Child({"CUDA_VISIBLE_DEVICES": ""} if len(self._failed_gpu) > 1 else {})
            return self._child

    def call(self, name: str, *args: Any, asks: Asks = NONE, tells: Tells = NONE) -> Any:
        """Do this work and return what it returns."""
        begun = next(self._ids)
        try:
            return self._do(name, args, asks, tells)
        except Lost as lost:
            log.warning("the process that computes ended: %s; %s is begun anew", lost, name)
            tries = 2 if lost.device else 1  # after a second failure of the GPU, the third process goes on without it
        with self._turns.take(begun):
            for left in reversed(range(tries)):
                try:
                    return self._do(name, args, asks, tells)
                except Lost as lost:
                    if not left:
                        raise WorkerLost(
                            f"The process that computes ended, and did so again when the work was begun anew: {lost}. "
                            "Take fewer time-steps, a smaller network or smaller images."
                        ) from lost
        raise AssertionError("unreachable")

    def _do(self, name: str, args: tuple[Any, ...], asks: Asks, tells: Tells) -> Any:
        brought: set[str] = set()
        while True:
            try:
                return self._once(self.start(), name, args, asks, tells)
            except Exception as error:
                key = getattr(error, "upload", "")
                work = self._supply(key) if key and key not in brought else None
                if work is None:
                    raise
                brought.add(key)
                self._once(self.start(), work[0], work[1:], NONE, NONE)

    def _once(self, child: Child, name: str, args: tuple[Any, ...], asks: Asks, tells: Tells) -> Any:
        id, answers = next(self._ids), queue.SimpleQueue[tuple[Any, ...]]()
        child.answers[id] = answers
        try:
            child.send("do", id, name, args, list(asks), list(tells))
            if child.ended.is_set():
                answers.put(("lost",))
            return self._wait(child, id, answers, dict(asks), tells)
        finally:
            del child.answers[id]

    def _wait(
        self,
        child: Child,
        id: int,
        answers: queue.SimpleQueue[tuple[Any, ...]],
        asks: dict[str, Callable[[], bool]],
        tells: Tells,
    ) -> Any:
        try:
            while True:
                for ask in [ask for ask, answer in asks.items() if answer()]:
                    del asks[ask]
                    child.send("yes", id, ask)
                with suppress(queue.Empty):
                    match answers.get(timeout=ASKED_EVERY if asks else None):
                        case ("tell", _, what, told):
                            tells[what](*told)
                        case ("done", _, value):
                            return value
                        case ("failed", _, error):
                            raise error
                        case _:
                            raise self._lost(child)
        except BaseException:
            child.send("yes", id, *asks)
            raise

    def _lost(self, child: Child) -> Lost:
        lost = Lost(child)
        if lost.device:
            self._failed_gpu.add(child.process.pid)
        return lost

    def memory_mib(self) -> float:
        """Return the memory of the process, in MiB."""
        child = self._child
        if child is None or child.ended.is_set():
            return 0.0
        return in_use_mib(child.process.pid)

    def close(self) -> None:
        """End the process; nothing is computed after that."""
        with self._starting:
            self._closed = True
            if self._child is not None:
                self._child.close()


def make(supply: Supply) -> Process | Inline:
    """Return an executor with a process of its own; where none can be had, one that works here."""
    if os.name != "posix" or os.environ.get("EXPLORER_EXECUTOR", "") == "inline":
        return Inline()
    executor = Process(supply)
    try:
        executor.start()
    except OSError as error:
        log.warning("no process for computing can be had (%s): simulations run in the server", error)
        return Inline()
    return executor
