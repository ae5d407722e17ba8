"""Light calibration: least-squares thresholds, then biases or potentials layer by layer. [Li2021]

    theta = argmin of mean (floor(clip(a T / theta, 0, T)) theta / T - a)^2 over (1 - 0.01 i) max a, i = 0..94
    x(t) <- x(t) + theta / (2 T)
    bias:       x(t) <- x(t) - (mean a_hat - mean a)   per channel
    potential:  v(0) = T (mean a - mean a_hat)         per neuron

Y. Li, S. Deng, X. Dong, R. Gong, S. Gu, *A free lunch from ANN: Towards efficient, accurate spiking neural networks
calibration*, ICML 2021. Layers are corrected front to back on the spikes that arrive. The paper's advanced calibration,
which also refits weights, is not done here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from explorer.engine.calibration import BINS, CANDIDATES, ActivationStats
from explorer.engine.conversion import SpikingNetwork
from explorer.engine.errors import SpecError
from explorer.engine.graph import Site
from explorer.engine.methods.fitted import Fitted
from explorer.engine.methods.fitting import Probe, by_channel, changed
from explorer.engine.methods.method import OWN, Method, option
from explorer.engine.specs import ConstantStart


def least_squares(stats: ActivationStats, T: int, per: str) -> Tensor:
    """Return the thresholds of the paper's search on a histogram of activations: float64 [C], or [1] per site."""
    counts, maximum = stats.histogram, stats.maximum
    if per == "site":
        counts, maximum = counts.sum(0, keepdim=True), maximum.max()[None]
    maximum = torch.where(maximum > 0, maximum, 1.0)
    a = (torch.arange(BINS, dtype=torch.float64) + 0.5) * (stats.top / BINS)
    a[0] = 0.0
    share = 1 - 0.01 * torch.arange(CANDIDATES, dtype=torch.float64)
    errors = torch.stack([(counts * _error(a, (maximum * s)[:, None], T) ** 2).sum(1) for s in share])
    return maximum * share[errors.argmin(0)]


def _error(a: Tensor, theta: Tensor, T: int) -> Tensor:
    return torch.floor((a * T / theta).clamp(0, T)) * theta / T - a


@dataclass(frozen=True, kw_only=True)
class LightCalibration(Method):
    """Least-squares thresholds, a shift, and a correction per channel or neuron."""

    key = "light-calibration"
    citation = "Li et al. 2021"
    equation = r"x(t) \leftarrow x(t) + \frac{\theta}{2T} - (\overline{\hat a} - \bar a)"
    about = (
        "Each layer's threshold is the one whose staircase of T steps errs least in the mean square; then, front to "
        "back, the mean error of every channel is taken off its input, or that of every neuron put into its start."
    )

    correct: str = option("bias", "what is corrected", choices=("bias", "potential", "none"))
    per: str = option("channel", "one threshold per site or per channel", choices=("site", "channel"))

    def fit_on(self, probe: Probe, T: int) -> Fitted:
        """See `Method`."""
        if self.correct == "potential" and not isinstance(self.start, ConstantStart):
            raise SpecError(f"{self.key}: potentials are corrected from a constant start. Choose a number as v_init.")
        snn = self.base(probe, T)
        for site in probe.network.sites:
            if self.threshold == OWN:
                theta = least_squares(probe.statistics[site.name], T, self.per)
                theta = theta.float()[0] if len(theta) == 1 else by_channel(theta, site)
                snn = changed(snn, site.name, theta=theta)
            own = snn.neurons[site.name]
            snn = changed(snn, site.name, shift=own.theta / (2 * T))
            snn = self._corrected(probe, snn, site, T)
        return Fitted(self, snn, T)

    def _corrected(self, probe: Probe, snn: SpikingNetwork, site: Site, T: int) -> SpikingNetwork:
        own = snn.neurons[site.name]
        match self.correct:
            case "bias":
                error = probe.mean_output(snn, site.name, T) - probe.mean_activation(site.name)
                assert own.shift is not None
                return changed(snn, site.name, shift=own.shift - by_channel(error, site))
            case "potential":
                missing = probe.mean_activation(site.name, "neuron") - probe.mean_output(snn, site.name, T, "neuron")
                assert isinstance(own.start, ConstantStart)
                return changed(snn, site.name, start=own.start.value + T * missing.float() / own.theta)
        return replace(snn)
