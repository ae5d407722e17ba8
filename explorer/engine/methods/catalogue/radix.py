"""Radix coding: T steps send the T binary digits of the value, the largest first. [Datta2023]

    for k = 1..T:  z(k) = [v >= theta / 2^k];  v <- v - z(k) theta / 2^k;  the spike is worth theta / 2^k

After G. Datta and P. A. Beerel's line of work on radix-coded conversion; details from memory. A layer integrates its T
inputs and then sends its digits, so there are 2^T levels and an answer takes T steps a layer. v(0) is a share of the
last digit: one half rounds to the nearest level. That start is not checked against the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from explorer.engine.errors import SpecError
from explorer.engine.methods.coded import Coded, Sending, depth, levels
from explorer.engine.methods.fitted import Fitted
from explorer.engine.methods.fitting import Probe
from explorer.engine.methods.method import Method

DIGITS_MAX = 24


@dataclass(frozen=True, kw_only=True)
class Radix(Method):
    """Spikes are binary digits."""

    key = "radix"
    citation = "Datta et al. 2023"
    equation = r"a \approx \theta \sum_{k=1}^{T} z(k)\, 2^{-k}"
    about = (
        "A spike in step k is worth half of one in the step before, so T steps tell 2^T levels apart in place of T. A "
        "layer must know its whole input before it sends the first digit: an answer takes T steps a layer."
    )
    refuses = {"law": "The binary digits are the law."}

    def fit_on(self, probe: Probe, T: int) -> Fitted:
        """See `Method`.

        Raises:
            SpecError: more than 24 digits, beyond what float32 weights and images can tell apart.
        """
        if T > DIGITS_MAX:
            raise SpecError(
                f"radix: at most {DIGITS_MAX} digits, got {T}. More tell nothing apart; choose a smaller T."
            )
        snn, N = self.base(probe, T), 2**T

        def code(x: Tensor, v: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
            n = levels(x, v, theta, N, N - 1)
            return theta * n / N, digits(n.long(), T)

        extra = (depth(probe.network) - 1) * T
        return Coded(self, snn, T, extra=extra, code=code, sending=binary(T), levels=N)


def digits(n: Tensor, T: int) -> Tensor:
    """Return how many of the T binary digits of n are 1."""
    return sum(((n >> k) & 1 for k in range(T)), torch.zeros_like(n))


def binary(T: int) -> Sending:
    """Return the sending of a level as its T binary digits, the largest first."""
    places = torch.arange(T - 1, -1, -1)

    def sending(n: Tensor) -> tuple[Tensor, Tensor]:
        return (n.long() >> places.reshape(-1, *(1,) * n.ndim)) & 1 == 1, 2.0**places

    return sending
