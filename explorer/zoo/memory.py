"""How much memory is free, so that what cannot fit is refused before it is tried."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from explorer.engine.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from explorer.engine.graph import Network

UNKNOWN = 4 * 2**30
BLOCK = 32  # steps whose currents live at a time


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


def run_memory(network: Network, T: int) -> int:
    """Return about how many bytes the simulation of one image needs at most.

    Per neuron: a bit a step, the potential before and after, the count, the ANN's activation; besides, the currents
    of a block of steps of the largest layer. What is traced at 448 pixels has 200 times the neurons of 32 pixels.
    """
    neurons = [math.prod(site.shape) for site in network.sites]
    return sum(neurons) * (T // 8 + 16) + max(neurons, default=0) * 4 * BLOCK


def require_run_memory(network: Network, T: int, name: str) -> None:
    """Require that the simulation of one image, and one pass of the ANN, fit into the free memory.

    Raises:
        DataError: they do not.
    """
    needed, free = run_memory(network, T), free_memory()
    if needed > free:
        size = "x".join(map(str, network.input_shape[1:]))
        raise DataError(
            f"{name}: one image of {size} pixels in {T} steps needs about {needed / 2**30:.1f} GiB, and "
            f"{free / 2**30:.1f} GiB are free. Take a smaller input size, fewer steps, or a smaller network."
        )


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
