"""Local threshold balancing, with a read-out that waits for the last layer to wake. [Bu2025]

    per channel from theta = 0, batch by batch:  theta <- theta + 2 mean relu(z - theta), passing on min(relu(z), theta)
    v(0) = theta / 2;  scores are read from t0 on,  t0 = sum over layers of min_i (theta_i - v_i(0)) / mean relu(z_i)

T. Bu, M. Li, Z. Yu, *Inference-scale complexity in ANN-SNN conversion for high-performance and low-power
applications*, CVPR 2025. z is the ANN's pre-activation, thresholds being passed on as bounds; t0 adds up when the
first neuron of each layer fires, and at least the last 4 steps are always read. Thresholds rise slowly where few
activations are large, so the number of batches matters; the default is this explorer's, not the paper's. Where the
rectifier has a bound of its own, they do not rise above it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from explorer.engine.graph import Site
from explorer.engine.methods.coded import site_run
from explorer.engine.methods.fitted import Fitted
from explorer.engine.methods.fitting import Probe, by_channel, over_channels, with_theta
from explorer.engine.methods.method import Method, option
from explorer.engine.specs import ConstantStart, GaussianStart, UniformStart


@dataclass(frozen=True, kw_only=True)
class LocalBalancing(Method):
    """Thresholds per channel that rise by what exceeds them."""

    key = "local-balancing"
    citation = "Bu et al. 2025"
    equation = r"\theta \leftarrow \theta + 2\,\overline{\mathrm{relu}(z - \theta)}, \qquad \text{read from } t_0"
    about = (
        "Every channel's threshold rises by what exceeds it, batch after batch, so it ends where little does. The "
        "scores of the first steps, in which spikes have not reached the last layer, are not read."
    )
    refuses = {"threshold": "The thresholds are what the method finds."}

    batch: int = option(16, "images in a batch", low=1, high=512)
    updates: int = option(200, "batches gone through, the images again and again", low=1, high=5000)
    delayed: bool = option(True, "leave the steps before t0 out of the scores")

    def fit_on(self, probe: Probe, T: int) -> Fitted:
        """See `Method`."""
        snn = self.base(probe, T)
        theta = {site.name: torch.zeros(site.channels, dtype=torch.float64) for site in probe.network.sites}
        means: dict[str, Tensor] = {}

        def balance(site: Site, z: Tensor) -> Tensor:
            bound, positive = theta[site.name], site.rectified(z)
            above = (positive - by_channel(bound, site)).clamp(min=0)
            risen = bound + 2 * over_channels(above).mean(0)
            theta[site.name] = site.rectified(by_channel(risen, site)).double().flatten()
            return torch.minimum(positive, by_channel(theta[site.name], site))

        def gather(site: Site, z: Tensor) -> Tensor:
            positive = site.rectified(z)
            means[site.name] = means.get(site.name, 0) + positive.double().sum(0)
            return torch.minimum(positive, by_channel(theta[site.name], site))

        starts = range(0, len(probe.images), self.batch)
        for k in range(self.updates):
            probe.go_on()
            i = starts[k % len(starts)]
            site_run(probe.network, probe.images[i : i + self.batch], balance)
        for i in starts:
            site_run(probe.network, probe.images[i : i + self.batch], gather)
        delay = 0.0
        for site in probe.network.sites:
            found = theta[site.name]
            found = torch.where(found > 0, found, found.max() if found.max() > 0 else 1.0)
            snn = with_theta(snn, site, by_channel(found, site))
            missing = by_channel(found * (1 - _share(self.start)), site) / (means[site.name] / len(probe.images))
            delay += max(0.0, float(missing.min())) if torch.isfinite(missing).any() else 0.0
        return Fitted(self, snn, T, skipped=math.ceil(delay) if self.delayed else 0)


def _share(start: ConstantStart | UniformStart | GaussianStart) -> float:
    """Return the mean of v(0) / theta."""
    match start:
        case ConstantStart(value=value):
            return value
        case UniformStart(low=low, high=high):
            return (low + high) / 2
        case GaussianStart(mean=mean):
            return mean
