"""Simulation on a CUDA device: layer by layer in chunks that fit its memory, currents on tensor cores.

Spikes are 0 and 1, exact in TF32. A float32 weight is the sum of two TF32 numbers to within 2^-22 of its size, so two
TF32 convolutions of spikes give currents at float32 accuracy. Everything else runs in plain float32. The same code runs
on the CPU, which is how it is tested where there is no GPU.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from explorer.engine.chunk import BLOCK, ChunkRun
from explorer.engine.convert import SpikingNetwork
from explorer.engine.dense import StaticValues, TimedValues
from explorer.engine.errors import Cancelled
from explorer.engine.kernels.torch_backend import if_scan
from explorer.engine.operations import NO_OPS
from explorer.engine.plan import Plan, plan_for
from explorer.engine.result import Simulation
from explorer.engine.specs import SimulationSpec

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
        try:
            result = _run_chunk(replace(snn, network=network), snn, part, spec, stop, device)
        except torch.OutOfMemoryError:
            if chunk == 1:
                raise
            torch.cuda.empty_cache()
            chunk = max(1, chunk // 2)
            continue
        done += len(part)
        yield result


def _first_chunk(snn: SpikingNetwork, spec: SimulationSpec, device: str) -> int:
    if not device.startswith("cuda"):
        return 16
    free, _ = torch.cuda.mem_get_info()
    largest = max(site.neurons for site in snn.network.sites)
    return int(max(1, min(FIRST_CHUNK, 0.5 * free // (largest * min(spec.T, BLOCK) * BYTES_PER_NEURON_STEP))))


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

    def __init__(self, *args: Any, amplitude: dict[str, float], raw: dict[str, Tensor]) -> None:
        super().__init__(*args)
        self.amplitude, self.raw = amplitude, raw

    def _compute(self, node: fx.Node) -> Any:
        module = self.network.graph_module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, nn.Conv2d | nn.Linear):
            source = node.all_input_nodes[0]
            while self.network.names[source.name] in NO_OPS and not self.spiking(source.name):
                source = source.all_input_nodes[0]
            if source.name in self.amplitude and source.name in self.raw:
                return self._split(module, self.raw[source.name].float(), self.amplitude[source.name])
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


def _run_chunk(
    on_device: SpikingNetwork,
    snn: SpikingNetwork,
    images: Tensor,
    spec: SimulationSpec,
    stop: Callable[[], bool] | None,
    device: str,
) -> Simulation:
    begin = time.perf_counter()
    network = on_device.network
    plan: Plan = plan_for(network, False)
    scan = _scan_for(device)
    keys = ChunkRun.keys_of(images)
    static = StaticValues(network, images.to(device))
    edge = spec.T if plan.one_block else BLOCK
    v: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    pools: dict[str, Tensor] = {}
    currents = []
    for t0 in range(0, spec.T, edge):
        steps = min(edge, spec.T - t0)
        raw: dict[str, Tensor] = {}
        amplitude: dict[str, float] = {}
        values: dict[str, Tensor] = {}
        timed = _DeviceValues(
            network,
            static,
            plan.static,
            values.__getitem__,
            plan.by_node.__contains__,
            steps,
            amplitude=amplitude,
            raw=raw,
        )
        for step in plan.steps:
            if stop is not None and stop():
                raise Cancelled("The run was stopped.")
            if step.kind == "readout":
                currents.append(timed(step.value).reshape(steps, len(images), -1).double().cpu())
                continue
            if step.kind == "max_pool":
                values[step.node.name] = _pool(timed, step.node, values[step.sources[0]], steps, pools)
                continue
            site = network.site(step.name)
            theta = snn.theta[site.name].to(device)
            limits = torch.broadcast_to(theta.reshape(-1), (site.channels,)).contiguous()
            if t0 == 0:
                start = torch.broadcast_to(snn.initial_potential(site, keys), (len(images), *site.shape))
                v[site.name] = start.contiguous().to(device).clone()
            x = timed(step.value).reshape(steps, len(images), *site.shape).float().contiguous()
            z = scan(x, v[site.name], limits)
            counts[site.name] = counts.get(site.name, 0) + z.sum(0, dtype=torch.int32)
            raw[step.node.name] = z.flatten(0, 1)
            values[step.node.name] = z.flatten(0, 1).float() * theta
            if theta.ndim == 0:
                amplitude[step.node.name] = float(theta)
    mean = torch.cat(currents).cumsum(0) / torch.arange(1, spec.T + 1, dtype=torch.float64)[:, None, None]
    record = spec.record
    spikes, traced_v, traced_x, neurons = ChunkRun(snn, images.contiguous(), spec, None, stop)._record()
    return Simulation(
        spec.T,
        mean.float(),
        {name: n.cpu() for name, n in counts.items()} if record.counts else {},
        {name: value.cpu() for name, value in v.items()} if record.v_end else {},
        spikes,
        traced_v,
        traced_x,
        neurons,
        {name: int(n.sum()) for name, n in counts.items()},
        time.perf_counter() - begin,
        {s.name: "cuda" if device.startswith("cuda") else "float" for s in network.sites},
    )


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
