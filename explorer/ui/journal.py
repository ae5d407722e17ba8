"""A line a minute for whoever runs the server, while somebody is there: visitors, queue, memory."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from explorer.limits import limits
from explorer.study.memo import kept
from explorer.study.runner import Load

EVERY = 60.0  # seconds
log = logging.getLogger("explorer.server")


def memory_mib() -> float:
    """Return how much memory this process has in use, in MiB; 0 where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return 0.0


def line(load: Load, mib: float) -> str:
    """Return what is to be told."""
    visitors = f"{load.visitors} visitor{'' if load.visitors == 1 else 's'}"
    return f"{visitors}, {load.waiting} waiting for {load.open_runs} runs, {mib:.0f} MiB in use"


@kept(1)
def begin(load: Callable[[], Load]) -> threading.Thread:
    """Start the journal, once per server; load tells how busy it is."""
    if not log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
    thread = threading.Thread(target=_write, args=(load,), name="journal", daemon=True)
    thread.start()
    return thread


def _write(load: Callable[[], Load]) -> None:
    log.info("the explorer listens, %s", "public" if limits().public else "for this computer's user")
    while True:
        time.sleep(EVERY)
        with suppress(Exception):  # a journal that fails must not take anything with it
            now = load()
            if now.visitors:
                log.info(line(now, memory_mib()))


def is_full(load: Load, known: bool) -> bool:
    """Tell whether a visitor who is not known yet finds no place any more."""
    return not known and load.visitors >= limits().visitors
