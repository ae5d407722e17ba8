"""A fitted conversion seen closely: every neuron of a few images, its error by cause, its membrane in time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from explorer.engine.analysis import ErrorParts, Membrane, error_parts, membrane
from explorer.engine.conversion import SpikingNetwork
from explorer.engine.errors import SpecError
from explorer.engine.graph import Network
from explorer.engine.simulation.result import Simulation
from explorer.engine.simulation.simulate import backend_for
from explorer.engine.simulation.store import SpikeStore
from explorer.engine.simulation.walk import Walk
from explorer.engine.specs import Record, SimulationSpec


@dataclass(frozen=True, eq=False)
class Watched(ABC):
    """A run of B images; see the module.

    ann: the network as it was given. snn: the neurons as they ran for these images. images: normalised float32 [B, C,
    H, W]. logits: float32 [T, B, K] as read out after each step, NaN where there is no answer. spikes[site]: how many
    each neuron sent in the run, first phases left out, [B, *site].
    """

    ann: Network
    snn: SpikingNetwork
    images: Tensor
    T: int
    logits: Tensor
    spikes: dict[str, Tensor]

    @abstractmethod
    def sent(self, site: str) -> Tensor:
        """Return what each neuron's spikes count together, float64 [B, *site]: a_hat over what one is worth over T."""

    @abstractmethod
    def v_end(self, site: str) -> Tensor:
        """Return the potential left after the last step, float64 [B, *site], activation units."""

    @abstractmethod
    def error_parts(self, site: str) -> ErrorParts:
        """Split every neuron's conversion error by cause."""

    @abstractmethod
    def membrane(self, site: str, neuron: int) -> Membrane:
        """Return one neuron over time, of the first image.

        Raises:
            SpecError: no such site or neuron.
        """

    @abstractmethod
    def rasters(self, sites: Sequence[str], neurons: int) -> dict[str, Tensor]:
        """Return what spikes of up to so many neurons a site count in each step, int8 [T, B, n]."""

    def flat(self, site: str, neuron: int) -> Callable[[Tensor], float]:
        """Return what reads one neuron of the first image out of a value broadcastable to [B, *site]."""
        where = self.snn.network.site(site)
        if not 0 <= neuron < where.neurons:
            raise SpecError(f"{site}: neurons count from 0 to {where.neurons - 1}, got {neuron}.")
        return lambda value: float(
            torch.broadcast_to(value, (len(self.images), *where.shape))[0].reshape(-1)[neuron].item()
        )


@dataclass(frozen=True, eq=False)
class WatchedRun(Watched):
    """A run of spikes. skipped: steps that the read-out leaves out. before: the neurons in the phase before, its steps."""  # noqa: E501

    run: Simulation = field(kw_only=True)
    store: SpikeStore | None = field(default=None, kw_only=True)
    device: str = field(default="auto", kw_only=True)
    skipped: int = field(default=0, kw_only=True)
    before: tuple[Callable[[str], SpikingNetwork], int] | None = field(default=None, kw_only=True)

    def sent(self, site: str) -> Tensor:
        """See `Watched`."""
        return self.run.counts[site].double()

    def v_end(self, site: str) -> Tensor:
        """See `Watched`."""
        return self.run.v_end[site].double()

    def error_parts(self, site: str) -> ErrorParts:
        """See `Watched`."""
        came = {}
        if self.snn.neurons[site].gate is not None:
            spec = SimulationSpec(self.T, Record(counts=False, v_end=False))
            walk = Walk(self.snn, self.images, spec, self.store, None, backend_for(self.device))
            came[site] = walk.current(site).double().mean(0)
        return error_parts(self.snn, self.images, self.run, (site,), came, self.ann)[site]

    def membrane(self, site: str, neuron: int) -> Membrane:
        """See `Watched`."""
        if len(self.images) != 1:
            raise SpecError(f"trace: exactly 1 image, got {len(self.images)}. Pick one.")
        self.flat(site, neuron)
        here = membrane(self.snn, self.images, site, neuron, self.T, self.store, self.device)
        if self.before is not None:
            earlier, steps = self.before
            first = membrane(earlier(site), self.images, site, neuron, steps, self.store, self.device)
            here = replace(here, before=first)
        a = self.flat(site, neuron)(self.ann.activations(self.images, [site])[site])
        return replace(here, skipped=self.skipped, a=a)

    def rasters(self, sites: Sequence[str], neurons: int) -> dict[str, Tensor]:
        """See `Watched`."""
        spec = SimulationSpec(self.T, Record(counts=False, v_end=False, sites=tuple(sites), neurons=neurons))
        recorded = Walk(self.snn, self.images, spec, self.store, None, backend_for(self.device)).recorded()
        shown = recorded["spikes"]
        for site in sites:
            gate = self.snn.neurons[site].gate
            if gate is not None:
                where = self.snn.network.site(site)
                is_open = torch.broadcast_to(gate, (len(self.images), *where.shape)).flatten(1)
                shown[site] = shown[site] * is_open[:, recorded["neurons"][site]].to(torch.int8)
        return shown
