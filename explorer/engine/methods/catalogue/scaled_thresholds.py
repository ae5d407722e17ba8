"""Scaled thresholds: fire earlier than the ANN's bound, and let a spike be worth something else. [Datta2022]

    alpha, beta = argmin | sum_p clip(p, 0, mu) - beta alpha mu / T clip(floor(p T / (alpha mu)), 0, T) |
    theta = alpha mu;  a spike is worth beta alpha mu;  v(0) = 0

G. Datta, P. A. Beerel, *Can deep neural networks be converted to ultra low-latency spiking neural networks?*, DATE 2022
(arXiv 2021). Details from memory: p runs over the percentiles 0 to 100 of the pre-activations, alpha mu over those of
them in (0, mu], beta over 0.01 to 2.00. Where each channel has a bound of its own, the search is each channel's. The
paper then fine-tunes, which is not done here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from explorer.engine.conversion import SpikingNetwork
from explorer.engine.methods.fitted import Fitted
from explorer.engine.methods.fitting import Probe, changed
from explorer.engine.methods.method import Method, option

BETAS = np.arange(1, 201) / 100


def scales(percentiles: np.ndarray, mu: float, T: int, most: float) -> tuple[float, float]:
    """Return (alpha, beta) of the least absolute error; (1, 1) if no percentile lies in (0, mu].

    percentiles: of the pre-activations, ascending; most: the largest beta.
    """
    wanted = np.clip(percentiles, 0, mu).sum()
    found, least = (1.0, 1.0), np.inf
    betas = BETAS[: round(most * 100)]
    for theta in percentiles[(percentiles > 0) & (percentiles <= mu)]:
        sent = (np.clip(np.floor(percentiles * T / theta), 0, T) * theta / T).sum()
        errors = np.abs(wanted - betas * sent)
        best = int(errors.argmin())
        if errors[best] < least:
            least, found = errors[best], (float(theta / mu), float(betas[best]))
    return found


@dataclass(frozen=True, kw_only=True)
class ScaledThresholds(Method):
    """theta = alpha mu, worth beta alpha mu."""

    key = "scaled"
    citation = "Datta & Beerel 2021"
    equation = r"\theta = \alpha\mu, \qquad \text{worth } \beta\alpha\mu"
    about = (
        "Few activations come near the bound, so at small T the threshold is lowered until the layer as a whole sends "
        "what the ANN's would, and the worth of a spike is scaled by what remains. Sums agree; single neurons need not."
    )

    most: float = option(2.0, "the largest worth of a spike, in thresholds", low=0.1, high=2.0)

    def fit_on(self, probe: Probe, T: int) -> Fitted:
        """See `Method`."""
        snn: SpikingNetwork = self.base(probe, T)
        for site in probe.network.sites:
            mu = snn.theta[site.name].double()
            z = probe.inputs(site.name)
            rows = z.flatten()[None] if mu.numel() == 1 else z.movedim(1, 0).flatten(1)
            p = np.percentile(rows.numpy(), np.arange(101), axis=1).astype(np.float64)
            found = [scales(each, bound, T, self.most) for each, bound in zip(p.T, mu.flatten().tolist(), strict=True)]
            alpha, beta = torch.tensor(found, dtype=torch.float64).T.reshape(2, *mu.shape)
            theta = (alpha * mu).float()
            snn = changed(snn, site.name, theta=theta, amplitude=theta * beta.float())
        return Fitted(self, snn, T)
