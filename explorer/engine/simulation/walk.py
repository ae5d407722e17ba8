"""One chunk of images through all layers, on any back end: what is kept is taken, the rest is computed.

A walk knows trains, states and counts by name only; what they are is the back end's matter (`kernels.protocol`).
Each is known by what it is, the step it belongs to, and the block of time-steps (t0, t1] that it covers. A block is
asked for, what it needs is asked for in turn, and what nobody kept is then computed in the order of time and layers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from explorer.engine.compile.layout import from_pixels, to_pixels
from explorer.engine.compile.plan import Plan, Step, StepKind, plan_for, weights_for
from explorer.engine.compile.pools import pool_window
from explorer.engine.compile.values import StaticValues, TimedValues, on_device
from explorer.engine.conversion import SpikingNetwork
from explorer.engine.errors import Cancelled
from explorer.engine.kernels.protocol import Array, Backend, Constant, Current, Given, Taps
from explorer.engine.simulation.keys import image_keys, joined, step_digests
from explorer.engine.simulation.result import Simulation
from explorer.engine.simulation.sites import SiteValues
from explorer.engine.simulation.store import SpikeStore
from explorer.engine.specs import SimulationSpec

BLOCK = 32
What = Literal["train", "state", "total", "scores"]


class Walk:
    """The computation of one chunk of images [B, C, H, W], float32 on the host."""

    def __init__(
        self,
        snn: SpikingNetwork,
        images: Tensor,
        spec: SimulationSpec,
        store: SpikeStore | None,
        stop: Callable[[], bool] | None,
        backend: Backend,
    ) -> None:
        self.snn, self.images, self.spec, self.backend = snn, images, spec, backend
        self.network = on_device(snn.network, backend.device)
        self.plan: Plan = plan_for(snn.network, spec.integer)
        self.store, self.stop = store, stop
        self.local: dict[tuple, Array] = {}
        self.static = StaticValues(self.network, images.to(backend.device))
        self.image_keys = image_keys(images)
        self.images_key = joined(self.image_keys)
        self.sites = SiteValues(snn, self.network, self.plan, self.image_keys)
        self.digests = step_digests(snn, self.plan, f"{spec.integer}/{backend.precision}")
        edge = spec.T if self.plan.one_block else BLOCK
        self.blocks = [(t, min(t + edge, spec.T)) for t in range(0, spec.T, edge)]
        for step in self.plan.sites:
            if snn.neurons[step.name].special:
                snn.neurons[step.name].check(snn.network.site(step.name), spec.T, len(images))

    # What is asked for

    def simulation(self) -> Simulation:
        """Compute everything the record asks for."""
        begin, record, sites = time.perf_counter(), self.spec.record, self.plan.sites
        wanted: list[tuple[What, Step]] = [("scores", self.plan.readout), *(("total", step) for step in sites)]
        wanted += [("train", step) for step in sites] if record.counts else []
        wanted += [("state", step) for step in sites] if record.v_end else []
        pools = [step for step in self.plan.steps if step.kind is StepKind.MAX_POOL] if record.counts else []
        pools = [step for step in pools if min(self.sites.law(step.node.name).planes) < 0]  # spikes are taken back
        wanted += [("train", step) for step in pools]
        counts: dict[str, Array] = {}
        sent: dict[str, Array] = {}
        scores, totals = [], dict.fromkeys((step.name for step in sites), 0)
        for block in self.blocks:
            self._compute_block(wanted, *block)
            scores.append(self._take("scores", self.plan.readout, *block))
            for step in sites:
                totals[step.name] += int(self._take("total", step, *block)[0])
                if record.counts:
                    self._count(step, block, counts, sent)
            for step in pools:
                self._count(step, block, {}, sent)
        means = self._means(np.concatenate(scores, 1).astype(np.float64))
        return Simulation(
            T=self.spec.T,
            logits=torch.from_numpy(means.transpose(1, 0, 2).astype(np.float32)),
            counts={step.name: self._of_site(step, counts[step.name]) for step in sites if record.counts},
            sent={step.name: self._of_site(step, sent[step.name]) for step in sites if record.counts},
            pooled={step.name: self._of_site(step, sent[step.name]) for step in pools},
            v_end={step.name: self._potential(step) for step in sites if record.v_end},
            **self.recorded(),
            spike_totals=totals,
            seconds=time.perf_counter() - begin,
            paths={step.name: self.sites.path(step) for step in sites},
        )

    def _means(self, x: np.ndarray) -> np.ndarray:
        """Return the scores after each step, given the current x of each, both [B, T, K]."""
        return np.cumsum(x, 1) / np.arange(1, self.spec.T + 1)[None, :, None]

    def _count(self, step: Step, block: tuple[int, int], counts: dict[str, Array], sent: dict[str, Array]) -> None:
        """Add a block's spikes to what was counted, and to how many were sent at all."""
        train, planes = self._take("train", step, *block), self.sites.law(step.node.name).planes
        counts[step.name] = self.backend.count(train, planes, counts.get(step.name))
        if planes == (1,):
            sent[step.name] = counts[step.name]
        else:
            sent[step.name] = self.backend.count(train, (1,) * len(planes), sent.get(step.name))

    def _of_site(self, step: Step, value: Array) -> Tensor:
        array = self.backend.release(value)
        kept = not array.flags.writeable  # in the store: a result of one's own is a copy
        return from_pixels(torch.from_numpy(array.copy() if kept else array), self.network.shapes[step.node.name])

    def _potential(self, step: Step) -> Tensor:
        return self._of_site(step, self._take("state", step, *self.blocks[-1])[0])

    def recorded(self) -> dict[str, dict[str, Tensor]]:
        """Return spikes, potentials, currents and neurons of the recorded sites."""
        result: dict[str, dict[str, Tensor]] = {"spikes": {}, "v": {}, "x": {}, "neurons": {}}
        for name in self.spec.record.sites:
            total = self.network.site(name).neurons
            match self.spec.record.neurons:
                case None:
                    chosen = torch.arange(total)
                case int(n):
                    chosen = torch.linspace(0, total - 1, min(n, total)).round().long()
                case indices:
                    chosen = torch.tensor(indices)
            told = dict(zip(("x", "v", "spikes"), self.membranes(name, chosen), strict=True))
            for what, value in {**told, "neurons": chosen}.items():
                result[what][name] = value
        return result

    def current(self, site: str, neurons: Tensor | None = None) -> Tensor:
        """Return what arrives at a site in each step, shift included: [T, B, *site], or [T, B, n] of chosen neurons."""
        step, where = self.plan.by_name[site], self.network.site(site)
        parts = []
        for block in self.blocks:
            self._compute_block([("train", self.plan.by_node[s]) for s in step.sources], *block)
            values = self.backend.values(self._current(step, *block), len(self.images), block[1] - block[0])
            x = from_pixels(values.cpu().permute(2, 0, 1, 3), where.shape)
            parts.append(x if neurons is None else x.flatten(2)[:, :, neurons])
        return torch.cat(parts)

    def mean_value(self, step: str, node: str) -> Tensor:
        """Return the mean over all steps of the value of a node on the way to a step, float32 [B, ...].

        Only where what lies between the step's sources and the node is linear in them.
        """
        sources = [self.plan.by_node[source] for source in self.plan.by_name[step].sources]
        for block in self.blocks:
            self._compute_block([("train", source) for source in sources], *block)

        def decoded(name: str) -> Tensor:
            source, counts = self.plan.by_node[name], None
            for block in self.blocks:
                counts = self.backend.count(self._take("train", source, *block), self.sites.law(name).planes, counts)
            n = from_pixels(torch.from_numpy(self.backend.release(counts)), self.network.shapes[name]).double()
            worth = torch.from_numpy(self.sites.worth(name)).reshape(-1, *(1,) * (n.ndim - 2))
            return ((n * worth) / self.spec.T).float().to(self.backend.device)

        known = self.plan.by_node.__contains__
        values = TimedValues(self.network, self.static, self.plan.static, decoded, known, 1, self.backend.precision)
        return values(self.network.node(node)).float().cpu()

    def membranes(self, site: str, neurons: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return current, potential after the reset and what the spikes count, of chosen neurons: [T, B, n] each."""
        where, own = self.network.site(site), self.snn.neurons[site]
        x = self.current(site, neurons).flatten(2)
        theta, v = (
            torch.broadcast_to(value, (len(self.images), *where.shape)).flatten(1)[:, neurons]
            for value in (own.theta[None], own.initial_potential(where, self.image_keys))
        )
        step, m = own.law.rebound(torch.where), torch.zeros_like(v)
        after, z = torch.empty_like(x), torch.zeros(x.shape, dtype=torch.int8)
        for t, current in enumerate(x):
            bits, v, m = step(v, m, current, theta)
            after[t] = v
            for n, bit in zip(own.law.planes, bits, strict=True):
                z[t].add_(bit, alpha=n)
        return x, after, z

    # What is needed for it

    def _key(self, what: What, step: Step, t0: int, t1: int) -> tuple:
        return (what, self.digests[step.name], self.images_key, t0, t1)

    def _have(self, what: What, step: Step, t0: int, t1: int) -> bool:
        key = self._key(what, step, t0, t1)
        if key in self.local:
            return True
        kept = self.store.get(key) if self.store is not None else None
        if kept is not None:
            self.local[key] = kept if what in ("total", "scores") else self.backend.hold(kept)
        return kept is not None

    def _take(self, what: What, step: Step, t0: int, t1: int) -> Array:
        return self.local[self._key(what, step, t0, t1)]

    def _keep(self, what: What, step: Step, t0: int, t1: int, value: Array) -> None:
        key = self._key(what, step, t0, t1)
        self.local[key] = value
        if self.store is not None:
            self.store.put(key, value if what in ("total", "scores") else self.backend.release(value))

    def _compute_block(self, wanted: Iterable[tuple[What, Step]], t0: int, t1: int) -> None:
        """Compute what is wanted of the steps (t0, t1] and of the blocks before, as far as it is not kept."""
        todo: set[tuple[str, int, int]] = set()
        pending: list[tuple[What, Step, int, int]] = [(what, step, t0, t1) for what, step in wanted]
        while pending:
            what, step, a, b = pending.pop()
            if (step.name, a, b) in todo or self._have(what, step, a, b):
                continue
            todo.add((step.name, a, b))
            pending += [("train", self.plan.by_node[s], a, b) for s in step.sources]
            if a > 0 and step.kind is StepKind.SITE:
                pending.append(("state", step, self._block_before(a), a))
            if a > 0 and step.kind is StepKind.MAX_POOL:
                earlier = [block for block in self.blocks if block[1] <= a]
                pending += [("train", self.plan.by_node[step.sources[0]], *block) for block in earlier]
        for a, b in sorted({(a, b) for _, a, b in todo}):
            timed = self._timed(a, b)
            for step in self.plan.steps:
                if (step.name, a, b) in todo:
                    if self.stop is not None and self.stop():
                        raise Cancelled("The run was stopped.")
                    self._compute(step, a, b, timed)

    def _block_before(self, t: int) -> int:
        return next(a for a, b in self.blocks if b == t)

    def _state(self, step: Step, t0: int) -> Array:
        """Return a state to write to: the one after step t0, or the start."""
        if t0 > 0:
            return self.backend.copy(self._take("state", step, self._block_before(t0), t0))
        return self.backend.start(self.sites.start(step), self.sites.law(step.node.name).memory)

    # How it is computed

    def _compute(self, step: Step, t0: int, t1: int, timed: TimedValues) -> None:
        match step.kind:
            case StepKind.READOUT:
                self._keep("scores", step, t0, t1, self._scores(step, t0, t1, timed))
            case StepKind.MAX_POOL:
                self._keep("train", step, t0, t1, self._pooled(step, t0, t1))
            case StepKind.SITE:
                current, state = self._current(step, t0, t1, timed), self._state(step, t0)
                law, gate = self.sites.law(step.node.name), self.sites.gate(step)
                train = self.backend.scan(current, law, self.sites.theta(step), state, t1 - t0)
                if gate is not None:
                    train = self.backend.mute(train, gate)
                self._keep("train", step, t0, t1, train)
                self._keep("state", step, t0, t1, state)
                self._keep("total", step, t0, t1, np.array([self.backend.total(train)]))

    def _current(self, step: Step, t0: int, t1: int, timed: TimedValues | None = None) -> Current:
        """Return a step's input current over a block."""
        shift = self.sites.shift(step, t0, t1)
        if self.sites.path(step) == "float":
            summands = (timed or self._timed(t0, t1)).summands(step.value)
            return Given(tuple(summands), shift)
        segment = step.segment
        assert segment is not None
        worths = [self.sites.worth(source) for source in segment.sources]
        common = float(worths[0].max()) if worths else 1.0
        laws = [self.sites.law(source) for source in segment.sources]
        weights = weights_for(step, self.backend, [worth / common for worth in worths], laws)
        trains = tuple(self._take("train", self.plan.by_node[s], t0, t1) for s in segment.sources)
        const = Constant(torch.from_numpy(weights.fixed.const))
        if segment.static:
            total = sum(self.static(self.network.node(name)) for name in segment.static)
            bias = torch.from_numpy(segment.bias).to(total.device).reshape(1, -1, *(1,) * (total.ndim - 2))
            shape = (len(self.images), *self.network.shapes[step.value.name])
            const = Constant(to_pixels((total + bias).expand(shape)))
        scale = torch.from_numpy(weights.fixed.scale(common))
        return Taps(weights, scale, trains, const if shift is None else _together(const, shift))

    def _timed(self, t0: int, t1: int) -> TimedValues:
        return TimedValues(
            self.network,
            self.static,
            self.plan.static,
            partial(self._unpacked, t0=t0, t1=t1),
            self.plan.by_node.__contains__,
            t1 - t0,
            self.backend.precision,
        )

    def _scores(self, step: Step, t0: int, t1: int, timed: TimedValues) -> np.ndarray:
        """Return the class scores' current, float32 [B, T, K] on the host."""
        classes = self.network.shapes[step.value.name][0]
        if self.sites.path(step) != "float":
            x = self.backend.values(self._current(step, t0, t1), len(self.images), t1 - t0)
            return np.ascontiguousarray(x[:, 0, :, :classes].cpu().numpy())
        x = timed(self.network.node(step.value.name)).reshape(t1 - t0, len(self.images), classes)
        return np.ascontiguousarray(x.float().cpu().numpy().transpose(1, 0, 2))

    def _pooled(self, step: Step, t0: int, t1: int) -> Array:
        source = self.plan.by_node[step.sources[0]]
        planes = self.sites.law(step.node.name).planes
        counts = None
        for a, b in self.blocks:
            if b <= t0:
                counts = self.backend.count(self._take("train", source, a, b), planes, counts)
        shapes = (self.network.shapes[source.node.name], self.network.shapes[step.node.name])
        return self.backend.pool(self._take("train", source, t0, t1), pool_window(self.network, step), shapes, counts)

    def _unpacked(self, name: str, t0: int, t1: int) -> Tensor:
        """Return what a spiking node sends, worth times its spikes: [T*B, *shape]."""
        shape, step = self.network.shapes[name], self.plan.by_node[name]
        worth, planes = self.sites.worth(name), self.sites.law(name).planes
        train = self._take("train", step, t0, t1)
        if worth.ndim == 1:
            return self.backend.unpack(train, planes, worth, shape)
        x = self.backend.unpack(train, planes, np.ones(shape[0]), shape)
        return x * torch.from_numpy(worth).to(x.device, x.dtype)


def _together(a: Constant, b: Constant) -> Constant:
    """Add two constants."""
    x, y = a.values, b.values.to(a.values.device)
    if b.timed and a.per_pixel:
        x = x[:, :, None]
    if b.per_pixel and b.timed and not a.per_pixel:
        x = x[None, None, None]
    return Constant((x + y).contiguous(), b.timed)
