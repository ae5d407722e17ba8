"""A spiking law on vectors of neurons: the law's own source, compiled with `where` as a selection between lanes."""

from __future__ import annotations

from typing import Any

from numba import njit
from numba.extending import overload

from explorer.engine.kernels.cpu.vector import select
from explorer.engine.neurons import LAWS


def compiled_name(name: str) -> str:
    """Return the name by which compiled code knows a law; it changes with what the law does, as binaries must."""
    return f"{name} {LAWS[name].digest}"


def fire(law: str, v: Any, m: Any, x: Any, theta: Any) -> Any:
    """Return (bits per plane, v, m) after one step of a law, by its compiled name."""
    raise TypeError("compiled code only")


@overload(fire, prefer_literal=True)
def _fire(law, v, m, x, theta):
    step = njit(LAWS[law.literal_value.split()[0]].rebound(select))
    return lambda law, v, m, x, theta: step(v, m, x, theta)
