"""Time to first spike: one spike a neuron, and its time is the value. [Park2020]

    k = T - clip(floor((T a + v(0)) / theta), 0, T);  a spike at step k is worth theta (T - k) / T;  k = T: no spike

After S. Park, S. Kim, B. Na, S. Yoon, *T2FSNN: Deep spiking neural networks with time-to-first-spike coding*, DAC
2020, and *You Only Spike Once*; this is the line's simplest exact form, not the papers' exponential kernels. Each
layer waits for the whole of its input before it sends, so an answer takes T steps a layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from explorer.engine.graph import Network
from explorer.engine.methods.coded import Coded, Sending, depth, levels
from explorer.engine.methods.fitted import Fitted
from explorer.engine.methods.fitting import Probe
from explorer.engine.methods.method import Method
from explorer.engine.specs import MinSquaredError, ThresholdRule, TrainedClip


@dataclass(frozen=True, kw_only=True)
class FirstSpike(Method):
    """One spike a neuron; earlier means more."""

    key = "first-spike"
    citation = "Park et al. 2020"
    equation = (
        r"k = T - \left\lfloor \tfrac{Ta}{\theta} + \tfrac12 \right\rfloor, \qquad \text{worth } \theta\,\tfrac{T-k}{T}"
    )
    about = (
        "A neuron sends at most one spike, and the earlier it comes the more it is worth. The network is the quantised "
        "ANN with T levels; each layer waits until the one before is done, so an answer takes T steps a layer."
    )
    refuses = {"law": "One spike a neuron is the law."}

    def own_rule(self, network: Network, T: int) -> ThresholdRule:
        """Return the trained bounds if there are any, else least squared error for T levels per channel."""
        return TrainedClip() if network.clips_trained else MinSquaredError(T)

    def fit_on(self, probe: Probe, T: int) -> Fitted:
        """See `Method`."""
        snn = self.base(probe, T)

        def code(x: Tensor, v: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
            n = levels(x, v, theta, T, T)
            return theta * n / T, n > 0

        extra = (depth(probe.network) - 1) * T
        return Coded(self, snn, T, extra=extra, code=code, sending=one_spike(T), levels=T)


def one_spike(T: int) -> Sending:
    """Return the sending of n levels as one spike after step k = T - n: in the sending steps 1..T, the (k + 1)-th."""
    steps = torch.arange(T)

    def sending(n: Tensor) -> tuple[Tensor, Tensor]:
        return steps.reshape(-1, *(1,) * n.ndim) == T - n, T - steps

    return sending
