"""Whether a difference between two runs on the same images is real: paired tests, by SciPy.

McNemar's exact test: of the images on which exactly one of two runs is right, b and c, b is Binomial(b + c, 1/2) if
both are equally good. [McNemar1947]  Interval: percentile bootstrap over images. [Efron1979]
Many comparisons: false discovery rate. [Benjamini1995]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True)
class Comparison:
    """One run against a reference, on the same images; shares in 0..1.

    difference: mean share right, minus the reference's; low, high: its 95 % interval over images. gained, lost: images
    that only this run, only the reference answers rightly. p: McNemar's, exact; None where seeds were averaged.
    """

    difference: float
    low: float
    high: float
    gained: int
    lost: int
    p: float | None


def mcnemar(gained: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """Return p of McNemar's exact test for numbers of images that only the one, only the other answers rightly."""
    from scipy import stats

    return np.minimum(1.0, 2 * stats.binom.cdf(np.minimum(gained, lost), gained + lost, 0.5))


def compare(right: np.ndarray, reference: np.ndarray) -> Comparison:
    """Compare per-image results, float [n] in 0..1 (averages over seeds may lie between)."""
    from scipy import stats

    change = right - reference
    n = len(change)
    values, counts = np.unique(change, return_counts=True)
    # Drawing n images with replacement and taking the mean is drawing how often each value occurs.
    means = np.random.default_rng(0).multinomial(n, counts / n, size=RESAMPLES) @ values / n
    low, high = (float(x) for x in np.percentile(means, (2.5, 97.5)))
    gained, lost = int((change > 0).sum()), int((change < 0).sum())
    single = np.isin(right, (0, 1)).all() and np.isin(reference, (0, 1)).all()
    p = None
    if single:
        p = float(stats.binomtest(gained, gained + lost, 0.5).pvalue) if gained + lost else 1.0
    return Comparison(float(change.mean()), low, high, gained, lost, p)


def adjusted(ps: Sequence[float | None]) -> list[float | None]:
    """Return p values adjusted for their number by Benjamini and Hochberg; None stays None."""
    from scipy import stats

    given = [p for p in ps if p is not None]
    if not given:
        return list(ps)
    found = iter(stats.false_discovery_control(given).tolist())
    return [None if p is None else next(found) for p in ps]
