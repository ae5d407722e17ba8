"""Weights in fixed point, so that sums over spikes are exact and the same in any order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from explorer.engine.compile.layout import padded
from explorer.engine.compile.segment import OFFSET, ROW, SOURCE, Segment
from explorer.engine.neurons import Law


@dataclass(frozen=True, eq=False)
class FixedPoint:
    """A segment for certain laws and relative amplitudes of its sources, ready to be arranged for a back end.

    Every plane of a source is a source of its own here: inputs[i] is (node, plane), sizes[i] its bytes per image and
    step. taps: int64 [K, 10] over these; rows: int32 [R, stored channels], the integers, a plane's multiplicity in
    them; unit: float64 [stored], activation units per integer at an amplitude of 1; const: float32 [stored].
    """

    inputs: tuple[tuple[str, int], ...]
    sizes: tuple[int, ...]
    taps: np.ndarray
    rows: np.ndarray
    unit: np.ndarray
    const: np.ndarray
    height: int
    width: int

    def scale(self, common: float) -> np.ndarray:
        """Return activation units per integer, float32 [stored], for spikes `common` times as large."""
        return (self.unit * common).astype(np.float32)


def integers(segment: Segment, amplitudes: list[np.ndarray], laws: list[Law]) -> tuple[np.ndarray, np.ndarray]:
    """Round rows times spike amplitudes to integers whose sums fit in 32 bits.

    A source's neuron sends between `low` and `high` spikes a step, its law's reach. The sum of any spikes then lies
    within sum of max(w low, w high) above and the like below; the scale makes the larger of the two just fit. Sums are
    exact in any order, and each weight is off by at most half a unit, 2^-32 of that bound.

    Returns:
        integers: int32 [R, C]; unit: float64 [C], activation units per integer.
    """
    values = segment.rows.copy()
    low, high = np.zeros((len(values), 1)), np.zeros((len(values), 1))
    for s, (amplitude, law) in enumerate(zip(amplitudes, laws, strict=True)):
        mine = segment.row_source == s
        values[mine] *= amplitude[segment.row_channel[mine], None]
        low[mine], high[mine] = law.reach
    uses = segment.uses[:, None]
    above = (np.maximum(values * low, values * high) * uses).sum(0)
    below = (np.maximum(-values * low, -values * high) * uses).sum(0)
    bound = np.maximum(above, below)
    rounding = int((segment.uses * np.maximum(-low, high)[:, 0]).sum())
    unit = np.where(bound > 0, bound, 1.0) / (2**31 - 1 - rounding)
    return np.rint(values / unit).astype(np.int32), unit


def fix(segment: Segment, amplitudes: list[np.ndarray], laws: list[Law]) -> FixedPoint:
    """Write a segment in fixed point for sources of these relative amplitudes (float64 [C] each) and laws.

    The first plane of every source, whose bits count 1, keeps the segment's taps and rows; each further plane gets
    copies of both behind them, the rows times what its bits count.
    """
    whole, unit = integers(segment, amplitudes, laws)
    rows = np.zeros((len(whole), padded(segment.channels)), np.int32)
    rows[:, : segment.channels] = whole
    units, const = np.zeros(rows.shape[1]), np.zeros(rows.shape[1], np.float32)
    units[: segment.channels], const[: segment.channels] = unit, segment.bias
    inputs: list[tuple[str, int]] = []
    sizes: list[int] = []
    all_taps, all_rows = [], [rows]
    n_rows, offset = len(rows), 0
    for s, law in enumerate(laws):
        mine = np.flatnonzero(segment.row_source == s)
        for plane, weight in enumerate(law.planes):
            taps = segment.taps[segment.taps[:, SOURCE] == s].copy()
            taps[:, SOURCE], taps[:, OFFSET] = len(inputs), offset
            if plane > 0:
                moved = np.zeros(len(rows), np.int64)
                moved[mine] = n_rows + np.arange(len(mine))
                taps[:, ROW] = moved[taps[:, ROW]]
                all_rows.append(rows[mine] * np.int32(weight))
                n_rows += len(mine)
            inputs.append((segment.sources[s], plane))
            sizes.append(segment.sizes[s])
            offset += segment.sizes[s]
            all_taps.append(taps)
    taps = np.concatenate(all_taps) if all_taps else segment.taps
    if all(law.planes == (1,) for law in laws):
        taps = segment.taps  # in the segment's own order: neighbouring taps stay together in the caches
    return FixedPoint(
        tuple(inputs),
        tuple(sizes),
        np.ascontiguousarray(taps),
        np.concatenate(all_rows),
        units,
        const,
        segment.height,
        segment.width,
    )
