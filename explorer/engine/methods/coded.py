"""Neurons that send one coded value per image: the network's graph with a code in place of every rectifier.

Where a neuron waits for its whole input before it sends, the steps in between change nothing: the value that arrives is
the mean current, and what is sent is a code of it. Run in float64, so that nothing depends on batch, chunk or threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from explorer.engine.compile.plan import StepKind, plan_for
from explorer.engine.compile.values import attribute, call, on_device
from explorer.engine.errors import Cancelled
from explorer.engine.graph import Network, Site
from explorer.engine.methods.fitted import Fitted, Outcome, Stop
from explorer.engine.simulation.keys import image_keys
from explorer.engine.simulation.simulate import backend_for
from explorer.engine.simulation.store import SpikeStore
from explorer.engine.specs import SimulationSpec
from explorer.engine.synapses import additions

CODED_IMAGES = 32
Code = Callable[[Site, Tensor, Tensor], tuple[Tensor, Tensor]]


@torch.no_grad()
def site_run(network: Network, images: Tensor, code: Callable[[Site, Tensor], Tensor], double: bool = False) -> Tensor:
    """Run a network with `code(site, x)` in place of each rectifier: [B, C, H, W] -> [B, K].

    double: float64 throughout.
    """
    sites = {network.site_nodes[site.name]: site for site in network.sites}

    class Running(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            if n.name in sites:
                return code(sites[n.name], self.env[n.all_input_nodes[0]])
            if n.op in ("placeholder", "output") or not double:
                return super().run_node(n)
            if n.op == "get_attr":
                value = attribute(network, n)
                return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            return call(network, n, args, kwargs, double=True)

    return Running(network.graph_module).run(images.double() if double else images)


def depth(network: Network) -> int:
    """Return how many sites lie one behind the other, on the longest way."""
    found: dict[str, int] = {}
    for step in plan_for(network, True).steps:
        before = max((found[source] for source in step.sources), default=0)
        found[step.node.name] = before + (step.kind is StepKind.SITE)
    return max(found.values(), default=0)


@dataclass(frozen=True, eq=False)
class Coded(Fitted):
    """A conversion whose neurons wait for their whole input, then send a code of it.

    code(site, x, v): what arrives at the next layer, as a mean current, and how many spikes say so; x: the mean
    current, v: v(0), float64 [B, *site], activation units. sent_bits: bits a neuron may send in a step.
    """

    code: Code = field(kw_only=True)
    sent_bits: int = field(default=1, kw_only=True)

    @property
    def bits(self) -> int:
        """Bits that tell what one neuron sends in one step."""
        return self.sent_bits

    def _chunks(self, images: Tensor, spec: SimulationSpec, store: SpikeStore | None, stop: Stop) -> Iterator[Outcome]:
        images = images.detach().float().cpu()
        self.network.check_images(images)
        where = backend_for(spec.device).device
        network = on_device(self.network, where)
        size = spec.chunk or CODED_IMAGES
        for i in range(0, len(images), size):
            if stop is not None and stop():
                raise Cancelled("The run was stopped.")
            yield self._coded(network, images[i : i + size].contiguous(), where)

    def _coded(self, network: Network, images: Tensor, where: torch.device) -> Outcome:
        begin, keys, spikes = time.perf_counter(), image_keys(images), {}

        def code(site: Site, x: Tensor) -> Tensor:
            v = self.snn.initial_potential(site, keys).to(where, torch.float64)
            value, spikes[site.name] = self.code(site, x, v)
            return value

        scores = site_run(network, images.to(where), code, double=True).float().cpu()
        counts = {name: n.cpu() for name, n in spikes.items()}
        logits = torch.full((self.T, *scores.shape), torch.nan)
        logits[-1] = scores
        added = torch.full((len(images),), sum(additions(self.network, counts).values()), dtype=torch.float64)
        sent = {name: n.flatten(1).sum(1).double() for name, n in counts.items()}
        return Outcome(logits, sent, added, time.perf_counter() - begin)


def levels(x: Tensor, v: Tensor, theta: Tensor, N: int, most: int) -> Tensor:
    """Return n = clip(floor((N x + v(0)) / theta), 0, most), float64."""
    return torch.floor((N * x + v) / theta.to(x.device, x.dtype)).clamp(0, most)
