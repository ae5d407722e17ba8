"""Layer by layer: what a site of the ANN gives, and what arrives at and leaves it in the spiking network so far.

A probe holds the calibration images. It is asked for one site after the other while a method changes the neurons front
to back; the spikes upstream of a site are computed once and kept, whatever happens behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx

from explorer.engine.calibration import ActivationStats, Calibration, observe, thresholds
from explorer.engine.compile.values import StaticValues
from explorer.engine.conversion import SpikingNetwork
from explorer.engine.errors import Cancelled, DataError
from explorer.engine.graph import Network, Site
from explorer.engine.kernels import backend
from explorer.engine.kernels.reference import law_scan
from explorer.engine.neurons.parameters import Neurons
from explorer.engine.simulation.keys import image_keys
from explorer.engine.simulation.store import SpikeStore
from explorer.engine.simulation.walk import Walk
from explorer.engine.specs import CalibrationSpec, SimulationSpec, TrainedClip

STORE_BYTES = 2**30
KEPT_BYTES = 2**30  # of one site's currents on all images
CURRENT_BYTES = 64 * 2**20  # of one chunk's currents at the largest site


class Probe:
    """Calibration images [N, C, H, W], normalised, and everything methods ask of them; see the module.

    images: None where a method looks at none; asking for something then raises DataError.
    """

    def __init__(self, network: Network, images: Tensor | None, stop: Callable[[], bool] | None = None) -> None:
        self.network, self.stop = network, stop
        self._images = None if images is None else images.detach().float().cpu().contiguous()
        self._store = SpikeStore(STORE_BYTES)
        self._static: dict[tuple[int, int], StaticValues] = {}

    @property
    def images(self) -> Tensor:
        """The calibration images.

        Raises:
            DataError: there are none.
        """
        if self._images is None or len(self._images) == 0:
            raise DataError("This method looks at calibration images and got none. Give some, as few as 64 will do.")
        return self._images

    # The ANN

    @cached_property
    def statistics(self) -> dict[str, ActivationStats]:
        """Maxima and histograms of the ANN's activations, by site."""
        return observe(self.network, self.images, stop=self.stop)

    def calibration(self, spec: CalibrationSpec) -> Calibration:
        """Return thresholds by a rule."""
        if isinstance(spec.rule, TrainedClip):
            return thresholds(self.network, {}, spec, 0)
        return thresholds(self.network, self.statistics, spec, len(self.images))

    @cached_property
    def _inputs(self) -> dict[str, Tensor]:
        batch = self.network.at_once(32, keep_sites=True)
        parts: dict[str, list[Tensor]] = {site.name: [] for site in self.network.sites}
        for i in range(0, len(self.images), batch):
            self.go_on()
            for name, value in rectifier_inputs(self.network, self.images[i : i + batch]).items():
                parts[name].append(value)
        return {name: torch.cat(values) for name, values in parts.items()}

    def inputs(self, site: str) -> Tensor:
        """Return the ANN's pre-activations, float32 [N, *site]."""
        return self._inputs[site]

    def activations(self, site: str) -> Tensor:
        """Return the ANN's activations, float32 [N, *site]; without the levels of a quantised one."""
        return self.network.site(site).rectified(self.inputs(site))

    # The spiking network so far

    def currents(self, snn: SpikingNetwork, site: str, T: int) -> Currents:
        """Return what arrives at a site; its own shift is not in it, nor do its other fields matter."""
        return Currents(self, changed(snn, site, shift=None), site, T)

    def chunks(self, T: int) -> list[slice]:
        """Return the images that go together in a run of T steps."""
        largest = max(site.neurons for site in self.network.sites)
        size = max(1, min(32, CURRENT_BYTES // (4 * T * largest)))
        return [slice(i, min(i + size, len(self.images))) for i in range(0, len(self.images), size)]

    def walk(self, snn: SpikingNetwork, chunk: slice, T: int) -> Walk:
        """Return a walk of a chunk; spikes, and what depends on the image alone, are shared with those before it."""
        self.go_on()
        walk = Walk(snn, self.images[chunk], SimulationSpec(T=T), self._store, self.stop, backend("cpu"))
        walk.static = self._static.setdefault((chunk.start, chunk.stop), walk.static)
        return walk

    def outputs(self, snn: SpikingNetwork, site: str, T: int) -> Iterator[tuple[slice, Tensor]]:
        """Yield (images, z), chunk by chunk: what the site's spikes count in each step, float32 [T, B, *site]."""
        where, own = self.network.site(site), snn.neurons[site]
        for chunk, x in self.currents(snn, site, T):
            yield chunk, fire(where, own, x, own.initial_potential(where, self.keys(chunk)))

    def keys(self, chunk: slice) -> list[bytes]:
        """Return the digests of images, on which random starts depend."""
        return self._keys[chunk]

    @cached_property
    def _keys(self) -> list[bytes]:
        return image_keys(self.images)

    def mean_output(self, snn: SpikingNetwork, site: str, T: int, dim: str = "channel") -> Tensor:
        """Return the mean over images of what the site sends, worth times spikes over T, float64, activation units.

        dim: "channel" [C], "step" [T, C] (per step, not over T), or "neuron" [*site].
        """
        own, total = snn.neurons[site], None
        for _, z in self.outputs(snn, site, T):
            sent = own.worth * z
            match dim:
                case "step":
                    part = over_channels(sent.flatten(0, 1)).unflatten(0, sent.shape[:2]).sum(1)
                case "neuron":
                    part = sent.double().sum((0, 1)) / T
                case _:
                    part = over_channels(sent.flatten(0, 1)).sum(0) / T
            total = part if total is None else total + part
        assert total is not None
        return total / len(self.images)

    def mean_activation(self, site: str, dim: str = "channel") -> Tensor:
        """Return the mean over images of the ANN's activation, float64: [C], or [*site] if dim is "neuron"."""
        a = self.activations(site)
        return a.double().mean(0) if dim == "neuron" else over_channels(a).mean(0)

    def go_on(self) -> None:
        """Go on, unless the fit is to stop.

        Raises:
            Cancelled: it is.
        """
        if self.stop is not None and self.stop():
            raise Cancelled("The fit was stopped.")


class Currents:
    """What arrives at a site, chunk by chunk: (images, x), x float32 [T, B, *site]. May be gone through again.

    Kept after the first time if it is small enough, else computed again from the spikes, which are kept.
    """

    def __init__(self, probe: Probe, snn: SpikingNetwork, site: str, T: int) -> None:
        self.probe, self.snn, self.site, self.T = probe, snn, site, T
        self.small = 4 * T * len(probe.images) * probe.network.site(site).neurons <= KEPT_BYTES
        self._kept: list[tuple[slice, Tensor]] | None = None

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        if self._kept is not None:
            for part in self._kept:
                self.probe.go_on()
                yield part
            return
        kept = []
        for chunk in self.probe.chunks(self.T):
            x = self.probe.walk(self.snn, chunk, self.T).current(self.site)
            if self.small:
                kept.append((chunk, x))
            yield chunk, x
        self._kept = kept if self.small else None


def changed(snn: SpikingNetwork, site: str, **fields: Any) -> SpikingNetwork:
    """Return a spiking network in which the neurons of one site have other fields."""
    return replace(snn, neurons={**snn.neurons, site: replace(snn.neurons[site], **fields)})


def with_theta(snn: SpikingNetwork, site: Site, theta: Tensor) -> SpikingNetwork:
    """Return a spiking network with other thresholds at a site, each at most the rectifier's own bound there.

    theta: broadcastable to [*site]. A neuron that sends more than the bound sends what the ANN never does.
    """
    return changed(snn, site.name, theta=site.rectified(theta.float()))


def fire(site: Site, own: Neurons, x: Tensor, v: Tensor) -> Tensor:
    """Return what a site's spikes count in each step, float32 [T, B, *site], given currents and v(0)."""
    if own.shift is not None:
        x = x + (own.shift[:, None] if own.timed(site) else own.shift)
    bits, _, _ = law_scan(own.law, x, torch.broadcast_to(v, x.shape[1:]), own.theta)
    z: Any = sum(n * plane.float() for n, plane in zip(own.law.planes, bits, strict=True))
    return z if own.gate is None else z * own.gate


def over_channels(value: Tensor) -> Tensor:
    """Return means over a map's places: [B, C, ...] -> float64 [B, C]."""
    return value.double().flatten(2).mean(2) if value.ndim > 2 else value.double()


def by_channel(value: Tensor, site: Site) -> Tensor:
    """Lay values [..., C] out so that they broadcast to [..., *site], float32."""
    return value.float().reshape(*value.shape, *(1,) * (len(site.shape) - 1))


@torch.no_grad()
def rectifier_inputs(network: Network, images: Tensor) -> dict[str, Tensor]:
    """Run the ANN and return what goes into its rectifiers, by site."""
    sources = {network.node(node).all_input_nodes[0].name: name for name, node in network.site_nodes.items()}
    kept: dict[str, Tensor] = {}

    class Keeping(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n.name in sources:
                kept[n.name] = value.clone()  # a rectifier in place would write over it
            return value

    Keeping(network.graph_module).run(images.to(memory_format=torch.channels_last) if images.ndim == 4 else images)
    return {name: kept[network.node(node).all_input_nodes[0].name] for name, node in network.site_nodes.items()}
