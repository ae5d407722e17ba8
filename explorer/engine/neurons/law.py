"""What a spiking law is: one pure step of a neuron, written once and run by every back end.

    bits, v, m = step(v, m, x, theta)

v: the potential before the step, x: the current of the step, theta: the threshold, all in activation units; m: the
spikes sent so far less those taken back. `bits` has one truth value per *plane*, and a plane is what a bit counts:
`(1,)` for a neuron that fires or is silent, `(1, -1)` for one that also takes spikes back, `(1, 2, 4)` for bursts.

A step is written in `+ - * < <= > >= &` and `where` alone. The same source is then compiled by Numba on vectors of
neurons, compiled by Triton on blocks of them, and run by torch and NumPy on whole layers: `rebound` only changes what
`where` means. All of them round alike, so all give the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import FunctionType
from typing import Any

import numpy as np

where = np.where


@dataclass(frozen=True)
class Law:
    """A spiking law by name: its title for people, its step, its planes, and whether it needs its memory m.

    planes: what a bit of each plane counts, 1 the first. exclusive: at most one plane fires in a step. limit: what a
    step counts at most, where that is less than its planes could tell. fires_at: the least potential that fires, in
    thresholds. sized: a step sends one spike of some size, and its count is that size.
    """

    name: str
    title: str
    step: Callable[..., Any]
    planes: tuple[int, ...] = (1,)
    memory: bool = False
    exclusive: bool = True
    limit: int | None = None
    fires_at: float = 1.0
    sized: bool = False

    @property
    def most(self) -> int:
        """The largest number of spikes that one step counts."""
        return self.reach[1] if self.limit is None else self.limit

    @property
    def reach(self) -> tuple[int, int]:
        """The least and the largest number of spikes that the planes of one step can tell."""
        low = [n for n in self.planes if n < 0] or [0]
        high = [n for n in self.planes if n > 0] or [0]
        return (min(low), max(high)) if self.exclusive else (sum(low), sum(high))

    @property
    def bits(self) -> int:
        """How many bits tell what a neuron sends in one step."""
        return len(self.planes).bit_length() if self.exclusive else len(self.planes)

    @cached_property
    def digest(self) -> str:
        """A digest of what the law does: compiled code and kept spikes of another version never pass for this one's."""
        code = self.step.__code__
        told = (self.name, self.planes, self.memory, self.exclusive, code.co_code, code.co_consts, code.co_names)
        return hashlib.blake2b(repr(told).encode(), digest_size=8).hexdigest()

    def rebound(self, where: Callable[..., Any], **names: Any) -> FunctionType:
        """Return the step's source with another meaning of `where`; names: what else its compiler wants in sight."""
        return FunctionType(self.step.__code__, {"where": where, **names}, self.step.__name__)
