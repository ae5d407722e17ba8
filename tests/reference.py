"""The slow, obvious reference: one step after the other, one neuron after the other, in float64."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx

from explorer.engine import SpikingNetwork


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


def signed_neuron(x: list[float], theta: float, v: float, low: float) -> tuple[list[int], list[float]]:
    """A neuron that takes spikes back: at or below -theta if low is -theta, strictly below 0 if low is 0."""
    spikes, potentials, sent = [], [], 0
    for current in x:
        v = v + current
        z = 0
        if v >= theta:
            z = 1
        elif sent > 0 and (v <= low if low < 0 else v < 0):
            z = -1
        v = v - theta * z
        sent += z
        spikes.append(z)
        potentials.append(v)
    return spikes, potentials


def burst_neuron(x: list[float], theta: float, v: float, most: int) -> tuple[list[int], list[float]]:
    """A neuron that sends as many spikes at once as its charge is worth, up to so many."""
    spikes, potentials = [], []
    for current in x:
        v = v + current
        n = sum(v >= k * theta for k in range(1, most + 1))
        v = v - n * theta
        spikes.append(n)
        potentials.append(v)
    return spikes, potentials


def several_thresholds_neuron(x: list[float], theta: float, v: float, count: int) -> tuple[list[int], list[float]]:
    """A signed neuron with thresholds theta, 2 theta, ...: the largest fires of which 3/4 are there."""
    spikes, potentials, sent = [], [], 0
    for current in x:
        v = v + current
        n = 0
        for k in range(count):
            if v >= 0.75 * theta * 2**k:
                n = 2**k
            elif v <= -0.75 * theta * 2**k and sent >= 2**k:
                n = -(2**k)
        v = v - n * theta
        sent += n
        spikes.append(n)
        potentials.append(v)
    return spikes, potentials


NEURONS = {
    "integrate_and_fire": if_neuron,
    "signed": lambda x, theta, v: signed_neuron(x, theta, v, -theta),
    "signed_at_zero": lambda x, theta, v: signed_neuron(x, theta, v, 0.0),
    "burst_2": lambda x, theta, v: burst_neuron(x, theta, v, 2),
    "burst_3": lambda x, theta, v: burst_neuron(x, theta, v, 3),
    "burst_4": lambda x, theta, v: burst_neuron(x, theta, v, 4),
    "burst_5": lambda x, theta, v: burst_neuron(x, theta, v, 5),
    "thresholds_2": lambda x, theta, v: several_thresholds_neuron(x, theta, v, 2),
    "thresholds_3": lambda x, theta, v: several_thresholds_neuron(x, theta, v, 3),
    "thresholds_4": lambda x, theta, v: several_thresholds_neuron(x, theta, v, 4),
}


def spikes_of(law: str, v: Tensor, sent: Tensor, theta: Tensor) -> Tensor:
    """What each neuron sends in one step, given its potential after the charge and what it has sent."""
    z = (v >= theta).to(v.dtype)
    if law.startswith("burst_"):
        return torch.floor(v / theta).clamp(0, int(law[-1]))
    if law.startswith("thresholds_"):
        return nearest_threshold(v / theta, sent, int(law[-1]))
    match law:
        case "signed":
            z = z - ((v <= -theta) & (sent > 0)).to(v.dtype)
        case "signed_at_zero":
            z = z - ((v < 0) & (sent > 0)).to(v.dtype)
    return z


def nearest_threshold(share: Tensor, sent: Tensor, count: int) -> Tensor:
    """The signed power of two, below 2^count, that fires at this potential (in thetas), with so much sent."""
    n = torch.zeros_like(share)
    for k in range(count):
        n = torch.where(share >= 0.75 * 2**k, 2.0**k, n)
        n = torch.where((share <= -0.75 * 2**k) & (sent >= 2**k - 1e-3), -(2.0**k), n)
    return n


class _OneStep(fx.Interpreter):
    """Time-step t of a whole network: rectifiers become neurons, max pools see the spikes so far."""

    def __init__(
        self, module: fx.GraphModule, snn: SpikingNetwork, v: dict, sums: dict, counts: dict, t: int, kind: torch.dtype
    ) -> None:
        super().__init__(module)
        self.network, self.snn, self.v, self.sums, self.counts, self.t, self.kind = (
            *(snn.network, snn, v, sums, counts, t, kind),
        )
        self.sites = {node: name for name, node in snn.network.site_nodes.items()}

    def run_node(self, n: fx.Node):
        if n.name in self.sites:
            name = self.sites[n.name]
            own, site = self.snn.neurons[name], self.network.site(name)
            (x,) = self.map_nodes_to_values((n.all_input_nodes[0],), n)
            if own.shift is not None:
                x = x + (own.shift[self.t] if own.timed(site) else own.shift).to(self.kind)
            theta = own.theta.to(self.kind)
            v = self.v[name] + x
            z = spikes_of(own.law.name, v, self.counts.get(name, torch.zeros_like(v)), theta)
            self.v[name] = v - theta * z
            self.counts[name] = self.counts.get(name, 0) + z
            sent = z if own.gate is None else z * own.gate
            return (theta if own.amplitude is None else own.amplitude.to(self.kind)) * sent
        if self.network.kinds[n.name] == "max_pool":
            (x,) = self.map_nodes_to_values((n.all_input_nodes[0],), n)
            before = self.sums.get(n.name, torch.zeros_like(x))
            self.sums[n.name] = before + x
            rest = self.map_nodes_to_values(tuple(n.args[1:]), n)
            module = self.module.get_submodule(n.target) if n.op == "call_module" else None
            pool = module or (lambda value: n.target(value, *rest, **n.kwargs))
            return pool(self.sums[n.name]) - pool(before)
        return super().run_node(n)


def _start(snn: SpikingNetwork, images: int, kind: torch.dtype) -> dict:
    """Return v(0) by site; every site must start at a constant share of its threshold, or at given shares."""
    v = {}
    for site in snn.network.sites:
        own = snn.neurons[site.name]
        share = own.start if isinstance(own.start, Tensor) else torch.tensor(own.start.value)
        v[site.name] = torch.broadcast_to(own.theta.to(kind) * share.to(kind), (images, *site.shape)).clone()
    return v


@torch.no_grad()
def simulate_reference(snn: SpikingNetwork, images: Tensor, T: int) -> tuple[Tensor, dict, dict]:
    """Run a spiking network step by step in float64: class scores [T, B, K], counts and final potentials by site."""
    module = copy.deepcopy(snn.network.graph_module).double()
    v = _start(snn, len(images), torch.float64)
    sums, counts, total, scores = {}, {}, 0.0, []
    for t in range(T):
        current = _OneStep(module, snn, v, sums, counts, t, torch.float64).run(images.double())
        total = total + current
        scores.append(total / (t + 1))
    return torch.stack(scores), counts, v


@torch.no_grad()
def simulate_float32_loop(snn: SpikingNetwork, images: Tensor, T: int) -> dict:
    """Run the usual step loop in float32, for comparison: counts by site."""
    v = _start(snn, len(images), torch.float32)
    sums, counts = {}, {}
    module = copy.deepcopy(snn.network.graph_module)
    for t in range(T):
        _OneStep(module, snn, v, sums, counts, t, torch.float32).run(images)
    return counts


@torch.no_grad()
def simulate_differential(snn: SpikingNetwork, images: Tensor, T: int, count: int) -> tuple[Tensor, dict]:
    """Differential coding as its paper writes it, in float64: class scores [T, B, K] and the sums of what was sent.

    A pass with nothing at the input and no spikes gives every b; the image comes in step 1 and nothing after it.
    """
    module = copy.deepcopy(snn.network.graph_module).double()
    sites = {node: name for name, node in snn.network.site_nodes.items()}
    b, v, r_in, r_out, counts, owed = {}, {}, {}, {}, {}, {}
    start = _start(snn, len(images), torch.float64)

    class Pass(fx.Interpreter):
        def __init__(self, t: int) -> None:
            super().__init__(module)
            self.t = t

        def run_node(self, n: fx.Node):
            if n.name not in sites:
                return super().run_node(n)
            name, (x,) = sites[n.name], self.map_nodes_to_values((n.all_input_nodes[0],), n)
            if self.t == 0:
                b[name], r_in[name], r_out[name], v[name] = x, x, torch.zeros_like(x), start[name]
                counts[name], owed[name] = torch.zeros_like(x), torch.zeros_like(x)
                return torch.zeros_like(x)
            theta = snn.theta[name].double()
            v[name] = v[name] + (x - b[name]) + r_in[name] - r_out[name]
            owed[name] = owed[name] + r_out[name]
            n_sent = nearest_threshold(v[name] / theta, owed[name] / theta, count)
            s = n_sent * theta
            v[name], owed[name], counts[name] = v[name] - s, owed[name] + s, counts[name] + n_sent
            r_in[name] = r_in[name] + (x - b[name]) / self.t
            r_out[name] = r_out[name] + s / self.t
            return s

    nothing = torch.zeros_like(images.double())
    silent = Pass(0).run(nothing)
    mean, scores = silent, []
    for t in range(1, T + 1):
        mean = mean + (Pass(t).run(images.double() if t == 1 else nothing) - silent) / t
        scores.append(mean)
    return torch.stack(scores), counts
