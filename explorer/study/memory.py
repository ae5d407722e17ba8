"""How much memory a process has in use, and how to give some back."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def in_use_mib(pid: int | str = "self") -> float:
    """Return the memory that a process has in use, in MiB; 0 where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return 0.0


def trim() -> None:
    """Have the C library hand free memory back to the system, where it can."""
    import ctypes
    import gc

    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
