"""Formulas of the conversion that need no network: the staircase, an interval, the causes of error. No torch.

All take arrays of NumPy or torch alike and return the same kind.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from explorer.engine.neurons import INTEGRATE_AND_FIRE, Law
from explorer.engine.specs import check_steps

PARTS = ("clipping", "quantisation", "unevenness", "inherited")
Z_95 = 1.959963984540054


def staircase_counts(x: Any, theta: Any, T: int, v_init: Any, most: int = 1) -> Any:
    """Return n = clip(floor(T x / theta + v_init), 0, most T), the spikes of a neuron at constant input x. [Bu2022]

    most: what one step can count, 1 but for bursts.

    Raises:
        SpecError: T < 1.
    """
    check_steps(T)
    return ((T * x / theta + v_init) // 1).clip(0, most * T)


def staircase(x: Any, theta: Any, T: int, v_init: Any, most: int = 1) -> Any:
    """Return the decoded activation of a neuron whose input is x in every step.

    a_hat = theta / T clip(floor(T x / theta + v_init), 0, most T), in activation units; most: what one step can count,
    1 but for bursts. [Bu2022]

    Raises:
        SpecError: T < 1.
    """
    return theta * staircase_counts(x, theta, T, v_init, most) / T


def wilson(hits: Any, n: int) -> tuple[Any, Any]:
    """Return the 95 % Wilson score interval of a share of hits (a number or an array) among n trials. [Wilson1927]

    Without a trial nothing is known: from 0 to 1.
    """
    if n < 1:
        return (0.0, 1.0) if np.ndim(hits) == 0 else (np.zeros_like(hits, float), np.ones_like(hits, float))
    p, z2 = hits / n, Z_95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * (p * (1 - p) / n + z2 / (4 * n * n)) ** 0.5
    low, high = (
        np.where(p == 0, 0.0, np.maximum(0.0, centre - half)),
        np.where(p == 1, 1.0, np.minimum(1.0, centre + half)),
    )
    return (float(low), float(high)) if np.ndim(low) == 0 else (low, high)


def neuron(
    x: np.ndarray, theta: float, v_init: float, law: Law = INTEGRATE_AND_FIRE
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run one neuron on currents x [T]: return v before the reset, v after it, and what it sends, each [T].

    v before the reset is what the step's charge made of v; the law is the engine's own.
    """
    before, after, sent = np.empty(len(x)), np.empty(len(x)), np.zeros(len(x), np.int8)
    v, m = v_init * theta, 0.0
    for t, current in enumerate(x):
        before[t] = v + current
        bits, v, m = law.step(v, m, current, theta)
        after[t], sent[t] = v, sum(n for n, bit in zip(law.planes, bits, strict=True) if bit)
    return before, after, sent
