"""Parallel conversion: a layer sees the mean current of all T steps at once. [Hao2025]

    n = clip(floor((T mean x + v(0)) / theta), 0, T);  n spikes are sent in T steps

Z. Hao, Z. Yu, T. Huang, *Faster and stronger: When ANN-SNN conversion meets parallel spiking calculation*, ICML 2025.
No order of spikes, so no unevenness: this is the quantised ANN, the bound that methods with plain neurons approach.
The paper's calibrated input and output biases are not done here. Each layer waits for all T steps of the one before: T
steps a layer, unless the machine computes the steps side by side, as the paper's does.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from explorer.engine.graph import Network
from explorer.engine.methods.coded import Coded, depth, levels, one_after_another
from explorer.engine.methods.fitted import Fitted
from explorer.engine.methods.fitting import Probe
from explorer.engine.methods.method import Method
from explorer.engine.specs import MinSquaredError, ThresholdRule, TrainedClip


@dataclass(frozen=True, kw_only=True)
class Parallel(Method):
    """The staircase of the mean current."""

    key = "parallel"
    citation = "Hao et al. 2025"
    equation = r"n = \mathrm{clip}\!\left(\left\lfloor \tfrac{T\bar x + v(0)}{\theta} \right\rfloor, 0, T\right)"
    about = (
        "Each layer waits until all of its input is there and sends as many spikes as the mean current says. What is "
        "left is quantisation and clipping alone: the bound without unevenness, at T steps a layer."
    )
    refuses = {"law": "The staircase is the law."}

    def own_rule(self, network: Network, T: int) -> ThresholdRule:
        """Return the trained bounds if there are any, else least squared error for T levels per channel."""
        return TrainedClip() if network.clips_trained else MinSquaredError(T)

    def fit_on(self, probe: Probe, T: int) -> Fitted:
        """See `Method`."""
        snn = self.base(probe, T)

        def code(x: Tensor, v: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
            n = levels(x, v, theta, T, T)
            return theta * n / T, n

        extra = (depth(probe.network) - 1) * T
        return Coded(self, snn, T, extra=extra, code=code, sending=one_after_another(T), levels=T)
