"""Optimised potential initialisation: every neuron starts at half its threshold. [Bu2022]

    v(0) = theta / 2

T. Bu, J. Ding, Z. Yu, T. Huang, *Optimized Potential Initialization for Low-latency Spiking Neural Networks*, AAAI
2022. The paper trains the clip that becomes the threshold; a network without one takes the 99.9th percentile. Zero,
uniform and Gaussian starts, with which the paper compares, are `v_init`: 0, uniform:0:1, gaussian:0.5:0.2.
"""

from __future__ import annotations

from dataclasses import dataclass

from explorer.engine.methods.fitted import Fitted
from explorer.engine.methods.fitting import Probe
from explorer.engine.methods.method import Method


@dataclass(frozen=True, kw_only=True)
class OPI(Method):
    """v(0) = theta / 2."""

    key = "opi"
    citation = "Bu et al. 2022"
    equation = r"v(0) = \tfrac{1}{2}\,\theta"
    about = (
        "A neuron that starts at half its threshold rounds its input to the nearest rate in place of rounding down: "
        "the expected conversion error is zero, and its square the least that any constant start allows."
    )

    def fit_on(self, probe: Probe, T: int) -> Fitted:
        """See `Method`."""
        return Fitted(self, self.base(probe, T), T)
