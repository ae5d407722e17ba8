"""Runs on the engine: one slice of images for the curves, one image for a close look, one neuron for a trace.

Imports torch, so it is itself imported only when the first number is needed. Everything returned is NumPy.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch

from explorer import engine
from explorer.engine import analysis, synapses
from explorer.engine.errors import DataError
from explorer.plots.membrane import Trace
from explorer.ui import cache
from explorer.ui.recipes import ERROR_IMAGES, conversion_spec, simulation_spec
from explorer.ui.results import EDGES_A, EDGES_V, PARTS, Result, SiteSums, rate_edges
from explorer.ui.settings import Settings


def convert(settings: Settings):
    """Return the spiking network of these settings."""
    loaded = cache.loaded(settings.network)
    calibration = cache.calibration(settings.network, settings.source, cache.calibration_key(settings))
    return engine.convert(loaded.network, calibration, conversion_spec(settings))


def device_name(settings: Settings) -> str:
    """Return where a simulation of these settings runs, in words."""
    if settings.device != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"


def advance(settings: Settings, result: Result, begin: int, end: int, stop: Callable[[], bool]) -> None:
    """Simulate images [begin, end) and add what they show to the result."""
    began = time.perf_counter()
    chosen = cache.images(settings.network, settings.source)
    inputs = cache.inputs(settings.network, settings.source, begin, end)
    snn = convert(settings)
    quiet = engine.Record(counts=False, v_end=False)
    simulation = engine.simulate(snn, inputs, simulation_spec(settings, quiet), store=cache.store(), stop=stop)
    ann = snn.network.forward(inputs).argmax(1)
    top = simulation.logits.argmax(2)
    result.labelled = chosen.labels is not None
    expected = torch.from_numpy(np.asarray(chosen.labels[begin:end])) if result.labelled else ann
    result.hits += (top == expected).sum(1).numpy()
    result.ann_hits += int((ann == expected).sum())
    result.wrong += [begin + int(i) for i in torch.nonzero(top[-1] != expected).flatten()]
    for site in snn.network.sites:
        result.spikes[site.name] = result.spikes.get(site.name, 0) + int(simulation.spike_totals[site.name])
        result.neurons[site.name] = int(np.prod(site.shape))
        result.theta[site.name] = float(snn.theta[site.name].float().mean())
    result.images += end - begin
    result.seconds += time.perf_counter() - began
    result.device = device_name(settings)


def add_errors(settings: Settings, result: Result, images: int, stop: Callable[[], bool]) -> None:
    """Add the conversion errors of the first images to the result; their spikes are usually still in the store."""
    inputs = cache.inputs(settings.network, settings.source, 0, images)
    snn = convert(settings)
    simulation = engine.simulate(snn, inputs, simulation_spec(settings), store=cache.store(), stop=stop)
    for site in snn.network.sites:
        if stop():
            raise engine.Cancelled("The run was stopped.")
        parts = analysis.error_parts(snn, inputs, simulation, (site.name,))[site.name]
        result.sites[site.name] = _site_sums(parts, snn.theta[site.name], simulation.v_end[site.name], result.T)
    result.error_images = images


@dataclass(frozen=True, eq=False)
class Channel:
    """One channel of a site over some images, errors in units of theta.

    rms: [H, W] of the error at each place; parts: mean of each of its four parts, [H, W]; together they are the error.
    """

    sums: SiteSums
    rms: np.ndarray
    parts: dict[str, np.ndarray]
    images: int


def channel(settings: Settings) -> Channel:
    """Return the errors of one channel (settings.layer, settings.channel), neuron by neuron, over the first images."""
    images = min(ERROR_IMAGES, len(cache.images(settings.network, settings.source).images))
    inputs = cache.inputs(settings.network, settings.source, 0, images)
    snn, layer = convert(settings), settings.layer
    simulation = engine.simulate(snn, inputs, simulation_spec(settings), store=cache.store())
    whole = analysis.error_parts(snn, inputs, simulation, (layer,))[layer]
    shape = whole.total.shape[:2] + (1,) * (4 - whole.total.dim()) + whole.total.shape[2:]
    theta = torch.broadcast_to(snn.theta[layer], whole.total.shape[1:]).reshape(shape[1:])[settings.channel]
    one = {name: getattr(whole, name).reshape(shape)[:, settings.channel] for name in ("a", "a_hat", "total", *PARTS)}
    v_end = simulation.v_end[layer].reshape(shape)[:, settings.channel]
    sums = _site_sums(SimpleNamespace(**one), theta, v_end, settings.T)
    rms = ((one["total"] / theta) ** 2).mean(0).sqrt().float().numpy()
    parts = {part: (one[part] / theta).mean(0).float().numpy() for part in PARTS}
    return Channel(sums, rms, parts, images)


def _site_sums(parts, theta: torch.Tensor, v_end: torch.Tensor, T: int) -> SiteSums:
    sums = SiteSums(T)
    total = (parts.total / theta).float()
    sums.n, sums.total, sums.squared = total.numel(), float(total.sum()), float((total * total).sum())
    for part in PARTS:
        value = (getattr(parts, part) / theta).float()
        sums.parts[part], sums.squared_parts[part] = float(value.sum()), float((value * total).sum())
    a, rate = (parts.a / theta).float().numpy().ravel(), (parts.a_hat / theta).float().numpy().ravel()
    edges = rate_edges(T)
    shown = (a > 0) | (rate > 0)
    column = np.clip((a[shown] / EDGES_A[1]).astype(np.int64), 0, len(EDGES_A) - 2)
    row = np.clip(((rate[shown] - edges[0]) / (edges[1] - edges[0])).astype(np.int64), 0, len(edges) - 2)
    sums.histogram = (
        np.bincount(column * (len(edges) - 1) + row, minlength=sums.histogram.size)
        .reshape(sums.histogram.shape)
        .astype(np.float64)
    )
    left = (v_end / theta).float().numpy()
    sums.below, sums.above = int((left < 0).sum()), int((left > 1).sum())
    sums.potentials = np.histogram(np.clip(left, EDGES_V[0], EDGES_V[-1]), EDGES_V)[0].astype(float)
    axes = [0, *range(2, total.dim())]
    sums.channel_total, sums.channel_squared = total.sum(axes).numpy(), (total * total).sum(axes).numpy()
    sums.channel_n = total.numel() / total.shape[1]
    return sums


@dataclass(frozen=True, eq=False)
class Look:
    """One image through both networks. ann: [K]; snn: [T, K] mean scores; counts, a: per site [*site]."""

    picture: np.ndarray
    label: int | None
    classes: tuple[str, ...]
    ann: np.ndarray
    snn: np.ndarray
    counts: dict[str, np.ndarray]
    a: dict[str, np.ndarray]
    theta: dict[str, np.ndarray]
    shapes: dict[str, tuple[int, ...]]
    device: str


def look(settings: Settings) -> Look:
    """Run the chosen image and return scores, spike counts and activations of every site."""
    chosen = cache.images(settings.network, settings.source)
    index = settings.image
    if index >= len(chosen.images):
        raise DataError(f"image {index}: there are {len(chosen.images)} images. Choose 0 to {len(chosen.images) - 1}.")
    inputs = cache.inputs(settings.network, settings.source, index, index + 1)
    snn = convert(settings)
    simulation = engine.simulate(snn, inputs, simulation_spec(settings), store=cache.store())
    activations = snn.network.activations(inputs)
    return Look(
        picture=np.asarray(chosen.images[index]),
        label=None if chosen.labels is None else int(chosen.labels[index]),
        classes=tuple(chosen.classes or cache.loaded(settings.network).card.classes),
        ann=snn.network.forward(inputs)[0].float().numpy(),
        snn=simulation.logits[:, 0].float().numpy(),
        counts={name: count[0].numpy() for name, count in simulation.counts.items()},
        a={name: value[0].float().numpy() for name, value in activations.items()},
        theta={name: value.float().numpy() for name, value in snn.theta.items()},
        shapes={site.name: tuple(site.shape) for site in snn.network.sites},
        device=device_name(settings),
    )


def trace(settings: Settings, name: str, neuron: int) -> Trace:
    """Return the membrane trace of the neuron with this flat index in settings.layer on the chosen image."""
    inputs = cache.inputs(settings.network, settings.source, settings.image, settings.image + 1)
    got = analysis.neuron_trace(convert(settings), inputs, settings.layer, neuron, settings.T, store=cache.store())
    x, v_before, v, z = (np.asarray(part, dtype=np.float32) for part in (got.x, got.v_before, got.v, got.z))
    return Trace(name, x, v_before, v, z, float(got.theta), float(got.v0), float(got.a))


def rasters(settings: Settings, neurons: int) -> dict[str, np.ndarray]:
    """Return spikes uint8 [T, n] of up to so many neurons of every site on the chosen image."""
    from explorer.engine.specs import Record

    inputs = cache.inputs(settings.network, settings.source, settings.image, settings.image + 1)
    snn = convert(settings)
    names = tuple(site.name for site in snn.network.sites)
    run = engine.simulate(
        snn, inputs, simulation_spec(settings, Record(sites=names, neurons=neurons)), store=cache.store()
    )
    return {name: run.spikes[name][:, 0].numpy() for name in names}


@dataclass(frozen=True, eq=False)
class Work:
    """Operations per image: additions by site and readout, multiply-accumulates done once, and on how many images."""

    additions: dict[str, float]
    constant: int
    images: int


def additions(settings: Settings) -> Work:
    """Count the additions that the spikes of the first images cause; their trains are usually still in the store."""
    images = min(ERROR_IMAGES, len(cache.images(settings.network, settings.source).images))
    inputs = cache.inputs(settings.network, settings.source, 0, images)
    snn = convert(settings)
    counted = simulation_spec(settings, engine.Record(v_end=False))
    run = engine.simulate(snn, inputs, counted, store=cache.store())
    return Work(synapses.additions(snn.network, run.counts), synapses.constant_macs(snn.network), images)


def macs(network: str) -> dict[str, int]:
    """Return multiply-accumulates per image of the weights that feed each site, and of the readout."""
    return dict(cache.loaded(network).network.macs())
