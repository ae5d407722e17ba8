"""One chunk of images through all layers: what is kept is taken, the rest is computed."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from explorer.engine.convert import SpikingNetwork
from explorer.engine.dense import StaticValues, TimedValues
from explorer.engine.errors import Cancelled
from explorer.engine.integers import IntegerWeights, lay_out
from explorer.engine.kernels import backend
from explorer.engine.layout import aligned_copy, from_pixels, padded, to_pixels
from explorer.engine.plan import KEPT_LAYOUTS, Plan, Step, plan_for
from explorer.engine.result import Simulation
from explorer.engine.specs import SimulationSpec
from explorer.engine.store import SpikeStore

BLOCK = 32
LAYOUTS = threading.Lock()


class ChunkRun:
    """The computation of one chunk: a graph of kept or computed arrays, walked from what is asked to what is needed.

    Arrays are keyed by (recipe of everything upstream, images, first and last step).
    """

    def __init__(
        self,
        snn: SpikingNetwork,
        images: Tensor,
        spec: SimulationSpec,
        store: SpikeStore | None,
        stop: Callable[[], bool] | None,
    ) -> None:
        self.snn, self.images, self.spec = snn, images, spec
        self.network = snn.network
        self.plan: Plan = plan_for(self.network, spec.integer)
        self.store, self.stop = store, stop
        self.kernels = backend()
        self.local: dict[tuple, np.ndarray] = {}
        self.static = StaticValues(self.network, images)
        self.image_keys = self.keys_of(images)
        joined = hashlib.blake2b(b"".join(self.image_keys), digest_size=12)
        self.images_key = joined.digest()
        self.recipes = recipes(snn, self.plan, spec.integer)
        edge = spec.T if self.plan.one_block else BLOCK
        self.blocks = [(t, min(t + edge, spec.T)) for t in range(0, spec.T, edge)]

    @staticmethod
    def keys_of(images: Tensor) -> list[bytes]:
        """Return a digest of each image's pixels."""
        return [hashlib.blake2b(i.numpy().tobytes(), digest_size=12).digest() for i in images.contiguous()]

    # What is asked for

    def simulation(self, begin: float) -> Simulation:
        """Compute everything the record asks for."""
        spec, record = self.spec, self.spec.record
        sites = {s.name: s for s in self.network.sites}
        site_steps = [s for s in self.plan.steps if s.kind == "site"]
        per_site = site_steps if record.counts or record.v_end else []
        wanted = [("logits", self.plan.readout)]
        wanted += [("spikes", s) for s in per_site] if record.counts else []
        wanted += [("v", s) for s in per_site] if record.v_end else []
        wanted += [("total", s) for s in site_steps]
        counts = {s.name: np.zeros((len(self.images), *self._stored(s)), np.int32) for s in per_site if record.counts}
        currents, totals, v_end = [], dict.fromkeys((s.name for s in site_steps), 0), {}
        for t0, t1 in self.blocks:
            self._compute_block(wanted, t0, t1)
            currents.append(self._take("logits", self.plan.readout, t0, t1))
            for step in site_steps:
                totals[step.name] += int(self._take("total", step, t0, t1)[0])
                if record.counts:
                    self.kernels.add_counts(self._take("spikes", step, t0, t1), counts[step.name])
            if record.v_end and t1 == spec.T:
                v_end = {s.name: from_pixels(self._take("v", s, t0, t1), sites[s.name].shape) for s in site_steps}
        x = np.concatenate(currents, 1).astype(np.float64)
        means = np.cumsum(x, 1) / np.arange(1, spec.T + 1)[None, :, None]
        logits = torch.from_numpy(means.transpose(1, 0, 2).astype(np.float32))
        traced = self.recorded()
        return Simulation(
            spec.T,
            logits,
            {name: from_pixels(n, sites[name].shape) for name, n in counts.items()},
            v_end,
            *traced,
            totals,
            time.perf_counter() - begin,
            {s.name: s.path for s in self.plan.steps if s.kind == "site"},
        )

    def traces(self, site: str, neurons: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return current, potential after the reset and spikes of chosen neurons: [T, B, n] each."""
        step = next(s for s in self.plan.steps if s.name == site)
        shape = self.network.site(site).shape
        parts = []
        for t0, t1 in self.blocks:
            self._compute_block([("spikes", self.plan.by_node[s]) for s in step.sources], t0, t1)
            values = from_pixels(self._currents(step, t0, t1).transpose(2, 0, 1, 3), shape)
            parts.append(values.flatten(2)[:, :, neurons])
        x = torch.cat(parts)
        theta, v0 = (_chosen(value, shape, neurons, len(self.images)) for value in self._theta_and_start(step))
        v, z = torch.empty_like(x), torch.empty(x.shape, dtype=torch.uint8)
        potential = v0
        for t in range(self.spec.T):
            potential = potential + x[t]
            fired = potential >= theta
            potential = torch.where(fired, potential - theta, potential)
            v[t], z[t] = potential, fired
        return x, v, z

    def recorded(self) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Return spikes, potentials, currents and neurons of the recorded sites."""
        spikes, v, currents, neurons = {}, {}, {}, {}
        for name in self.spec.record.sites:
            total = self.network.site(name).neurons
            match self.spec.record.neurons:
                case None:
                    chosen = torch.arange(total)
                case int(n):
                    chosen = torch.linspace(0, total - 1, min(n, total)).round().long()
                case indices:
                    chosen = torch.tensor(indices)
            neurons[name] = chosen
            currents[name], v[name], spikes[name] = self.traces(name, chosen)
        return spikes, v, currents, neurons

    # What is needed for it

    def _key(self, what: str, step: Step, t0: int, t1: int) -> tuple:
        return (what, self.recipes[step.name], self.images_key, t0, t1)

    def _have(self, what: str, step: Step, t0: int, t1: int) -> bool:
        key = self._key(what, step, t0, t1)
        if key in self.local:
            return True
        kept = self.store.get(key) if self.store is not None else None
        if kept is not None:
            self.local[key] = kept
        return kept is not None

    def _take(self, what: str, step: Step, t0: int, t1: int) -> np.ndarray:
        return self.local[self._key(what, step, t0, t1)]

    def _keep(self, what: str, step: Step, t0: int, t1: int, array: np.ndarray) -> None:
        key = self._key(what, step, t0, t1)
        self.local[key] = array
        if self.store is not None:
            self.store.put(key, array)

    def _compute_block(self, wanted: Iterable[tuple[str, Step]], t0: int, t1: int) -> None:
        """Compute what is wanted of the steps (t0, t1] and of the blocks before, as far as it is not kept."""
        todo: set[tuple[str, int, int]] = set()
        pending = [(what, step, t0, t1) for what, step in wanted]
        while pending:
            what, step, a, b = pending.pop()
            if (step.name, a, b) in todo or self._have(what, step, a, b):
                continue
            todo.add((step.name, a, b))
            pending += [("spikes", self.plan.by_node[s], a, b) for s in step.sources]
            if a > 0 and step.kind == "site":
                pending.append(("v", step, self._block_before(a), a))
            if a > 0 and step.kind == "max_pool":
                earlier = [block for block in self.blocks if block[1] <= a]
                pending += [("spikes", self.plan.by_node[step.sources[0]], *block) for block in earlier]
        for a, b in sorted({(a, b) for _, a, b in todo}):
            timed = TimedValues(
                self.network,
                self.static,
                self.plan.static,
                partial(self._unpacked, t0=a, t1=b),
                self.plan.by_node.__contains__,
                b - a,
            )
            for step in self.plan.steps:
                if (step.name, a, b) in todo:
                    if self.stop is not None and self.stop():
                        raise Cancelled("The run was stopped.")
                    self._compute(step, a, b, timed)

    def _block_before(self, t: int) -> int:
        return next(a for a, b in self.blocks if b == t)

    # How it is computed

    def _compute(self, step: Step, t0: int, t1: int, timed: TimedValues) -> None:
        if step.kind == "readout":
            self._keep("logits", step, t0, t1, self._scores(step, t0, t1, timed))
            return
        if step.kind == "max_pool":
            self._keep("spikes", step, t0, t1, self._pooled(step, t0, t1))
            return
        theta, v = self._state(step, t0)
        if step.segment is not None:
            weights, spikes, const = self._integer_inputs(step, t0, t1)
            z = self.kernels.scan(step.segment, weights, spikes, const, theta, v, t1 - t0)
        else:
            summands = [_as_pixels(value, t1 - t0) for value in timed.summands(step.value)]
            z = self.kernels.dense_scan(summands, theta, v, t1 - t0)
        self._keep("spikes", step, t0, t1, z)
        self._keep("v", step, t0, t1, v)
        self._keep("total", step, t0, t1, np.array([self.kernels.count_all(z)]))

    def _integer_inputs(self, step: Step, t0: int, t1: int) -> tuple[IntegerWeights, list[np.ndarray], np.ndarray]:
        segment = step.segment
        assert segment is not None
        amplitudes = [self._amplitude(source) for source in segment.sources]
        common = float(amplitudes[0].max()) if amplitudes else 1.0
        relative = [a / common for a in amplitudes]
        key = b"".join(a.tobytes() for a in relative)
        weights = step.layouts.get(key)
        if weights is None:
            weights = lay_out(segment, relative, self.kernels.byte_table)
            with LAYOUTS:
                while len(step.layouts) >= KEPT_LAYOUTS:
                    step.layouts.pop(next(iter(step.layouts)))
                step.layouts[key] = weights
        spikes = [self._take("spikes", self.plan.by_node[s], t0, t1) for s in segment.sources]
        const = weights.const
        if segment.static:
            total = sum(self.static(self.network.node(name)) for name in segment.static)
            total = (total + _column(segment.bias, total)).expand(
                len(self.images), *self.network.shapes[step.value.name]
            )
            const = to_pixels(total, len(weights.const))
        return weights.scaled(common), spikes, const

    def _currents(self, step: Step, t0: int, t1: int) -> np.ndarray:
        """Return a step's input current, float32 [B, pixels, T, stored channels]."""
        if step.segment is not None:
            weights, spikes, const = self._integer_inputs(step, t0, t1)
            return self.kernels.currents(step.segment, weights, spikes, const, t1 - t0, len(self.images))
        timed = TimedValues(
            self.network,
            self.static,
            self.plan.static,
            partial(self._unpacked, t0=t0, t1=t1),
            self.plan.by_node.__contains__,
            t1 - t0,
        )
        x = _as_pixels(timed(step.value), t1 - t0)
        return x.transpose(1, 2, 0, 3)

    def _scores(self, step: Step, t0: int, t1: int, timed: TimedValues) -> np.ndarray:
        classes = self.network.shapes[step.value.name][0]
        if step.segment is not None:
            return np.ascontiguousarray(self._currents(step, t0, t1)[:, 0, :, :classes])
        x = timed(step.value).reshape(t1 - t0, len(self.images), classes)
        return np.ascontiguousarray(x.float().numpy().transpose(1, 0, 2))

    def _pooled(self, step: Step, t0: int, t1: int) -> np.ndarray:
        source = self.plan.by_node[step.sources[0]]
        counts = np.zeros((len(self.images), *self._stored(source)), np.int32)
        for a, b in self.blocks:
            if b <= t0:
                self.kernels.add_counts(self._take("spikes", source, a, b), counts)
        shapes = (self.network.shapes[source.node.name], self.network.shapes[step.node.name])
        window = pool_window(self.network, step)
        return self.kernels.max_pool(self._take("spikes", source, t0, t1), shapes, window, counts, t1 - t0)

    def _unpacked(self, name: str, t0: int, t1: int) -> Tensor:
        """Return the value theta * z of a spiking node, float32 [T*B, *shape]."""
        shape = self.network.shapes[name]
        x = self.kernels.unpack(self._take("spikes", self.plan.by_node[name], t0, t1), self._amplitude(name), shape)
        if len(shape) == 1:
            return torch.from_numpy(x).reshape(-1, shape[0])
        return torch.from_numpy(x).reshape(-1, shape[1], shape[2], shape[0]).permute(0, 3, 1, 2)

    # Small things

    def _stored(self, step: Step) -> tuple[int, int]:
        shape = self.network.shapes[step.node.name]
        return (shape[1] * shape[2] if len(shape) == 3 else 1), padded(shape[0])

    def _amplitude(self, name: str) -> np.ndarray:
        """Return the value of a spike per channel, float64 [C]."""
        step = self.plan.by_node[name]
        while step.kind == "max_pool":
            step = self.plan.by_node[step.sources[0]]
        channels = self.network.shapes[step.node.name][0]
        return np.broadcast_to(self.snn.theta[step.name].double().numpy().reshape(-1), (channels,)).copy()

    def _theta_and_start(self, step: Step) -> tuple[Tensor, Tensor]:
        site = self.network.site(step.name)
        return self.snn.theta[step.name][None], self.snn.initial_potential(site, self.image_keys)

    def _state(self, step: Step, t0: int) -> tuple[np.ndarray, np.ndarray]:
        """Return stored-channel thresholds (infinite where there is no neuron) and the potential before step t0 + 1."""
        shape = self.network.shapes[step.node.name]
        theta, start = self._theta_and_start(step)
        limits = np.full(padded(shape[0]), np.inf, np.float32)
        limits[: shape[0]] = np.broadcast_to(theta.numpy().reshape(-1), (shape[0],))
        if t0 > 0:
            return limits, aligned_copy(self._take("v", step, self._block_before(t0), t0))
        v = torch.broadcast_to(start, (len(self.images), *shape))
        return limits, aligned_copy(to_pixels(v))


def recipes(snn: SpikingNetwork, plan: Plan, integer: bool) -> dict[str, bytes]:
    """Return, per step, a digest of everything its result depends on besides images and time."""
    recipes: dict[str, bytes] = {}
    for step in plan.steps:
        digest = hashlib.blake2b(f"{snn.network.fingerprint}/{step.name}/{integer}".encode(), digest_size=12)
        if step.kind == "site":
            digest.update(snn.theta[step.name].numpy().tobytes())
            digest.update(repr(snn.v_init[step.name]).encode())
        for source in step.sources:
            digest.update(recipes[plan.by_node[source].name])
            amplitude = plan.by_node[source]
            if amplitude.kind == "site":
                digest.update(snn.theta[amplitude.name].numpy().tobytes())
        recipes[step.name] = digest.digest()
    return recipes


def pool_window(network, step: Step) -> tuple[int, ...]:
    """Return a max pool's (height, width, stride y, x, padding y, x, dilation y, x)."""
    node = step.node
    names = ("kernel_size", "stride", "padding", "dilation")
    if node.op == "call_module":
        module = network.graph_module.get_submodule(str(node.target))
        values = {name: getattr(module, name) for name in names}
    else:
        values = dict(zip(names, node.args[1:], strict=False)) | {k: v for k, v in node.kwargs.items() if k in names}
    kernel = _two(values["kernel_size"])
    stride = _two(values.get("stride") or kernel)
    return (*kernel, *stride, *_two(values.get("padding", 0)), *_two(values.get("dilation", 1)))


def _two(value) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return (value[0], value[-1])


def _as_pixels(value: Tensor, T: int) -> np.ndarray:
    """Lay [T*B, C, H, W] or [T*B, C] out as float32 [T, B, pixels, stored channels]."""
    x = to_pixels(value)
    return x.reshape(T, -1, *x.shape[1:])


def _column(bias: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(bias).reshape(1, -1, *(1,) * (like.ndim - 2))


def _chosen(value: Tensor, shape: tuple[int, ...], neurons: Tensor, images: int) -> Tensor:
    return torch.broadcast_to(value, (images, *shape)).reshape(images, -1)[:, neurons]
