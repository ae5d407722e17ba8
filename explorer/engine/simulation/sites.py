"""What the neurons of a network's sites are, laid out as a back end wants them, for one chunk of images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from explorer.engine.compile.layout import padded, to_pixels
from explorer.engine.compile.plan import Plan, Step, StepKind
from explorer.engine.conversion import SpikingNetwork
from explorer.engine.errors import SpecError
from explorer.engine.graph import Network
from explorer.engine.kernels.protocol import Constant
from explorer.engine.kernels.reference import pack_bits
from explorer.engine.neurons import Law


class SiteValues:
    """Laws, thresholds, starts, shifts, gates and what spikes are worth, by step or by the node that sends them on."""

    def __init__(self, snn: SpikingNetwork, network: Network, plan: Plan, image_keys: list[bytes]) -> None:
        self.neurons, self.network, self.plan, self.image_keys = snn.neurons, network, plan, image_keys
        self._worths: dict[str, np.ndarray] = {}

    def path(self, step: Step) -> str:
        """Name the path that runs here: sums of integers, unless a source's spikes differ in worth within a channel."""
        spread = any(self._spread(source) for source in step.sources)
        return "float" if spread and step.kind is not StepKind.MAX_POOL else step.path

    def law(self, node: str) -> Law:
        """Return the law whose spikes a node sends.

        Raises:
            SpecError: the node is a max pool that cannot pass them on.
        """
        site, step = self._site_of(node), self.plan.by_node[node]
        law = self.neurons[site.name].law
        if step is not site and law.planes not in ((1,), (1, -1)):
            raise SpecError(
                f"{step.name}: a max pool passes spikes of -1, 0 and 1 alone, not those of the law {law.name}. Choose "
                "another law, or a network with average pools."
            )
        return law

    def worth(self, node: str) -> np.ndarray:
        """Return what a spike is worth, float64 [C], or [*shape] where it differs within a channel.

        Raises:
            SpecError: it differs within a channel, and the node is a max pool.
        """
        if node not in self._worths:
            self._worths[node] = self._worth(node)
        return self._worths[node]

    def theta(self, step: Step) -> Tensor:
        """Return thresholds, float32 [C] or [pixel, C]; infinite where there is no neuron."""
        return self._levels(step, self.neurons[step.name].theta, np.inf)

    def start(self, step: Step) -> Tensor:
        """Return v(0), float32 [B, pixel, C]."""
        site = self.network.site(step.name)
        v = self.neurons[step.name].initial_potential(site, self.image_keys)
        return to_pixels(torch.broadcast_to(v, (len(self.image_keys), *site.shape)))

    def shift(self, step: Step, t0: int, t1: int) -> Constant | None:
        """Return what a site's neurons get besides in the steps (t0, t1], or None."""
        own, images = self.neurons.get(step.name), len(self.image_keys)
        if own is None or own.shift is None:
            return None
        if not own.timed(self.network.site(step.name)):
            levels = self._levels(step, own.shift, 0.0)
            return Constant(levels if levels.ndim == 1 else levels.expand(images, -1, -1))
        levels = torch.stack([self._levels(step, one, 0.0) for one in own.shift[t0:t1]])
        if levels.ndim == 2:
            return Constant(levels, timed=True)
        return Constant(levels.transpose(0, 1).expand(images, -1, -1, -1), timed=True)

    def gate(self, step: Step) -> np.ndarray | None:
        """Return which neurons may send, as bits: uint8 [pixel, C / 8], or [B, pixel, C / 8]; None: all."""
        gate, shape = self.neurons[step.name].gate, self.network.shapes[step.node.name]
        if gate is None:
            return None
        by_image = gate.ndim > len(shape)
        whole = torch.broadcast_to(gate, (len(self.image_keys) if by_image else 1, *shape))
        bits = pack_bits(to_pixels(whole.float()).bool()).numpy()
        return bits if by_image else bits[0]

    def _site_of(self, node: str) -> Step:
        """Return the site whose spikes a node sends on."""
        step = self.plan.by_node[node]
        while step.kind is StepKind.MAX_POOL:
            step = self.plan.by_node[step.sources[0]]
        return step

    def _spread(self, node: str) -> bool:
        """Tell whether a spike's worth differs within a channel."""
        site = self._site_of(node)
        return not _one_a_channel(self.neurons[site.name].worth, self.network.shapes[site.node.name])

    def _worth(self, node: str) -> np.ndarray:
        site = self._site_of(node)
        shape = self.network.shapes[site.node.name]
        worth = self.neurons[site.name].worth
        if _one_a_channel(worth, shape):
            return np.broadcast_to(worth.double().numpy().reshape(-1), shape[:1]).copy()
        if self.plan.by_node[node] is not site:
            raise SpecError(
                f"{node}: behind a max pool a spike must be worth the same in a whole channel. Choose thresholds per "
                f"channel or per layer for {site.name}."
            )
        return np.broadcast_to(worth.double().numpy(), shape).copy()

    def _levels(self, step: Step, value: Tensor, fill: float) -> Tensor:
        """Lay a value broadcastable to [*site] out by stored channel: [C], or [pixel, C] where it differs by place."""
        shape = self.network.shapes[step.node.name]
        if _one_a_channel(value, shape):
            levels = torch.full((padded(shape[0]),), fill)
            levels[: shape[0]] = value.reshape(-1)
            return levels
        return to_pixels(torch.broadcast_to(value, shape)[None], fill)[0]


def _one_a_channel(value: Tensor, shape: tuple[int, ...]) -> bool:
    """Tell whether a value broadcastable to a shape [C, ...] is the same all over a channel."""
    return value.numel() in (1, shape[0]) and (value.ndim < 2 or value[0].numel() == 1)
