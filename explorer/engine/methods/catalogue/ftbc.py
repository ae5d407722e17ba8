"""A bias per channel and step, so that each step's mean output is the ANN's. [FTBC2024]

    b(t) <- b(t) + eta (mean a - mean theta z(t))   per channel, front to back, a few rounds

X. Wu et al., *FTBC: Forward temporal bias correction for optimizing ANN-SNN conversion*, ECCV 2024. The step size eta
is 0.4 to 0.5 in the paper. The biases are fitted for one T. The correction adds to any start and any law: signed
spikes with `law`: signed_at_zero leave little to correct but the rest of the staircase.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from explorer.engine.conversion import SpikingNetwork
from explorer.engine.graph import Network, Site
from explorer.engine.methods.fitted import Fitted
from explorer.engine.methods.fitting import Probe, by_channel, changed, fire, over_channels
from explorer.engine.methods.method import Method, option
from explorer.engine.specs import MinSquaredError, ThresholdRule, TrainedClip


@dataclass(frozen=True, kw_only=True)
class FTBC(Method):
    """A shift per channel and step."""

    key = "ftbc"
    citation = "Wu et al. 2024"
    equation = r"b(t) \leftarrow b(t) + \eta\,\bigl(\bar a - \overline{\theta z(t)}\bigr)"
    about = (
        "Spikes do not arrive evenly, so a layer that is right on average is wrong in single steps. Each channel gets "
        "a bias for every step, front to back, until each step's mean output is the ANN's mean."
    )

    rounds: int = option(4, "how often the biases are corrected", low=1, high=50)
    eta: float = option(0.5, "step size", low=0.01, high=1.0)

    def own_rule(self, network: Network, T: int) -> ThresholdRule:
        """Return the trained bounds if there are any, else least squared error for T steps per channel."""
        return TrainedClip() if network.clips_trained else MinSquaredError(T)

    def fit_on(self, probe: Probe, T: int) -> Fitted:
        """See `Method`."""
        snn = self.base(probe, T)
        for site in probe.network.sites:
            snn = self._corrected(probe, snn, site, T)
        return Fitted(self, snn, T)

    def _corrected(self, probe: Probe, snn: SpikingNetwork, site: Site, T: int) -> SpikingNetwork:
        wanted, currents = probe.mean_activation(site.name), probe.currents(snn, site.name, T)
        bias = torch.zeros(T, site.channels, dtype=torch.float64)
        for _ in range(self.rounds):
            snn = changed(snn, site.name, shift=by_channel(bias, site))
            own, sent = snn.neurons[site.name], torch.zeros_like(bias)
            for chunk, x in currents:
                z = own.worth * fire(site, own, x, own.initial_potential(site, probe.keys(chunk)))
                sent += over_channels(z.flatten(0, 1)).unflatten(0, z.shape[:2]).sum(1)
            bias += self.eta * (wanted - sent / len(probe.images))
        return changed(snn, site.name, shift=by_channel(bias, site))
