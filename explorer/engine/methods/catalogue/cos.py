"""Offset spikes: starts are moved by what a first phase lost or sent too much, image by image. [Hao2023b]

    rho steps from v(0);  m = least potential over its spiking steps, w = largest over its silent ones, before the reset
    v(rho) < 0 and it fired:      v(0) <- v(0) - max(1, m - 0.999)
    v(rho) >= 1 and it was silent:  v(0) <- v(0) + max(1, 1.001 - w)          all in units of theta

Z. Hao, J. Ding, T. Bu, T. Huang, Z. Yu, *Bridging the gap between ANNs and SNNs by calibrating offset spikes*, ICLR
2023. Site by site on the spikes of those already corrected, per neuron and image. An answer takes rho + T steps as the
paper counts; a machine that waits for each site to be corrected before the next begins takes longer. The spikes of rho
steps are counted on top of those of the run.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from explorer.engine.conversion import SpikingNetwork
from explorer.engine.kernels.reference import law_scan
from explorer.engine.methods.fitted import FirstPhase, Fitted, TwoPhases
from explorer.engine.methods.fitting import Probe, changed
from explorer.engine.methods.method import Method, option
from explorer.engine.neurons import INTEGRATE_AND_FIRE
from explorer.engine.simulation.result import Simulation


def moved_start(x: Tensor, theta: Tensor, start: Tensor) -> Tensor:
    """Return v(0) / theta after one round of rho steps.

    x: currents, float32 [rho, B, *site], activation units; theta, start: broadcastable to [B, *site].
    """
    v = (theta * start).expand(x.shape[1:])
    least, largest = torch.full_like(v, torch.inf), torch.full_like(v, -torch.inf)
    for current in x:
        charged = v + current
        (spike,), v, _ = law_scan(INTEGRATE_AND_FIRE, current[None], v, theta)
        least = torch.where(spike[0], torch.minimum(least, charged), least)
        largest = torch.where(spike[0], largest, torch.maximum(largest, charged))
    m, w = least / theta, largest / theta
    too_many = (v < 0) & torch.isfinite(m)
    too_few = (v >= theta) & torch.isfinite(w)
    start = start.expand_as(v)
    lower, higher = start - (m - 0.999).clamp(min=1), start + (1.001 - w).clamp(min=1)
    return torch.where(too_many, lower, torch.where(too_few, higher, start))


@dataclass(frozen=True, kw_only=True)
class COS(Method):
    """Move each start by the spikes that a first phase got wrong."""

    key = "cos"
    citation = "Hao et al. 2023b"
    equation = r"v(0) \leftarrow v(0) - \max(1, m - 0.999) \;\text{ or }\; v(0) + \max(1, 1.001 - w)"
    about = (
        "A neuron that ends below zero sent a spike too many, one that ends above its threshold one too few. A first "
        "phase of rho steps finds them, and their starts are moved just so far that the run sends one less or one "
        "more. The method looks at each image first: an answer takes rho steps more than T in every round."
    )
    refuses = {"law": "An offset spike is one that cannot be taken back; another law leaves none to correct."}

    rho: int = option(4, "steps of the first phase", low=1, high=128)
    rounds: int = option(1, "how often starts are moved", low=1, high=8)

    def fit_on(self, probe: Probe, T: int) -> Fitted:
        """See `Method`."""
        base = self.base(probe, T)

        def prepare(snn: SpikingNetwork, phase: FirstPhase) -> tuple[SpikingNetwork, list[Simulation]]:
            for site in probe.network.sites:
                x = phase.current(snn, site.name, self.rho)
                theta = snn.theta[site.name]
                start = snn.initial_potential(site, phase.keys) / theta
                for _ in range(self.rounds):
                    start = moved_start(x, theta, start)
                snn = changed(snn, site.name, start=start)
            return snn, [phase.run(snn, self.rho)] * self.rounds

        def before(snn: SpikingNetwork, run: SpikingNetwork, site: str) -> SpikingNetwork:
            return changed(run, site, start=snn.neurons[site].start)

        return TwoPhases(self, base, T, extra=self.rho * self.rounds, prepare=prepare, steps=self.rho, before=before)
