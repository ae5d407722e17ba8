"""Run a spiking network: layer by layer, all steps of a block at once, images in chunks.

    v(0) = v_init theta;  bits, v, m = law(v, m, x(t), theta)        [Bu2022]; see `neurons`

A layer's spikes are computed for all steps before the next layer's, which changes nothing in the result. Spike trains
stay in a store, under keys made of everything upstream of them, so that a change computes only what it can change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from explorer.engine.compile.layout import bytes_per_step
from explorer.engine.compile.plan import plan_for
from explorer.engine.conversion import SpikingNetwork
from explorer.engine.errors import Cancelled, SpecError
from explorer.engine.kernels import backend
from explorer.engine.kernels.protocol import Backend
from explorer.engine.simulation.result import Simulation
from explorer.engine.simulation.store import SpikeStore
from explorer.engine.simulation.walk import Walk
from explorer.engine.specs import SimulationSpec

CHUNK_BYTES = 24 * 2**20
MAX_CHUNK = 24
DEVICE_CHUNK = 256
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
    walk: type[Walk] = Walk,
) -> Iterator[Simulation]:
    """Simulate as `simulate` does, and yield the result of every chunk of images as it is ready.

    walk: how a chunk goes through the layers; a store is shared only by walks of one kind.
    """
    spec = spec or SimulationSpec()
    images = images.detach().float().cpu()
    snn.network.check_images(images)
    if len(images) == 0:
        raise SpecError("images: at least 1 image, got none. Choose a data source with images.")
    for name in spec.record.sites:
        _check_neurons(snn, name, spec)
    yield from _chunks(snn, images, spec, backend_for(spec.device), store, stop, walk)


def backend_for(device: str) -> Backend:
    """Return the back end that runs there: "cpu", "cuda", or "auto" for the GPU if there is one.

    Raises:
        SpecError: there is no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise SpecError("device: PyTorch finds no CUDA GPU here. Choose 'auto' or 'cpu'.")
    return backend("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def _chunks(
    snn: SpikingNetwork,
    images: Tensor,
    spec: SimulationSpec,
    where: Backend,
    store: SpikeStore | None,
    stop: Callable[[], bool] | None,
    walk: type[Walk] = Walk,
) -> Iterator[Simulation]:
    """Run chunk by chunk; where memory runs out, halve the chunk and try again."""
    chunk = spec.chunk or chunk_images(snn, spec, where)
    done = 0
    while done < len(images):
        if stop is not None and stop():
            raise Cancelled("The run was stopped.")
        part = images[done : done + chunk].contiguous()
        result = None
        try:
            result = walk(snn, part, spec, store, stop, where).simulation()
        except (torch.OutOfMemoryError, MemoryError) as error:
            if len(part) == 1:
                raise SpecError(
                    "Not even one image fits the memory. Choose fewer time-steps, smaller images or a smaller network."
                ) from error
        if result is None:  # what the failed run held is free only now
            if where.device.type == "cuda":
                torch.cuda.empty_cache()
            chunk = len(part) // 2
            continue
        done += len(part)
        yield result


def _check_neurons(snn: SpikingNetwork, name: str, spec: SimulationSpec) -> None:
    site = snn.network.site(name)
    if isinstance(spec.record.neurons, tuple) and any(i >= site.neurons for i in spec.record.neurons):
        raise SpecError(f"{name}: neurons count from 0 to {site.neurons - 1}, got {max(spec.record.neurons)}.")


def chunk_images(snn: SpikingNetwork, spec: SimulationSpec, where: Backend) -> int:
    """Return how many images run together: few enough that a chunk's spikes and potentials take little memory.

    On a device a power of two that depends on its size alone, so that runs one after the other cut the images alike and
    find what was kept.
    """
    network = snn.network
    plan = plan_for(network, spec.integer)
    floating = any(step.path == "float" for step in plan.steps)
    steps = spec.T if plan.one_block else min(spec.T, 32)
    if where.device.type == "cuda":
        memory = torch.cuda.get_device_properties(where.device).total_memory
        largest, everything = (f(site.neurons for site in network.sites) for f in (max, sum))
        per_image = steps * everything / 8 + 16 * everything + steps * largest * (24 if floating else 4)
        return min(DEVICE_CHUNK, 1 << max(0, int(0.25 * memory / per_image).bit_length() - 1))
    if floating:
        current = 4 * steps * max(s.neurons for s in network.sites)
        return max(1, min(FLOAT_ROWS // min(steps, 32), FLOAT_BYTES // current))
    per_image = sum(bytes_per_step(s.shape) * (min(spec.T, 32) + 32) for s in network.sites)
    return int(max(1, min(MAX_CHUNK, CHUNK_BYTES // per_image)))
