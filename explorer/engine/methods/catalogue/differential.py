"""Differential coding with several thresholds: spikes tell changes of the mean, nothing is told twice. [Huang2025]

    a spike s in step t changes the receiver's running mean by s / t
    s = +- theta / 2^i, i = 0..N-1: the nearest of them, from 3/4 of it on;  no more is taken back than was sent
    theta = argmin of E[(theta q(z / theta) - relu(z))^2],  z normal with the channel's mean and deviation,
            q(u) = clip(round(L u), 0, L) / L,  L = 2^N T

Z. Huang, W. Fang, T. Bu, P. Xue, Z. Hao, W. Liu, Y. Tang, Z. Yu, T. Huang, *Differential coding for training-free ANN-
to-SNN conversion*, ICML 2025 (DCGS). N = 4, L and the law are those of the authors' code. A spike is one of 2 N or
none, so a step takes 3 to 4 bits; each counts as one spike and one addition, whatever its size. The neuron has no upper
bound, so networks with clips are refused; so are max pools, for which the paper has a neuron of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from explorer.engine.analysis import ErrorParts, Membrane
from explorer.engine.errors import SpecError
from explorer.engine.methods.fitted import Ask, Fitted, Outcome, Stop
from explorer.engine.methods.fitting import Probe, by_channel, changed
from explorer.engine.methods.method import OWN, Method, option
from explorer.engine.methods.watched import Watched
from explorer.engine.simulation.differential import DifferentialWalk, changes
from explorer.engine.simulation.simulate import backend_for, chunk_images, simulate_chunks
from explorer.engine.simulation.store import SpikeStore
from explorer.engine.specs import SimulationSpec

ROUNDS = 200


def normal_least_squares(mean: Tensor, deviation: Tensor, L: int, rounds: int = ROUNDS) -> Tensor:
    """Return the threshold of each channel, float64 [C]: the fixed point of theta = E[relu(z) q] / E[q^2].

    q is the level that z / theta is rounded to among 0, 1/L, ..., 1. mean, deviation: of the pre-activation z, taken as
    normal, float64 [C]. Not finite or zero where z is never above 0 as far as float64 tells.
    """
    mean, deviation = mean[:, None], deviation[:, None]
    theta = (mean + 3 * deviation).clamp(min=0.1 * deviation)
    i = torch.arange(1, L + 1, dtype=torch.float64)
    for _ in range(rounds):
        edge = theta * (i - 0.5) / L
        u = (edge - mean) / deviation
        above = torch.special.erfc(u / math.sqrt(2)) / 2
        product = (mean * above + deviation * torch.exp(-u * u / 2) / math.sqrt(2 * math.pi)).sum(1, keepdim=True) / L
        square = ((2 * i - 1) * above).sum(1, keepdim=True) / L**2
        theta = product / square
    return theta[:, 0]


@dataclass(frozen=True, eq=False)
class DifferentialRun(Fitted):
    """A conversion whose spikes are changes of a mean."""

    def together(self, images: int, device: str = "auto") -> int:
        """See `Fitted`."""
        return min(images, chunk_images(self.snn, SimulationSpec(self.T), backend_for(device)))

    def _chunks(self, images: Tensor, spec: SimulationSpec, ask: Ask) -> Iterator[Outcome]:
        for part in simulate_chunks(self.snn, images, spec, stop=ask.stop, walk=DifferentialWalk):
            yield self._outcome(ask, part)

    def _watched(self, images: Tensor, spec: SimulationSpec, store: SpikeStore | None, stop: Stop) -> Watched:
        walk = DifferentialWalk(self.snn, images, spec, None, stop, backend_for(spec.device))
        run = walk.simulation()
        return WatchedChanges(self.network, self.snn, images, run.T, run.logits, run.sent, walk=walk, left=run.v_end)


@dataclass(frozen=True, eq=False)
class WatchedChanges(Watched):
    """A run of changes seen closely. walk: what ran; left: the potentials after it."""

    walk: DifferentialWalk = field(kw_only=True)
    left: dict[str, Tensor] = field(kw_only=True)

    def sent(self, site: str) -> Tensor:
        """Return T sum_t n(t) / t, whose worth over T is the mean that was told."""
        return self.walk.sent(site).double()

    def v_end(self, site: str) -> Tensor:
        """See `Watched`."""
        return self.left[site].double()

    def error_parts(self, site: str) -> ErrorParts:
        """Split the error; quantisation is that of a neuron which gets the same mean in step 1 and no change after it.

        The mean that came is told by the charge: v(T) = v(0) + T (r_in - r_out). Nothing clips.
        """
        own, where = self.snn.neurons[site], self.snn.network.site(site)
        theta, start = own.theta.double()[None], own.initial_potential(where, self.walk.image_keys).double()
        told = theta * self.sent(site) / self.T
        came = told + (self.v_end(site) - start) / self.T
        once = torch.zeros(self.T, *came.shape, dtype=torch.float64)
        once[0] = came
        _, z = changes(own.law, once, torch.broadcast_to(start, came.shape), torch.broadcast_to(theta, came.shape))
        stairs = theta * _mean(z)[-1]
        a = self.ann.activations(self.images, (site,))[site].double()
        return ErrorParts.split(a, told, came, stairs, torch.tensor(torch.inf, dtype=torch.float64))

    def membrane(self, site: str, neuron: int) -> Membrane:
        """Return one neuron over time; between two steps its potential stretches by t / (t - 1)."""
        at = self.flat(site, neuron)
        x, v, z = (value[:, 0, 0] for value in self.walk.membranes(site, torch.tensor([neuron])))
        theta, start = (
            at(self.snn.theta[site]),
            at(self.snn.initial_potential(self.snn.network.site(site), self.walk.image_keys)),
        )
        a = at(self.ann.activations(self.images[:1], (site,))[site])
        law, told = self.snn.neurons[site].law, (theta * _mean(z)).float()
        parts = (x, v + theta * z, v, z, theta, start, a, told)
        return Membrane(*parts, stretches=True, fires_at=law.fires_at, sized=law.sized)

    def rasters(self, sites: Sequence[str], neurons: int) -> dict[str, Tensor]:
        """See `Watched`."""
        shown = {}
        for site in sites:
            total = self.snn.network.site(site).neurons
            chosen = torch.linspace(0, total - 1, min(neurons, total)).round().long()
            shown[site] = self.walk.membranes(site, chosen)[2]
        return shown


def _mean(z: Tensor) -> Tensor:
    """Return the running mean that spikes z [T, ...] tell, sum of z(t) / t, float64."""
    t = torch.arange(1, len(z) + 1, dtype=torch.float64).reshape(-1, *(1,) * (z.ndim - 1))
    return (z.double() / t).cumsum(0)


@dataclass(frozen=True, kw_only=True)
class Differential(Method):
    """Spikes of several sizes that change the receiver's mean."""

    key = "differential"
    citation = "Huang et al. 2025"
    equation = r"\bar x \leftarrow \bar x + \frac{s(t)}{t}, \qquad s \in \{0, \pm\theta, \pm\tfrac{\theta}{2}, \ldots\}"
    about = (
        "A receiver keeps what it was told: a spike changes the running mean, and a neuron whose mean stands is "
        "silent. Spikes come in several sizes and both signs, so the first steps are coarse and the later ones refine. "
        "A step takes 3 to 4 bits."
    )
    refuses = {"law": "The thresholds are the law."}

    thresholds: int = option(4, "how many thresholds: theta, theta / 2, theta / 4, ...", low=2, high=4)

    @property
    def spiking_law(self) -> str:
        """The name of the law by which neurons spike."""
        return f"thresholds_{self.thresholds}"

    def fit_on(self, probe: Probe, T: int) -> Fitted:
        """See `Method`.

        Raises:
            SpecError: a site has an upper bound, which these neurons have not.
        """
        capped = [site.name for site in probe.network.sites if site.cap is not None]
        if capped:
            raise SpecError(
                f"{self.key}: {capped[0]} has an upper bound, and a neuron that sends changes has none. Choose a "
                "network with plain rectifiers, or another method."
            )
        snn, smallest = self.base(probe, T), 2 ** (self.thresholds - 1)
        for site in probe.network.sites:
            theta = snn.theta[site.name]
            if self.threshold == OWN:
                z = probe.inputs(site.name).double().movedim(1, 0).flatten(1)
                found = normal_least_squares(z.mean(1), z.std(1, correction=0), T * 2**self.thresholds)
                usable = torch.isfinite(found) & (found > 0)
                own = by_channel(torch.where(usable, found, 1.0), site)
                theta = torch.where(by_channel(usable, site) > 0, own, theta)
            snn = changed(snn, site.name, theta=theta / smallest)
        return DifferentialRun(self, snn, T)
