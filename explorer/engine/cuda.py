"""Simulation on a CUDA device: layer by layer in chunks that fit its memory, currents on tensor cores.

Spikes are 0 and 1, exact in TF32. A float32 weight is the sum of two TF32 numbers to within 2^-22 of its size, so two
TF32 convolutions of spikes give currents at float32 accuracy. Everything else runs in plain float32. The same code runs
on the CPU, which is how it is tested where there is no GPU.
"""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from explorer.engine.chunk import BLOCK, ChunkRun, recipes
from explorer.engine.convert import SpikingNetwork
from explorer.engine.dense import StaticValues, TimedValues
from explorer.engine.errors import Cancelled
from explorer.engine.graph import Network, Site
from explorer.engine.kernels.torch_backend import if_scan
from explorer.engine.operations import NO_OPS
from explorer.engine.plan import Plan, plan_for
from explorer.engine.result import Simulation
from explorer.engine.specs import SimulationSpec
from explorer.engine.store import SpikeStore

FIRST_CHUNK = 256
BYTES_PER_NEURON_STEP = 14


def split_tf32(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Split float32 into high + low, each with the 10 explicit mantissa bits of TF32; off by 2^-22 at most."""
    mask = torch.tensor(-8192, dtype=torch.int32, device=weight.device)  # keeps sign, exponent, 10 bits
    high = (weight.contiguous().view(torch.int32) & mask).view(torch.float32)
    low = ((weight - high).contiguous().view(torch.int32) & mask).view(torch.float32)
    return high, low


def simulate_on_cuda(
    snn: SpikingNetwork,
    images: Tensor,
    spec: SimulationSpec,
    *,
    store: SpikeStore | None = None,
    stop: Callable[[], bool] | None = None,
    device: str = "cuda",
) -> Iterator[Simulation]:
    """Simulate as `simulate_chunks` does, on a device; halve the chunk and try again when memory runs out.

    Recorded traces of single neurons are computed on the CPU.
    """
    chunk = spec.chunk or _first_chunk(snn, spec, device)
    network = replace(snn.network, graph_module=copy.deepcopy(snn.network.graph_module).to(device), plans={})
    done = 0
    while done < len(images):
        if stop is not None and stop():
            raise Cancelled("The run was stopped.")
        part = images[done : done + chunk]
        result = None
        try:
            result = _DeviceRun(network, snn, part, spec, store, stop, device).simulation()
        except torch.OutOfMemoryError:
            if len(part) == 1:
                raise
        if result is None:  # what the failed run held is free only now
            torch.cuda.empty_cache()
            chunk = len(part) // 2
            continue
        done += len(part)
        yield result


def _first_chunk(snn: SpikingNetwork, spec: SimulationSpec, device: str) -> int:
    """Return how many images fit: a power of two, so that runs one after the other cut the images alike."""
    if not device.startswith("cuda"):
        return 16
    free, _ = torch.cuda.mem_get_info()
    steps = min(spec.T, BLOCK)
    largest, all_sites = (f(site.neurons for site in snn.network.sites) for f in (max, sum))
    fits = 0.5 * free / (steps * (largest * BYTES_PER_NEURON_STEP + all_sites))
    return min(FIRST_CHUNK, 1 << max(0, int(fits).bit_length() - 1))


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 in convolutions and matrix products, and restore what was."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


class _DeviceValues(TimedValues):
    """Timed values with split weights where a layer reads spikes of one amplitude."""

    def __init__(self, *args: Any, amplitude: dict[str, float], spikes: Callable[[str], Tensor]) -> None:
        super().__init__(*args)
        self.amplitude, self.raw = amplitude, spikes

    def _compute(self, node: fx.Node) -> Any:
        module = self.network.graph_module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, nn.Conv2d | nn.Linear):
            source = node.all_input_nodes[0]
            while self.network.names[source.name] in NO_OPS and not self.spiking(source.name):
                source = source.all_input_nodes[0]
            if source.name in self.amplitude:
                return self._split(module, self.raw(source.name).float(), self.amplitude[source.name])
        with _tf32(False):
            return super()._compute(node)

    def _split(self, module: nn.Conv2d | nn.Linear, z: Tensor, amplitude: float) -> Tensor:
        if z.ndim == 4:
            z = z.contiguous(memory_format=torch.channels_last)
        state: dict[str, Any] = {"bias": None} if module.bias is not None else {}
        total: Any = 0.0
        with _tf32(True), torch.no_grad():
            for part in split_tf32(module.weight.detach()):
                total = total + torch.func.functional_call(module, {"weight": part, **state}, (z,), strict=False)
        total = total * amplitude
        if module.bias is None:
            return total
        return total + module.bias.detach().reshape(-1, *(1,) * (total.ndim - 2))


def pack(z: Tensor) -> np.ndarray:
    """Pack spikes uint8 [T, ...] into bits along time: uint8 [ceil(T / 8), neurons]."""
    flat = z.flatten(1)
    bits = torch.nn.functional.pad(flat, (0, 0, 0, -len(flat) % 8)).unflatten(0, (-1, 8))
    places = (1 << torch.arange(8, dtype=torch.uint8, device=z.device)).reshape(1, 8, 1)
    return (bits * places).sum(1, dtype=torch.uint8).cpu().numpy()


def unpack(packed: np.ndarray, T: int, device: str) -> Tensor:
    """Undo `pack`: uint8 [T, neurons] on the device."""
    places = torch.arange(8, dtype=torch.uint8, device=device)
    bits = torch.from_numpy(packed.copy()).to(device)[:, None] >> places.reshape(1, 8, 1)
    return (bits & 1).flatten(0, 1)[:T]


@dataclass(eq=False)
class _Kept:
    """What the store has of one site and block: spikes in bits, the potential after it, how many spikes."""

    z: np.ndarray
    v: np.ndarray
    total: int


class _DeviceRun:
    """One chunk of images on the device: block by block in time, layer by layer; layers that are kept are not computed.

    Kept arrays live in the store in the host's memory. A layer's spikes come back to the device only if a layer that
    is computed reads them, or they are to be counted.
    """

    def __init__(
        self,
        network: Network,
        snn: SpikingNetwork,
        images: Tensor,
        spec: SimulationSpec,
        store: SpikeStore | None,
        stop: Callable[[], bool] | None,
        device: str,
    ) -> None:
        self.network, self.snn, self.images, self.spec = network, snn, images, spec
        self.store, self.stop, self.device = store, stop, device
        self.plan: Plan = plan_for(network, False)
        self.scan = _scan_for(device)
        self.keys = ChunkRun.keys_of(images)
        self.images_key = hashlib.blake2b(b"".join(self.keys), digest_size=12).digest()
        self.recipes = recipes(snn, self.plan, False)
        self.static = StaticValues(network, images.to(device))
        self.theta = {site.name: snn.theta[site.name].to(device) for site in network.sites}
        self.sites = {step.node.name: network.site(step.name) for step in self.plan.steps if step.kind == "site"}
        self.amplitude = {
            node: float(self.theta[site.name]) for node, site in self.sites.items() if self.theta[site.name].ndim == 0
        }
        self.v: dict[str, Tensor] = {}
        self.kept_v: dict[str, np.ndarray] = {}  # taken from the store and not on the device yet
        self.pool_sums: dict[str, Tensor] = {}
        self.counts: dict[str, Tensor] = {}
        self.totals = {site.name: 0 for site in network.sites}

    def simulation(self) -> Simulation:
        """Compute everything the record asks for."""
        begin = time.perf_counter()
        spec, record = self.spec, self.spec.record
        edge = spec.T if self.plan.one_block else BLOCK
        currents = [self._block(t0, min(t0 + edge, spec.T)) for t0 in range(0, spec.T, edge)]
        mean = torch.cat(currents).cumsum(0) / torch.arange(1, spec.T + 1, dtype=torch.float64)[:, None, None]
        traced = ChunkRun(self.snn, self.images.contiguous(), spec, None, self.stop).recorded()
        return Simulation(
            spec.T,
            mean.float(),
            {name: n.cpu() for name, n in self.counts.items()},
            {site.name: self._potential(site, spec.T).cpu() for site in self.network.sites} if record.v_end else {},
            *traced,
            self.totals,
            time.perf_counter() - begin,
            {s.name: "cuda" if self.device.startswith("cuda") else "float" for s in self.network.sites},
        )

    def _block(self, t0: int, t1: int) -> Tensor:
        """Run the steps (t0, t1] of all layers; return the scores' current, float64 [t1 - t0, B, K] on the host."""
        steps = t1 - t0
        raw: dict[str, Tensor] = {}
        pooled: dict[str, Tensor] = {}
        kept: dict[str, _Kept] = {}

        def spikes(node: str) -> Tensor:
            if node not in raw:
                site = self.sites[node]
                raw[node] = unpack(kept[node].z, steps, self.device).reshape(-1, *site.shape)
            return raw[node]

        def value(node: str) -> Tensor:
            return pooled[node] if node in pooled else spikes(node).float() * self.theta[self.sites[node].name]

        timed = _DeviceValues(
            self.network,
            self.static,
            self.plan.static,
            value,
            self.plan.by_node.__contains__,
            steps,
            amplitude=self.amplitude,
            spikes=spikes,
        )
        for step in self.plan.steps:
            if self.stop is not None and self.stop():
                raise Cancelled("The run was stopped.")
            node = step.node.name
            if step.kind == "readout":
                return timed(step.value).reshape(steps, len(self.images), -1).double().cpu()
            if step.kind == "max_pool":
                pooled[node] = _pool(timed, step.node, value(step.sources[0]), steps, self.pool_sums)
                continue
            site = self.sites[node]
            found = self._find(site, t0, t1)
            if found is not None:
                kept[node] = found
                self.kept_v[site.name] = found.v
                self.totals[site.name] += found.total
            else:
                raw[node] = self._computed(site, timed(step.value), t0, t1)
            if self.spec.record.counts:
                n = spikes(node).unflatten(0, (steps, -1)).sum(0, dtype=torch.int32)
                self.counts[site.name] = self.counts.get(site.name, 0) + n
        raise AssertionError("a plan ends with the readout")

    def _computed(self, site: Site, x: Tensor, t0: int, t1: int) -> Tensor:
        """Scan a site's current; return its spikes uint8 [(t1 - t0) * B, *shape] and keep them."""
        limits = torch.broadcast_to(self.theta[site.name].reshape(-1), (site.channels,)).contiguous()
        v = self._potential(site, t0)
        z = self.scan(x.reshape(t1 - t0, len(self.images), *site.shape).float().contiguous(), v, limits)
        self.v[site.name] = v
        total = int(z.sum(dtype=torch.int64))
        self.totals[site.name] += total
        if self.store is not None:
            for what, array in (("z", pack(z)), ("v", v.cpu().numpy().copy()), ("n", np.array([total]))):
                self.store.put(self._key(what, site, t0, t1), array)
        return z.flatten(0, 1)

    def _potential(self, site: Site, t: int) -> Tensor:
        """Return the potential after step t, float32 [B, *shape], the run's own."""
        if t == 0:
            start = torch.broadcast_to(self.snn.initial_potential(site, self.keys), (len(self.images), *site.shape))
            return start.contiguous().to(self.device).clone()
        if site.name in self.kept_v:
            self.v[site.name] = torch.from_numpy(self.kept_v.pop(site.name).copy()).to(self.device)
        return self.v[site.name]

    def _key(self, what: str, site: Site, t0: int, t1: int) -> tuple:
        return ("device", self.device, what, self.recipes[site.name], self.images_key, t0, t1)

    def _find(self, site: Site, t0: int, t1: int) -> _Kept | None:
        if self.store is None:
            return None
        z, v, total = (self.store.get(self._key(what, site, t0, t1)) for what in ("z", "v", "n"))
        return None if z is None or v is None or total is None else _Kept(z, v, int(total[0]))


def _scan_for(device: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    if device.startswith("cuda"):
        from explorer.engine.kernels.triton_scan import if_scan as triton_if_scan

        return triton_if_scan

    def scan(x: Tensor, v: Tensor, theta: Tensor) -> Tensor:
        z, after = if_scan(x, v, theta.reshape(-1, *(1,) * (v.ndim - 2)))
        v.copy_(after)
        return z.to(torch.uint8)

    return scan


def _pool(timed: TimedValues, node: fx.Node, x: Tensor, steps: int, pools: dict[str, Tensor]) -> Tensor:
    """Return maxpool(X(t)) - maxpool(X(t-1)) over a block, X the sum since the first step."""
    from explorer.engine.dense import call

    maps = x.reshape(steps, -1, *x.shape[1:])
    before = pools.get(node.name, torch.zeros_like(maps[:1]))
    sums = torch.cat([before, before + maps.cumsum(0)])
    pools[node.name] = sums[-1:]
    pooled = call(timed.network, node, (sums.flatten(0, 1), *node.args[1:]), node.kwargs)
    return torch.diff(pooled.reshape(steps + 1, -1, *pooled.shape[1:]), dim=0).flatten(0, 1)
