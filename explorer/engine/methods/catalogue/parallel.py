"""Parallel conversion: a layer sees the mean current of all T steps at once. [Hao2025]

    n = clip(floor((T mean x + v(0)) / theta), 0, T);  n spikes are sent in T steps
    biases:  b_in <- m b_in + (1 - m) (mean z - mean x),   x <- x + b_in            per channel, batch by batch
             b_out <- m b_out + (1 - m) (mean a - mean a_hat),   a_hat <- a_hat + b_out

Z. Hao, Z. Yu, T. Huang, *Faster and stronger: When ANN-SNN conversion meets parallel spiking calculation*, ICML 2025.
No order of spikes, so no unevenness: this is the quantised ANN, the bound that methods with plain neurons approach.
`biases` are the paper's for networks that were not trained for it: moving averages of what the quantised network's mean
input and output miss of the ANN's, z and a, over the calibration images once; momentum and batch are this explorer's.
An output bias is a constant of the next layer and costs no spike. Each layer waits for all T steps of the one before: T
steps a layer, unless the machine computes the steps side by side, as the paper's does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from explorer.engine.conversion import SpikingNetwork
from explorer.engine.graph import Network, Site
from explorer.engine.methods.coded import Coded, depth, levels, one_after_another, site_run
from explorer.engine.methods.fitted import Fitted
from explorer.engine.methods.fitting import Probe, by_channel, over_channels, rectifier_inputs
from explorer.engine.methods.method import Method, option
from explorer.engine.simulation.keys import image_keys
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

    biases: bool = option(False, "add input and output biases per channel, averaged over calibration images")
    momentum: float = option(0.5, "of the moving averages", low=0.0, high=0.99)
    batch: int = option(16, "images in a batch of the averages", low=1, high=512)

    def own_rule(self, network: Network, T: int) -> ThresholdRule:
        """Return the trained bounds if there are any, else least squared error for T levels per channel."""
        return TrainedClip() if network.clips_trained else MinSquaredError(T)

    def fit_on(self, probe: Probe, T: int) -> Fitted:
        """See `Method`."""
        snn = self.base(probe, T)

        before, after = self._biases(probe, snn, T) if self.biases else ({}, {})

        def code(x: Tensor, v: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
            n = levels(x, v, theta, T, T)
            return theta * n / T, n

        extra, sending = (depth(probe.network) - 1) * T, one_after_another(T)
        return Coded(self, snn, T, extra=extra, code=code, sending=sending, levels=T, before=before, after=after)

    def _biases(self, probe: Probe, snn: SpikingNetwork, T: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return input and output biases by site, float64, broadcastable to [*site], activation units."""
        nothing = {s.name: torch.zeros(s.channels, *(1,) * (len(s.shape) - 1)).double() for s in probe.network.sites}
        before, after, m = dict(nothing), dict(nothing), self.momentum
        for images in probe.images.split(self.batch):
            probe.go_on()
            z, keys = rectifier_inputs(probe.network, images), image_keys(images)

            def staircase(site: Site, x: Tensor, z: dict[str, Tensor] = z, keys: list[bytes] = keys) -> Tensor:
                name, theta = site.name, snn.theta[site.name].double()
                missing = over_channels(z[name].double() - x).mean(0)
                before[name] = m * before[name] + (1 - m) * by_channel(missing, site)
                v = snn.initial_potential(site, keys).double()
                value = theta * levels(x + before[name], v, theta, T, T) / T
                a = site.rectified(z[name].double())
                after[name] = m * after[name] + (1 - m) * by_channel(over_channels(a - value).mean(0), site)
                return value + after[name]

            site_run(probe.network, images, staircase, double=True)
        return before, after
