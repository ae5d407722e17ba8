"""RMP: thresholds balanced on the spiking network itself, residual potentials kept. [Han2020]

    theta = beta max over images, neurons and steps of x(t);  v(0) = 0;  reset by subtraction

B. Han, G. Srinivasan, K. Roy, *RMP-SNN: Residual membrane potential neuron for enabling deeper high-accuracy and low-
latency spiking neural network*, CVPR 2020. Details from memory: beta is a factor below 1, and the default here is not
a figure of the paper. Sites are balanced front to back, each on the spikes of those already balanced. Where
the rectifier has a bound, the threshold stays at or below it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from explorer.engine.methods.fitted import Fitted
from explorer.engine.methods.fitting import Probe, with_theta
from explorer.engine.methods.method import Method, option


@dataclass(frozen=True, kw_only=True)
class RMP(Method):
    """theta is a share of the largest current that arrives in the spiking network."""

    key = "rmp"
    citation = "Han et al. 2020"
    equation = r"\theta = \beta\,\max_t x(t), \qquad v(0) = 0"
    about = (
        "The threshold is balanced on spikes, not on activations: a share of the largest current that a single step "
        "brings. Currents of single steps are larger than their mean, so thresholds are high and rates low."
    )
    refuses = {"threshold": "The thresholds are what the method finds."}

    beta: float = option(0.8, "share of the largest current", low=0.05, high=1.0)
    steps: int = option(16, "steps that each site is watched for", low=1, high=256)

    def fit_on(self, probe: Probe, T: int) -> Fitted:
        """See `Method`."""
        snn = self.base(probe, T)
        for site in probe.network.sites:
            largest = max(float(x.max()) for _, x in probe.currents(snn, site.name, self.steps))
            if largest > 0:
                snn = with_theta(snn, site, torch.tensor(self.beta * largest))
        return Fitted(self, snn, T)
