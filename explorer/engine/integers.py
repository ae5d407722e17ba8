"""Weights in fixed point, so that sums over spikes are exact and the same in any order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from explorer.engine.layout import aligned, padded
from explorer.engine.segment import Segment

MAX_TABLE_BYTES = 3 * 2**20
MAX_ROW_BYTES = 2 * 2**20


@dataclass(frozen=True, eq=False)
class IntegerWeights:
    """A segment's rows in fixed point, laid out for a kernel.

    data: int32, flat, [tile, row, lane] or, as sums by bytes of spikes, [tile, byte, 256, lane]; unit: float64 per
    stored channel, scale: the same as used, float32; const: float32 per stored channel.
    """

    data: np.ndarray
    table: bool
    lanes: int
    tiles: int
    unit: np.ndarray
    scale: np.ndarray
    const: np.ndarray

    def scaled(self, common: float) -> IntegerWeights:
        """Return the weights for spikes `common` times as large."""
        return replace(self, scale=(self.unit * common).astype(np.float32))


def fixed_point(segment: Segment, amplitudes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Round rows times spike amplitudes to integers whose sums fit in 32 bits.

    A sum of the rows of any spikes lies between the sums of the negative and of the positive weights; the scale makes
    the larger of the two just fit. Sums are then exact in any order, and each weight is off by at most half a unit,
    2^-32 of that bound.

    Returns:
        integers: int32 [R, C]; unit: float64 [C], activation units per integer.
    """
    values = segment.rows.copy()
    for s, amplitude in enumerate(amplitudes):
        mine = segment.row_source == s
        values[mine] *= amplitude[segment.row_channel[mine], None]
    uses = segment.uses[:, None]
    bound = np.maximum((values.clip(min=0) * uses).sum(0), (-values.clip(max=0) * uses).sum(0))
    unit = np.where(bound > 0, bound, 1.0) / (2**31 - 1 - int(segment.uses.sum()))
    return np.rint(values / unit).astype(np.int32), unit


def lay_out(segment: Segment, amplitudes: list[np.ndarray], byte_table: Any) -> IntegerWeights:
    """Arrange a segment's integers for the scan that suits its size.

    amplitudes: per source, the value of a spike per channel; byte_table: the kernel that sums by bytes.
    """
    stored = padded(segment.channels)
    integers, unit = fixed_point(segment, amplitudes)
    rows = np.zeros((len(integers), stored), np.int32)
    rows[:, : segment.channels] = integers
    units, const = np.zeros(stored), np.zeros(stored, np.float32)
    units[: segment.channels] = unit
    const[: segment.channels] = segment.bias
    table = len(rows) * 32 * stored * 4 <= MAX_TABLE_BYTES
    lanes = next(n for n in (64, 32, 16) if stored % n == 0)
    if not table and len(rows) * lanes * 4 > MAX_ROW_BYTES:
        lanes = min(lanes, 32)
    tiles = stored // lanes
    if table:
        data = aligned(len(rows) * 32 * stored, np.int32)
        byte_table(rows, data, lanes, tiles)
    else:
        data = aligned(rows.size, np.int32)
        data.reshape(tiles, len(rows), lanes)[:] = rows.reshape(len(rows), tiles, lanes).transpose(1, 0, 2)
    return IntegerWeights(data, table, lanes, tiles, units, units.astype(np.float32), const)
