"""Burst spikes: up to G spikes of a neuron in one step. [Li2022]

    n = clip(floor(v / theta), 0, G);  v <- v - n theta

Y. Li, Y. Zeng, *Efficient and accurate conversion of spiking neural network with burst spikes*, IJCAI 2022. Thresholds
are the data-based norm's and neurons start empty. A burst of n counts as n spikes and n additions; a step takes 2 bits
up to G = 3 and 3 bits above. The paper's rule for max pools is this explorer's for single spikes; bursts into max
pools are refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from explorer.engine.methods.fitted import Fitted
from explorer.engine.methods.fitting import Probe
from explorer.engine.methods.method import Method, option


@dataclass(frozen=True, kw_only=True)
class Burst(Method):
    """Neurons that catch up with what is left of their charge."""

    key = "burst"
    citation = "Li & Zeng 2022"
    equation = r"n = \mathrm{clip}\!\left(\lfloor v/\theta \rfloor, 0, G\right), \qquad v \leftarrow v - n\theta"
    about = (
        "A neuron whose charge came late has no steps left to send it one spike at a time; up to G at once let it "
        "catch up. It sends more than one bit per step, and more spikes."
    )
    refuses = {"law": "The bursts are the law."}

    G: int = option(5, "most spikes in one step", low=2, high=5)

    @property
    def spiking_law(self) -> str:
        """The name of the law by which neurons spike."""
        return f"burst_{self.G}"

    def fit_on(self, probe: Probe, T: int) -> Fitted:
        """See `Method`."""
        return Fitted(self, self.base(probe, T), T)
