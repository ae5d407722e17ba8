"""Data-based normalisation: thresholds from activations, every neuron starts empty. [Diehl2015, Rueckauer2017]

    theta = max a, or the p-th percentile of a;  v(0) = 0;  reset by subtraction

P. Diehl et al., *Fast-classifying, high-accuracy spiking deep networks through weight and threshold balancing*, IJCNN
2015; B. Rueckauer et al., *Conversion of continuous-valued deep networks to efficient event-driven networks for image
classification*, Frontiers in Neuroscience 2017. The percentile is over all activations of a site, zeros included, or
over those above zero: both conventions are in use.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from explorer.engine.graph import Network, Site
from explorer.engine.methods.fitted import Fitted
from explorer.engine.methods.fitting import Probe, by_channel, with_theta
from explorer.engine.methods.method import OWN, Method, option
from explorer.engine.specs import MaxActivation, Percentile, ThresholdRule


@dataclass(frozen=True, kw_only=True)
class MaxNorm(Method):
    """theta is the largest activation of the site."""

    key = "max-norm"
    citation = "Diehl et al. 2015"
    equation = r"\theta = \max a, \qquad v(0) = 0"
    about = (
        "Every layer's threshold is the largest activation that calibration images cause, so that no rate is ever cut "
        "off. Neurons start empty, so each rounds its input down."
    )

    per: str = option("site", "one threshold per site or per channel", choices=("site", "channel"))

    def own_rule(self, network: Network, T: int) -> ThresholdRule:
        """Return the paper's rule."""
        return MaxActivation("channel" if self.per == "channel" else "site")

    def fit_on(self, probe: Probe, T: int) -> Fitted:
        """See `Method`."""
        return Fitted(self, self.base(probe, T), T)


@dataclass(frozen=True, kw_only=True)
class PercentileNorm(Method):
    """theta is a high percentile of the site's activations."""

    key = "percentile-norm"
    citation = "Rueckauer et al. 2017"
    equation = r"\theta = P_p(a), \qquad v(0) = 0"
    about = (
        "The largest activation is an outlier; a percentile just below it lets every other neuron fire more often, at "
        "the price of cutting the few largest rates off. Neurons start empty."
    )

    p: float = option(99.9, "the percentile", low=50.0, high=100.0)
    over: str = option("all", "of all activations, or of those above zero", choices=("all", "positive"))
    per: str = option("site", "one threshold per site or per channel", choices=("site", "channel"))

    def own_rule(self, network: Network, T: int) -> ThresholdRule:
        """Return the paper's rule."""
        return Percentile(self.p, "channel" if self.per == "channel" else "site")

    def fit_on(self, probe: Probe, T: int) -> Fitted:
        """See `Method`."""
        snn = self.base(probe, T)
        if self.over == "positive" and self.threshold == OWN:
            for site in probe.network.sites:
                snn = with_theta(snn, site, self._of_positive(probe.activations(site.name), site))
        return Fitted(self, snn, T)

    def _of_positive(self, a: Tensor, site: Site) -> Tensor:
        """Return the percentile of activations [N, *site] above zero; where there are none, the site's, or 1."""
        rows = a.movedim(1, 0).flatten(1).numpy() if self.per == "channel" else a.flatten()[None].numpy()
        whole = a[a > 0]
        spare = float(np.percentile(whole.numpy(), self.p)) if whole.numel() else 1.0
        found = [np.percentile(row[row > 0], self.p) if (row > 0).any() else spare for row in rows]
        theta = torch.tensor(np.array(found))
        return by_channel(theta, site) if self.per == "channel" else theta.float()[0]
