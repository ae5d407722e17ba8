"""Which conversion is best for a network at each T: the runs that tell, cheapest first, read on the same images.

Every method stands as its paper has it, with thresholds and starts of its own; the visitor's own conversion stands
beside them where it is another. Where a method finds the same for every T, all T are read from one run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from explorer.engine.methods.names import NAMES, split, title, with_start
from explorer.engine.theory import wilson
from explorer.study.results import Result
from explorer.study.settings import Settings
from explorer.study.statistics import Comparison, adjusted, compare, mcnemar

SIGNIFICANT = 0.05
STARTS = ("0", "own", "0.5")


@dataclass(frozen=True)
class Entry:
    """One conversion in the table: how it is called, and its run of most steps.

    method: in a line; "": without one. yours: it is the visitor's own, not as the paper has it.
    """

    method: str
    title: str
    settings: Settings
    yours: bool = False

    def run(self, T: int) -> Settings:
        """Return the run from which T steps are read."""
        return replace(self.settings, T=T) if self.settings.depends_on_T else self.settings

    @property
    def is_long(self) -> bool:
        """Whether it takes long until it runs."""
        key = split(self.method)[0]
        return key in NAMES and NAMES[key].long


@dataclass(frozen=True, eq=False)
class Point:
    """One conversion after T steps. right: of each image, bool [n]. additions: per image, on so many images.

    spikes_per_neuron and additions are those of the whole run: at T where the run ends there, else None.
    """

    T: int
    latency: int
    bits: int
    right: np.ndarray
    spikes_per_neuron: float | None
    additions: float | None
    added_images: int

    @property
    def top1(self) -> float:
        """Share of images that are right."""
        return float(self.right.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of `top1`."""
        low, high = wilson(int(self.right.sum()), len(self.right))
        return float(low), float(high)


@dataclass(frozen=True, eq=False)
class Row:
    """What is known of one conversion: a point by T, and why there is none where it was refused."""

    entry: Entry
    points: Mapping[int, Point]
    refused: Mapping[int, str] = field(default_factory=dict)


def durations(T: int) -> tuple[int, ...]:
    """Return 1, 2, 4, ... below T, and T."""
    return (*(2**k for k in range(T.bit_length()) if 2**k < T), T)


def entries(settings: Settings, images: int) -> list[Entry]:
    """Return all methods as their papers have them, on the settings' network and images, and the visitor's own."""
    base = replace(settings.of_run(), images=images, sites=(), scale=1.0)
    found = [Entry(key, named.title, replace(base, method=key)) for key, named in NAMES.items()]
    yours = replace(settings.of_run(), images=images)
    if not any(entry.settings == yours for entry in found):
        called = title(settings.method) if settings.method else "plain conversion"
        found.append(Entry(settings.method, f"yours: {called}", yours, yours=True))  # last: it comes and goes
    return found


def stages(listed: Sequence[Entry], steps: Sequence[int]) -> list[list[Settings]]:
    """Return the runs that tell how conversions stand after these steps, what is cheap first.

    First those whose one run tells all, then those with a run a T, then those that take long to fit: three lists; of
    the last, too, first those whose one fit tells all.
    """
    by_stage: list[dict[Settings, None]] = [{}, {}, {}]
    for entry in listed:
        stage = 2 if entry.is_long else int(entry.settings.depends_on_T)
        by_stage[stage] |= dict.fromkeys(entry.run(T) for T in steps)
    return [sorted(runs, key=lambda run: (run.depends_on_T, run.T)) for runs in by_stage]


def start_entries(settings: Settings, images: int) -> list[tuple[Entry, Entry, Entry]]:
    """Return each method with v(0) = 0, with its own start, and with v(0) = theta / 2."""
    found = []
    for entry in entries(settings, images):
        if not entry.yours:
            changed = (entry.method if v == "own" else with_start(entry.method, v) for v in STARTS)
            found.append(tuple(replace(entry, method=m, settings=replace(entry.settings, method=m)) for m in changed))
    return found  # type: ignore[return-value]


def sample(listed: Sequence[Entry], steps: Sequence[int], results: Mapping[Settings, Result]) -> int:
    """Return on how many images all can stand in one table: as many as the cheap runs that have begun all know.

    Others join as soon as they know as many.
    """
    for runs in stages(listed, steps):
        known = [results[run].images for run in runs if run in results and results[run].images]
        if known:
            return min(known)
    return 0


def read(
    listed: Sequence[Entry],
    steps: Sequence[int],
    results: Mapping[Settings, Result],
    faults: Mapping[Settings, str],
    n: int,
) -> list[Row]:
    """Return how the conversions stand on the first n images; faults: why runs failed."""
    rows = []
    for entry in listed:
        points = {T: _point(results[entry.run(T)].first(n), T) for T in steps if _knows(results, entry.run(T), T, n)}
        rows.append(Row(entry, points, {T: faults[entry.run(T)] for T in steps if entry.run(T) in faults}))
    return rows


def _knows(results: Mapping[Settings, Result], run: Settings, T: int, n: int) -> bool:
    result = results.get(run)
    return result is not None and 0 < n <= result.images and result.answers_from <= T


def _point(result: Result, T: int) -> Point:
    ended = result.T == T
    return Point(
        T,
        T + result.extra,
        result.bits,
        result.right[:, T - 1],
        result.spikes_per_neuron if ended else None,
        result.additions if ended and result.added_images else None,
        result.added_images,
    )


def leaders(points: Sequence[Point | None]) -> list[bool]:
    """Return which are the best of a column: the one with most right, and all that do not differ from it.

    By McNemar's exact test on the same images, adjusted for the number of comparisons. Where several are, none is best;
    what stands alone is best of nothing.
    """
    there = [point for point in points if point is not None]
    if len(there) < 2:
        return [False] * len(points)
    best = max(there, key=lambda point: int(point.right.sum())).right
    gained = np.array([int((point.right & ~best).sum()) for point in there])
    lost = np.array([int((best & ~point.right).sum()) for point in there])
    others = np.flatnonzero(gained + lost > 0)  # those with the very same answers need no test
    p = np.ones(len(there))
    p[others] = adjusted(mcnemar(gained[others], lost[others]).tolist())
    found = iter(p >= SIGNIFICANT)
    return [point is not None and bool(next(found)) for point in points]


def gain(zero: Point, half: Point) -> Comparison:
    """Return what a start at one half gains over one at zero, on the same images."""
    return compare(half.right.astype(float), zero.right.astype(float))
