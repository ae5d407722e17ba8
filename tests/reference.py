"""The slow, obvious reference: one step after the other, one neuron after the other, in float64."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx

from explorer.engine import Network, SpikingNetwork


def if_neuron(x: list[float], theta: float, v: float) -> tuple[list[int], list[float]]:
    """One soft-reset integrate-and-fire neuron: spikes and potentials after the reset, step by step."""
    spikes, potentials = [], []
    for current in x:
        v = v + current
        z = 1 if v >= theta else 0
        v = v - theta * z
        spikes.append(z)
        potentials.append(v)
    return spikes, potentials


class _OneStep(fx.Interpreter):
    """One time-step of a whole network: rectifiers become neurons, max pools see the spikes so far."""

    def __init__(
        self, module: fx.GraphModule, network: Network, theta: dict, v: dict, sums: dict, counts: dict
    ) -> None:
        super().__init__(module)
        self.network, self.theta, self.v, self.sums, self.counts = network, theta, v, sums, counts
        self.sites = {node: name for name, node in network.site_nodes.items()}

    def run_node(self, n: fx.Node):
        if n.name in self.sites:
            name = self.sites[n.name]
            (x,) = self.map_nodes_to_values((n.all_input_nodes[0],), n)
            v = self.v[name] + x
            z = (v >= self.theta[name]).to(v.dtype)
            self.v[name] = v - self.theta[name] * z
            self.counts[name] = self.counts.get(name, 0) + z
            return self.theta[name] * z
        if self.network.kinds[n.name] == "max_pool":
            (x,) = self.map_nodes_to_values((n.all_input_nodes[0],), n)
            before = self.sums.get(n.name, torch.zeros_like(x))
            self.sums[n.name] = before + x
            rest = self.map_nodes_to_values(tuple(n.args[1:]), n)
            module = self.module.get_submodule(n.target) if n.op == "call_module" else None
            pool = module or (lambda value: n.target(value, *rest, **n.kwargs))
            return pool(self.sums[n.name]) - pool(before)
        return super().run_node(n)


@torch.no_grad()
def simulate_reference(snn: SpikingNetwork, images: Tensor, T: int) -> tuple[Tensor, dict, dict]:
    """Run a spiking network step by step in float64: class scores [T, B, K], counts and final potentials by site.

    Every site must start at a constant share of its threshold.
    """
    network = snn.network
    module = copy.deepcopy(network.graph_module).double()
    theta = {name: value.double()[None] for name, value in snn.theta.items()}
    v = {
        site.name: torch.broadcast_to(
            (theta[site.name] * snn.v_init[site.name].value), (len(images), *site.shape)
        ).clone()
        for site in network.sites
    }
    sums, counts, total, scores = {}, {}, 0.0, []
    for t in range(1, T + 1):
        current = _OneStep(module, network, theta, v, sums, counts).run(images.double())
        total = total + current
        scores.append(total / t)
    return torch.stack(scores), counts, v


@torch.no_grad()
def simulate_float32_loop(snn: SpikingNetwork, images: Tensor, T: int) -> dict:
    """Run the usual step loop in float32, for comparison: counts by site."""
    network = snn.network
    counts: dict = {}
    theta = {name: value[None] for name, value in snn.theta.items()}
    v = {
        site.name: torch.broadcast_to(
            (theta[site.name] * snn.v_init[site.name].value), (len(images), *site.shape)
        ).clone()
        for site in network.sites
    }
    sums: dict = {}
    step = _OneStep(copy.deepcopy(network.graph_module), network, theta, v, sums, counts)
    for _ in range(T):
        step.run(images)
    return counts
