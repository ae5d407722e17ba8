"""What operations might cost: estimates, by two numbers from the literature."""

from __future__ import annotations

from collections.abc import Mapping

MAC_PJ, ADD_PJ = 4.6, 0.9  # picojoules at 45 nm, 32 bits [Horowitz2014]


def durations(T: int) -> list[int]:
    """Return the numbers of steps that are compared: T first, then halves of it."""
    return list(dict.fromkeys([T, *(max(1, T // 2**k) for k in (1, 2, 3))]))


def spiking(constant: int, additions: Mapping[str, float]) -> float:
    """Return the SNN's energy per image in microjoules: constant multiply-accumulates once, and all additions."""
    return (constant * MAC_PJ + sum(additions.values()) * ADD_PJ) * 1e-6


def multiplying(macs: Mapping[str, int]) -> float:
    """Return the ANN's energy per image in microjoules."""
    return sum(macs.values()) * MAC_PJ * 1e-6


def told(microjoules: float) -> str:
    """Return an energy as people write it: three digits and the unit that fits."""
    for unit, size in (("nJ", 1e-3), ("µJ", 1.0), ("mJ", 1e3), ("J", 1e6)):
        if microjoules < 1000 * size or unit == "J":
            value = microjoules / size
            return f"{value:.{max(0, 2 - len(str(int(value))) + 1)}f} {unit}"
    raise AssertionError
