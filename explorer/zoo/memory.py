"""How much memory is free, so that what cannot fit is refused before it is tried."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from explorer.engine.errors import CheckpointError

UNKNOWN = 4 * 2**30


def free_memory() -> int:
    """Return the bytes that programs can still take: what the system says is available, within the group's limit."""
    free = UNKNOWN
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    with suppress(OSError, ValueError):  # no group, or one without a limit ("max")
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / part).read_text()) for part in ("memory.max", "memory.current"))
        free = min(free, max(0, limit - used))
    return free


def require_memory(needed: int, name: str) -> None:
    """Require that some bytes fit into the free memory.

    Raises:
        CheckpointError: they do not.
    """
    free = free_memory()
    if needed > free:
        raise CheckpointError(
            f"{name}: too large for this machine's memory: {needed / 2**30:.1f} GiB needed, {free / 2**30:.1f} GiB "
            "free. Close other programs, or choose a smaller network."
        )
