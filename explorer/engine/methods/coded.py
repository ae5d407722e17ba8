"""Neurons that send one coded value per image: the network's graph with a code in place of every rectifier.

Where a neuron waits for its whole input before it sends, the steps in between change nothing: the value that arrives is
the mean current, and what is sent is a code of it. Run in float64, so that nothing depends on batch, chunk or threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from explorer.engine.analysis import ErrorParts, Membrane
from explorer.engine.compile.plan import StepKind, plan_for
from explorer.engine.compile.values import attribute, call, on_device
from explorer.engine.errors import Cancelled
from explorer.engine.graph import Network, Site
from explorer.engine.methods.fitted import Ask, Fitted, Outcome, Stop
from explorer.engine.methods.watched import Watched
from explorer.engine.simulation.keys import image_keys
from explorer.engine.simulation.simulate import backend_for
from explorer.engine.simulation.store import SpikeStore
from explorer.engine.specs import SimulationSpec
from explorer.engine.synapses import additions, pool

CODED_IMAGES = 32
Code = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
Sending = Callable[[Tensor], tuple[Tensor, Tensor]]
Values = dict[str, Tensor]


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


def depths(network: Network) -> dict[str, int]:
    """Return of each site how many lie one behind the other up to it, itself included, on the longest way."""
    found: dict[str, int] = {}
    sites: dict[str, int] = {}
    for step in plan_for(network, True).steps:
        before = max((found[source] for source in step.sources), default=0)
        found[step.node.name] = before + (step.kind is StepKind.SITE)
        if step.kind is StepKind.SITE:
            sites[step.name] = found[step.node.name]
    return sites


def depth(network: Network) -> int:
    """Return how many sites lie one behind the other, on the longest way."""
    return max(depths(network).values(), default=0)


@dataclass(frozen=True, eq=False)
class Coded(Fitted):
    """A conversion whose neurons wait for their whole input, then send a code of it.

    code(x, v, theta): what arrives at the next layer, as a mean current, and how many spikes say so; x: the mean
    current, v: v(0), float64 [B, *site], theta: thresholds [*site], all in activation units. sending(n): which of a
    neuron's T sending steps hold a spike if it sends the n-th level, bool [T, ...], and what levels they stand for,
    [T]; levels: how many there are. sent_bits: bits a neuron may send in a step. before, after: what is added to each
    site's current and to what it sends, float64, broadcastable to [*site]; empty: nothing.
    """

    code: Code = field(kw_only=True)
    sending: Sending = field(kw_only=True)
    levels: int = field(kw_only=True)
    sent_bits: int = field(default=1, kw_only=True)
    before: Mapping[str, Tensor] = field(default_factory=dict, kw_only=True)
    after: Mapping[str, Tensor] = field(default_factory=dict, kw_only=True)

    @property
    def answers_from(self) -> int:
        """The last step: all of it is needed."""
        return self.T

    @property
    def bits(self) -> int:
        """Bits that tell what one neuron sends in one step."""
        return self.sent_bits

    def _chunks(self, images: Tensor, spec: SimulationSpec, ask: Ask) -> Iterator[Outcome]:
        images = images.detach().float().cpu()
        self.network.check_images(images)
        where = backend_for(spec.device).device
        network = on_device(self.network, where)
        size = spec.chunk or CODED_IMAGES
        for i in range(0, len(images), size):
            if ask.stop is not None and ask.stop():
                raise Cancelled("The run was stopped.")
            yield self._coded(ask, network, images[i : i + size].contiguous(), where)

    def _watched(self, images: Tensor, spec: SimulationSpec, store: SpikeStore | None, stop: Stop) -> Watched:
        where = backend_for(spec.device).device
        logits, spikes, values, currents = self._pass(on_device(self.network, where), images, where)
        return WatchedCode(
            self.network, self.snn, images, self.T, logits, spikes, code=self, values=values, currents=currents
        )

    def together(self, images: int, device: str = "auto") -> int:
        """See `Fitted`."""
        return min(images, CODED_IMAGES)

    def _pass(self, network: Network, images: Tensor, where: torch.device) -> tuple[Tensor, Values, Values, Values]:
        """Return scores [T, B, K], and by site spikes sent, values sent and mean currents, all on the CPU."""
        keys, spikes, values, currents = image_keys(images), {}, {}, {}

        def code(site: Site, x: Tensor) -> Tensor:
            v = self.snn.initial_potential(site, keys).to(where, torch.float64)
            theta = self.snn.theta[site.name].to(x.device, x.dtype)
            x = x + self.before[site.name].to(x.device) if self.before else x
            value, sent = self.code(x, v, theta)
            spikes[site.name], values[site.name], currents[site.name] = sent.cpu(), value.cpu(), x.cpu()
            return value + self.after[site.name].to(x.device) if self.after else value

        scores = site_run(network, images.to(where), code, double=True).float().cpu()
        logits = torch.full((self.T, *scores.shape), torch.nan)
        logits[-1] = scores
        return logits, spikes, values, currents

    def _coded(self, ask: Ask, network: Network, images: Tensor, where: torch.device) -> Outcome:
        begin = time.perf_counter()
        logits, counts, values, _ = self._pass(network, images, where)
        counted = additions(self.network, counts, self._pooled(values)) if ask.additions else {}
        added = {name: torch.full((len(images),), n, dtype=torch.float64) for name, n in counted.items()}
        sent = {name: n.flatten(1).sum(1).double() for name, n in counts.items()}
        return Outcome(logits, sent, added, time.perf_counter() - begin)

    def _pooled(self, values: Values) -> Values:
        """Return how many spikes each max pool passes on, [B, ...]: as many as say its largest level."""
        steps, n, sent = plan_for(self.network, True).steps, {}, {}
        if all(step.kind is not StepKind.MAX_POOL for step in steps):
            return {}
        for step in steps:
            if step.kind is StepKind.SITE:
                n[step.node.name] = values[step.name] / self.snn.theta[step.name].double() * self.levels
            elif step.kind is StepKind.MAX_POOL:
                n[step.node.name] = pool(self.network, step, n[step.sources[0]])
                sent[step.name] = self.sending(n[step.node.name].round())[0].sum(0)
        return sent


@dataclass(frozen=True, eq=False)
class WatchedCode(Watched):
    """Coded values seen closely. values, currents: what each neuron sent, and its mean current, float64 [B, *site]."""

    code: Coded = field(kw_only=True)
    values: Values = field(kw_only=True)
    currents: Values = field(kw_only=True)

    def sent(self, site: str) -> Tensor:
        """Return how many theta / T a neuron sent, whatever its spikes say, float64 [B, *site]."""
        return self.values[site] * self.T / self.snn.theta[site].double()

    def v_end(self, site: str) -> Tensor:
        """Return what of the charge v(0) + T x was not sent, float64 [B, *site]."""
        return self._start(site, self.images) + self.T * (self.currents[site] - self.values[site])

    def _start(self, site: str, images: Tensor) -> Tensor:
        """Return v(0) as charge of T steps: it is a share of one level, of which there may be more than T."""
        v = self.snn.initial_potential(self.snn.network.site(site), image_keys(images)).double()
        return v * self.T / self.code.levels

    def error_parts(self, site: str) -> ErrorParts:
        """See `Watched`: the value is the staircase of the mean current, so nothing is uneven."""
        a = self.ann.activations(self.images, (site,))[site].double()
        theta, added = self.snn.theta[site].double()[None], self.code.after.get(site, 0.0)
        came = self.currents[site] - self.code.before.get(site, 0.0)
        value = self.values[site] + added
        return ErrorParts.split(a, value, came, value, theta + added)

    def membrane(self, site: str, neuron: int) -> Membrane:
        """Return the T steps in which a neuron sends, after T in which it has taken in its whole input.

        Its potential starts at v(0) + T x, and each spike takes off what it stands for.
        """
        at, T = self.flat(site, neuron), self.T
        x, theta, value = at(self.currents[site]), at(self.snn.theta[site]), at(self.values[site])
        start = at(self._start(site, self.images[:1]))
        fires, worth = self.code.sending(torch.tensor(round(value / theta * self.code.levels)))
        z = fires.reshape(T)
        taken = (z * worth).double().cumsum(0) * T / self.code.levels  # in thetas
        full = start + T * x
        v = full - theta * taken
        before = torch.cat([torch.tensor([full], dtype=torch.float64), v[:-1]])
        a = at(self.ann.activations(self.images[:1], (site,))[site])
        added = self.code.after.get(site)
        decoded = theta * taken / T + (0.0 if added is None else at(added))
        current = torch.full((T,), x)
        return Membrane(
            current, before.float(), v.float(), z.to(torch.int8), theta, full, a, decoded.float(), sends_later=True
        )

    def rasters(self, sites: Sequence[str], neurons: int) -> dict[str, Tensor]:
        """See `Watched`."""
        shown = {}
        for site in sites:
            value = self.values[site].flatten(1)
            chosen = torch.linspace(0, value.shape[1] - 1, min(neurons, value.shape[1])).round().long()
            theta = torch.broadcast_to(self.snn.theta[site].double()[None], self.values[site].shape).flatten(1)
            n = (value / theta * self.code.levels).round()[:, chosen]
            shown[site] = self.code.sending(n)[0].to(torch.int8)
        return shown


def one_after_another(T: int) -> Sending:
    """Return the sending of n levels as n spikes in the first n of T steps."""
    steps = torch.arange(T)

    def sending(n: Tensor) -> tuple[Tensor, Tensor]:
        return steps.reshape(-1, *(1,) * n.ndim) < n, torch.ones(T)

    return sending


def levels(x: Tensor, v: Tensor, theta: Tensor, N: int, most: int) -> Tensor:
    """Return n = clip(floor((N x + v(0)) / theta), 0, most), float64."""
    return torch.floor((N * x + v) / theta.to(x.device, x.dtype)).clamp(0, most)
