"""Work for a process that computes: what it may do to itself, without torch."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from explorer.engine.errors import DataError, SpecError

HERE: set[str] = set()
NOTES: list[str] = []


def add(a: int, b: int) -> int:
    return a + b


def pid() -> int:
    return os.getpid()


def notes() -> list[str]:
    return NOTES


def fail(kind: str) -> None:
    class Odd(Exception):
        """Cannot be pickled."""

    raise {"spec": SpecError("T: too large."), "key": KeyError("x"), "odd": Odd("strange")}[kind]


def unsendable() -> Any:
    return threading.Lock()


def until_stopped(note: str = "", *, stop, tell=lambda n: None) -> str:
    tell(1)
    tell(2)
    for _ in range(2000):
        if stop():
            NOTES.append(note)
            return "stopped"
        threading.Event().wait(0.005)
    return "never"


def die_once(marker: str, n: int) -> int:
    """End this process by a signal in mid-work, unless that was done before."""
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def die() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(20)  # another thread takes the signal: this one must not answer first


def on_device() -> str:
    """Fail as torch does where a GPU is gone, as long as one is seen."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return "cpu"
    raise RuntimeError("CUDA error: unspecified launch failure")


def needs(key: str) -> str:
    if key not in HERE:
        error = DataError(f"{key} is not here.")
        error.upload = key  # type: ignore[attr-defined]
        raise error
    return f"{key} is here"


def bring(key: str) -> None:
    HERE.add(key)
