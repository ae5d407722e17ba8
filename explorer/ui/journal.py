"""A line a minute for whoever runs the server, while somebody is there: visitors, queue, memory."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from explorer.limits import limits
from explorer.study.memo import kept
from explorer.study.memory import in_use_mib, trim
from explorer.study.runner import Load

EVERY = 60.0  # seconds
log = logging.getLogger("explorer.server")


def line(load: Load, mib: float, beside: float = 0.0) -> str:
    """Return what is to be told; mib, beside: memory of the server and of the process that simulates."""
    visitors = f"{load.visitors} visitor{'' if load.visitors == 1 else 's'}"
    parts = f" ({mib:.0f} the server, {beside:.0f} simulations)" if beside else ""
    return f"{visitors}, {load.waiting} waiting for {load.open_runs} runs, {mib + beside:.0f} MiB in use{parts}"


@kept(1)
def begin(load: Callable[[], Load], beside: Callable[[], float] = lambda: 0.0) -> threading.Thread:
    """Start the journal, once per server; load tells how busy it is, beside the memory of other processes, in MiB."""
    if not log.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
    thread = threading.Thread(target=_write, args=(load, beside), name="journal", daemon=True)
    thread.start()
    return thread


def _write(load: Callable[[], Load], beside: Callable[[], float] = lambda: 0.0) -> None:
    log.info("the explorer listens, %s", "public" if limits().public else "for this computer's user")
    while True:
        time.sleep(EVERY)
        with suppress(Exception):  # a journal that fails must not take anything with it
            now = load()
            if now.visitors:
                log.info(line(now, in_use_mib(), beside()))
            else:
                trim()  # what the visitors' pages took


def is_full(load: Load, known: bool) -> bool:
    """Tell whether a visitor who is not known yet finds no place any more."""
    return not known and load.visitors >= limits().visitors
