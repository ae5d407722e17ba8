"""Signed spikes with memory, thresholds neuron by neuron. [Wang2022]

    z = +1 if v >= theta,  -1 if v <= -theta and more was sent than taken back;  theta = max a of the neuron

Y. Wang, M. Zhang, Y. Chen, H. Qu, *Signed neuron with memory: Towards simple, accurate and high-efficient ANN-SNN
conversion*, IJCAI 2022. A step tells three things apart, so it takes two bits. A neuron that no calibration image
excites takes its site's maximum. Neurons start empty; the start is not checked against the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from explorer.engine.methods.fitted import Fitted
from explorer.engine.methods.fitting import Probe, by_channel, with_theta
from explorer.engine.methods.method import OWN, Method, option


@dataclass(frozen=True, kw_only=True)
class Signed(Method):
    """Neurons that take spikes back, with thresholds of their own."""

    key = "signed"
    citation = "Wang et al. 2022"
    equation = r"z = \begin{cases} +1 & v \ge \theta \\ -1 & v \le -\theta,\ \sum z > 0 \\ 0 \end{cases}"
    about = (
        "What comes early can be taken back: a neuron that falls to minus its threshold, and has spikes out, sends a "
        "negative one. Unevenness then ends with the run in place of adding up. Two bits per neuron and step."
    )
    own_law: ClassVar[str] = "signed"

    per: str = option("neuron", "one threshold per site, channel or neuron", choices=("site", "channel", "neuron"))

    def fit_on(self, probe: Probe, T: int) -> Fitted:
        """See `Method`."""
        snn = self.base(probe, T)
        if self.threshold != OWN:
            return Fitted(self, snn, T)
        for site in probe.network.sites:
            most = probe.activations(site.name).amax(0)
            top = most.max() if most.max() > 0 else torch.tensor(1.0)
            if self.per == "channel":
                most = by_channel(most.flatten(1).amax(1) if most.ndim > 1 else most, site)
            theta = top if self.per == "site" else torch.where(most > 0, most, top)
            snn = with_theta(snn, site, theta)
        return Fitted(self, snn, T)
