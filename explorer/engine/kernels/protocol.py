"""What a back end is: where spike trains live and how currents and spikes are computed there.

A walk through a network (see `simulation.walk`) hands trains and states from one call to the next and never looks into
them. Every back end lays them out alike, so that what one has kept another can go on from:

    train   uint8   [plane, B, pixel, T, channels / 8]   channel c in bit c % 8 of byte c // 8
    state   float32 [1 or 2, B, pixel, channels]          v, and m where the law has a memory
    counts  int32   [B, pixel, channels]

Channels are padded to whole vectors (`compile.layout`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from explorer.engine.compile.fixed_point import FixedPoint
from explorer.engine.neurons import Law

Array = Any  # a back end's own: a NumPy array, or a tensor on its device


@dataclass(frozen=True, eq=False)
class Constant:
    """What is added to a current: float32 [C], or [B, pixel, C]; with an axis T before C if it is timed."""

    values: Tensor
    timed: bool = False

    @property
    def per_pixel(self) -> bool:
        """Whether there is a value for every pixel of every image."""
        return self.values.ndim > (2 if self.timed else 1)


@dataclass(frozen=True, eq=False)
class Taps:
    """A current as weight rows to add: the back end's arranged weights, units per integer, trains, and a constant.

    scale: float32 [C], activation units per integer; trains: one a source, all planes.
    """

    weights: Any
    scale: Tensor
    trains: tuple[Array, ...]
    const: Constant


@dataclass(frozen=True, eq=False)
class Given:
    """A current as computed: the sum of one or two values [T * B, *site], and a constant or None."""

    summands: tuple[Tensor, ...]
    const: Constant | None


Current = Taps | Given


class Backend(Protocol):
    """The operations that a walk needs; `B` images, `T` steps."""

    name: str
    device: torch.device
    precision: torch.dtype  # of values that run as traced

    def hold(self, array: np.ndarray) -> Array:
        """Return an array of the host as the back end's own."""

    def release(self, array: Array) -> np.ndarray:
        """Return an array in the host's memory, to be kept: nobody writes to it any more."""

    def arrange(self, fixed: FixedPoint) -> Any:
        """Lay fixed-point weights out for this back end's sums."""

    def start(self, v: Tensor, memory: bool) -> Array:
        """Return a state with potentials v, float32 [B, pixel, C], and nothing sent."""

    def copy(self, state: Array) -> Array:
        """Return a state that a scan may write to."""

    def scan(self, current: Current, law: Law, theta: Tensor, state: Array, T: int) -> Array:
        """Run T steps of a law; return the train, and bring the state up to date. theta: float32 [C] or [pixel, C]."""

    def values(self, current: Current, B: int, T: int) -> Tensor:
        """Return a current's values, float32 [B, pixel, T, C] on the back end's device."""

    def mute(self, train: Array, gate: np.ndarray) -> Array:
        """Return a train without the spikes that a gate does not let through.

        gate: uint8 [pixel, C / 8] of bits, or [B, pixel, C / 8].
        """

    def pool(self, train: Array, window: tuple[int, ...], shapes: tuple[Any, Any], counts: Array | None) -> Array:
        """Return maxpool(S(t)) - maxpool(S(t-1)) of a train whose neurons had sent `counts` before (None: nothing).

        window: height, width, stride, padding and dilation, two numbers each; shapes: of source and result, [C, H, W].
        """

    def count(self, train: Array, planes: tuple[int, ...], counts: Array | None) -> Array:
        """Return counts with the train's spikes added, each plane's times what its bits count."""

    def total(self, train: Array) -> int:
        """Return how many spikes were sent, whatever they count."""

    def unpack(self, train: Array, planes: tuple[int, ...], worth: np.ndarray, shape: tuple[int, ...]) -> Tensor:
        """Return worth times what the spikes count, [T * B, *shape] in the back end's precision. worth: float64 [C]."""
