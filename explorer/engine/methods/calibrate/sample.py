"""What calibration looks at: for every image some places of every site, drawn by seed, and what the ANN gives there."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from explorer.engine.conversion import SpikingNetwork
from explorer.engine.graph import Site
from explorer.engine.methods.calibrate.refit import Layer
from explorer.engine.methods.fitting import Probe, rectifier_inputs
from explorer.engine.neurons.parameters import Neurons
from explorer.engine.simulation.keys import image_keys
from explorer.engine.specs import ConstantStart, InitialPotential

CURRENT_BYTES = 256 * 2**20  # of one site's sampled currents


def in_order(images: Tensor) -> Tensor:
    """Return the images in the order of their pixels' digests: no result then depends on how they were given."""
    keys = image_keys(images.detach().float().cpu())
    return images[sorted(range(len(keys)), key=keys.__getitem__)]


def pick(value: Tensor, places: Tensor) -> Tensor:
    """Return a site's values [B, C, ...] at places, int64 [B, n]: [B, n, C]."""
    flat = value.flatten(2).transpose(1, 2) if value.ndim > 2 else value[:, None]
    return flat[torch.arange(len(places))[:, None], places]


class Sample:
    """Sampled places of a network's sites on a probe's images; `size` neurons a channel and site, fewer if it has less.

    The probe's images must stand `in_order`.
    """

    def __init__(self, probe: Probe, size: int, T: int, seed: int) -> None:
        self.probe, self.network, self.T = probe, probe.network, T
        self.keys = image_keys(probe.images)
        self.places = {site.name: self._places(site, size, seed) for site in self.network.sites}
        self.activations = self._gathered(self.network.activations)

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        """The ANN's pre-activations at the places, by site: float32 [S, C]."""
        return self._gathered(lambda images: rectifier_inputs(self.network, images))

    def _places(self, site: Site, size: int, seed: int) -> Tensor:
        images, whole = len(self.probe.images), site.neurons // site.channels
        room = CURRENT_BYTES // (4 * self.T * site.channels)
        n = max(1, min(whole, min(size, room) // images))
        generator = torch.Generator().manual_seed(seed * 100_003 + site.order)
        return torch.rand(images, whole, generator=generator).argsort(1)[:, :n]

    def _gathered(self, values: Callable[[Tensor], dict[str, Tensor]]) -> dict[str, Tensor]:
        parts: dict[str, list[Tensor]] = {name: [] for name in self.places}
        for chunk in self.probe.chunks(self.T):
            self.probe.go_on()
            for name, a in values(self.probe.images[chunk]).items():
                parts[name].append(pick(a, self.places[name][chunk]).flatten(0, 1))
        return {name: torch.cat(part) for name, part in parts.items()}

    def currents(self, snn: SpikingNetwork, site: str) -> Tensor:
        """Return what arrives at the sampled neurons, the site's own shift left out: float32 [T, S, C]."""
        parts = []
        for chunk, x in self.probe.currents(snn, site, self.T):
            places = self.places[site][chunk]
            here = pick(x.flatten(0, 1), places.repeat(self.T, 1))
            parts.append(here.unflatten(0, x.shape[:2]).flatten(1, 2))
        return torch.cat(parts, 1)

    def patches(self, snn: SpikingNetwork, step: str, layer: Layer) -> Tensor:
        """Return what the neurons sampled at a site, or those of the read-out, read of a layer's mean input: [S, F]."""
        parts = []
        for chunk in self.probe.chunks(self.T):
            u = self.probe.walk(snn, chunk, self.T).mean_value(step, layer.source.name)
            parts.append(layer.patches(u, self.places.get(step, self.first_place)[chunk]).flatten(0, 1))
        return torch.cat(parts)

    @cached_property
    def scores(self) -> Tensor:
        """The ANN's class scores, float32 [N, K]."""
        return torch.cat([self.network.forward(self.probe.images[chunk]) for chunk in self.probe.chunks(self.T)])

    @property
    def first_place(self) -> Tensor:
        """The only place of what has no map: int64 [N, 1]."""
        return torch.zeros(len(self.keys), 1, dtype=torch.int64)

    def start(self, site: Site, rule: InitialPotential | Tensor) -> Tensor:
        """Return v(0) / theta of the sampled neurons: float32 [S, C], or [1, C] where all start alike."""
        if isinstance(rule, ConstantStart):
            return torch.full((1, site.channels), rule.value)
        shares = Neurons(theta=torch.tensor(1.0), start=rule).initial_potential(site, self.keys)
        return pick(shares, self.places[site.name]).flatten(0, 1)
