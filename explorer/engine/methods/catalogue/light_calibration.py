"""Light calibration: least-squares thresholds, then biases or potentials layer by layer. [Li2021]

    theta = argmin of mean (floor(clip(a T / theta, 0, T)) theta / T - a)^2 over (1 - 0.01 i) max a, i = 0..94
    x(t) <- x(t) + theta / (2 T)
    bias:       x(t) <- x(t) - (mean a_hat - mean a)   per channel
    potential:  v(0) = T (mean a - mean a_hat)         per neuron
    weights:    min over W, b of E[(a_hat - a)^2] by descent through the staircase, then bias

Y. Li, S. Deng, X. Dong, R. Gong, S. Gu, *A free lunch from ANN: Towards efficient, accurate spiking neural networks
calibration*, ICML 2021. Layers are corrected front to back on the spikes that arrive. `correct`: weights is the paper's
advanced calibration and makes a new network; the optimiser's settings are this explorer's. The first layer, which reads
the image and is exact, and the last, which does not spike, keep their weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from explorer.engine.calibration import BINS, CANDIDATES, ActivationStats
from explorer.engine.compile.plan import plan_for
from explorer.engine.conversion import SpikingNetwork
from explorer.engine.errors import SpecError
from explorer.engine.graph import Network, Site
from explorer.engine.methods.calibrate.refit import layer_before, own_copy, sealed
from explorer.engine.methods.calibrate.sample import Sample, in_order
from explorer.engine.methods.calibrate.staircase import descend
from explorer.engine.methods.fitted import Fitted
from explorer.engine.methods.fitting import Probe, by_channel, changed, with_theta
from explorer.engine.methods.method import OWN, Method, option
from explorer.engine.specs import ConstantStart

SAMPLES = 4096  # neurons per channel and layer that weights are fitted on


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


@dataclass(frozen=True, eq=False)
class Refitted(Fitted):
    """A conversion with weights of its own. given: the network as it was."""

    given: Network = field(kw_only=True)

    @property
    def network(self) -> Network:
        """The network as given; `snn.network` has the other weights."""
        return self.given


@dataclass(frozen=True, kw_only=True)
class LightCalibration(Method):
    """Least-squares thresholds, a shift, and a correction per channel or neuron."""

    key = "light-calibration"
    citation = "Li et al. 2021"
    equation = r"x(t) \leftarrow x(t) + \frac{\theta}{2T} - (\overline{\hat a} - \bar a)"
    about = (
        "Each layer's threshold is the one whose staircase of T steps errs least in the mean square; then, front to "
        "back, the mean error of every channel is taken off its input, or that of every neuron put into its start, or "
        "the weights themselves are moved."
    )

    correct: str = option("bias", "what is corrected", choices=("bias", "potential", "weights", "none"))
    per: str = option("channel", "one threshold per site or per channel", choices=("site", "channel"))
    rounds: int = option(60, "steps of the descent, where weights are corrected", low=1, high=5000)
    rate: float = option(0.003, "size of such a step, in the layer's mean weight", low=1e-6, high=1.0)

    def fit_on(self, probe: Probe, T: int) -> Fitted:
        """See `Method`."""
        if self.correct in ("potential", "weights") and not isinstance(self.start, ConstantStart):
            what = {"potential": "potentials are", "weights": "weights are"}[self.correct]
            raise SpecError(f"{self.key}: {what} corrected from a constant start. Choose a number as v_init.")
        snn, sample = self.base(probe, T), None
        if self.correct == "weights":
            probe = Probe(probe.network, in_order(probe.images), probe.stop)
            sample = Sample(probe, SAMPLES, T, self.seed)
            snn = replace(snn, network=own_copy(snn.network))
        for site in probe.network.sites:
            if self.threshold == OWN:
                theta = least_squares(probe.statistics[site.name], T, self.per)
                theta = theta.float()[0] if len(theta) == 1 else by_channel(theta, site)
                snn = with_theta(snn, site, theta)
            own = snn.neurons[site.name]
            snn = changed(snn, site.name, shift=own.theta / (2 * T))
            if sample is not None:
                self._refit(sample, snn, site, T)
            snn = self._corrected(probe, snn, site, T)
        if sample is None:
            return Fitted(self, snn, T)
        return Refitted(self, replace(snn, network=sealed(snn.network)), T, given=probe.network)

    def _refit(self, sample: Sample, snn: SpikingNetwork, site: Site, T: int) -> None:
        """Change the weights before a site, in the network's own copy."""
        plan, own = plan_for(snn.network, True), snn.neurons[site.name]
        layer = layer_before(snn.network, plan.by_name[site.name].value, plan.dynamic)
        if layer is None:
            return
        assert own.shift is not None and isinstance(own.start, ConstantStart)
        theta, shift = (value.reshape(-1).double().expand(site.channels) for value in (own.theta, own.shift))
        change = descend(
            sample.patches(snn, site.name, layer),
            sample.currents(snn, site.name).mean(0),
            sample.activations[site.name],
            own.start.value * theta + T * shift,
            theta,
            T,
            float(layer.module.weight.square().mean().sqrt()),
            self.rounds,
            self.rate,
            sample.probe.go_on,
        )
        layer.change(change)
        snn.network.plans.clear()

    def _corrected(self, probe: Probe, snn: SpikingNetwork, site: Site, T: int) -> SpikingNetwork:
        own = snn.neurons[site.name]
        match self.correct:
            case "bias" | "weights":
                error = probe.mean_output(snn, site.name, T) - probe.mean_activation(site.name)
                assert own.shift is not None
                return changed(snn, site.name, shift=own.shift - by_channel(error, site))
            case "potential":
                missing = probe.mean_activation(site.name, "neuron") - probe.mean_output(snn, site.name, T, "neuron")
                assert isinstance(own.start, ConstantStart)
                return changed(snn, site.name, start=own.start.value + T * missing.float() / own.theta)
        return replace(snn)
