"""Run a spiking network: layer by layer, all steps of a block at once, images in chunks.

    v(0) = v_init theta;  v <- v + x(t);  z = [v >= theta];  v <- v - theta z        [Bu2022]

A layer's spikes are computed for all steps before the next layer's, which changes nothing in the result. Spike trains
stay in a store, under keys made of everything upstream of them, so that a change computes only what it can change.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from explorer.engine.chunk import ChunkRun
from explorer.engine.convert import SpikingNetwork
from explorer.engine.errors import Cancelled, SpecError
from explorer.engine.layout import bytes_per_step
from explorer.engine.plan import plan_for
from explorer.engine.result import Simulation
from explorer.engine.specs import SimulationSpec
from explorer.engine.store import SpikeStore

CHUNK_BYTES = 24 * 2**20
MAX_CHUNK = 24
FLOAT_ROWS = 128
FLOAT_BYTES = 128 * 2**20


def simulate(
    snn: SpikingNetwork,
    images: Tensor,
    spec: SimulationSpec | None = None,
    *,
    store: SpikeStore | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Simulation:
    """Simulate a spiking network on images.

    Args:
        snn: a converted network.
        images: normalised float32 [B, C, H, W].
        spec: steps, what to record, and how to run.
        store: where spike trains are kept between runs; None keeps nothing.
        on_progress: called after every chunk with (images done, images).
        stop: asked between layers; True ends the run.

    Returns:
        Class scores after every step, and what the record asked for.

    Raises:
        SpecError: images or record do not fit the network, or there is no such device.
        Cancelled: stop said so.
    """
    parts = []
    done = 0
    for part in simulate_chunks(snn, images, spec, store=store, stop=stop):
        parts.append(part)
        done += part.images
        if on_progress:
            on_progress(done, len(images))
    return Simulation.merge(parts)


def simulate_chunks(
    snn: SpikingNetwork,
    images: Tensor,
    spec: SimulationSpec | None = None,
    *,
    store: SpikeStore | None = None,
    stop: Callable[[], bool] | None = None,
) -> Iterator[Simulation]:
    """Simulate as `simulate` does, and yield the result of every chunk of images as it is ready."""
    spec = spec or SimulationSpec()
    images = images.detach().float().cpu()
    snn.network.check_images(images)
    if len(images) == 0:
        raise SpecError("images: at least 1 image, got none. Choose a data source with images.")
    for name in spec.record.sites:
        _check_neurons(snn, name, spec)
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise SpecError("device: PyTorch finds no CUDA GPU here. Choose 'auto' or 'cpu'.")
    if spec.device != "cpu" and torch.cuda.is_available():
        from explorer.engine.cuda import simulate_on_cuda

        yield from simulate_on_cuda(snn, images, spec, store=store, stop=stop)
        return
    chunk = spec.chunk or chunk_images(snn, spec)
    for i in range(0, len(images), chunk):
        begin = time.perf_counter()
        if stop is not None and stop():
            raise Cancelled("The run was stopped.")
        run = ChunkRun(snn, images[i : i + chunk].contiguous(), spec, store, stop)
        yield run.simulation(begin)


def _check_neurons(snn: SpikingNetwork, name: str, spec: SimulationSpec) -> None:
    site = snn.network.site(name)
    if isinstance(spec.record.neurons, tuple) and any(i >= site.neurons for i in spec.record.neurons):
        raise SpecError(f"{name}: neurons count from 0 to {site.neurons - 1}, got {max(spec.record.neurons)}.")


def chunk_images(snn: SpikingNetwork, spec: SimulationSpec) -> int:
    """Return how many images run together: few enough that a chunk's spikes and potentials take little memory."""
    network = snn.network
    plan = plan_for(network, spec.integer)
    if any(step.path == "float" for step in plan.steps):
        steps = spec.T if plan.one_block else min(spec.T, 32)
        current = 4 * steps * max(s.neurons for s in network.sites)
        return max(1, min(FLOAT_ROWS // min(steps, 32), FLOAT_BYTES // current))
    per_image = sum(bytes_per_step(s.shape) * (min(spec.T, 32) + 32) for s in network.sites)
    return int(max(1, min(MAX_CHUNK, CHUNK_BYTES // per_image)))
