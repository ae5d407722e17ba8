"""What the engine measures: hits and spikes image by image, one image for a close look, one neuron's membrane.

Imports torch, so it is itself imported only when the first number is needed. Everything returned is NumPy.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import torch

from explorer import engine
from explorer.engine import analysis, synapses
from explorer.engine.errors import DataError
from explorer.engine.theory import PARTS
from explorer.study import library
from explorer.study.case import case
from explorer.study.results import EDGES_A, EDGES_V, ERROR_IMAGES, Result, SiteSums, rate_edges
from explorer.study.settings import Settings
from explorer.study.translate import simulation_spec

Stop = Callable[[], bool] | None
PATIENCE = 0.6  # seconds after which a slice hands over what it has, so that others have their turn


def score(
    snn: engine.SpikingNetwork,
    inputs: torch.Tensor,
    expected: np.ndarray | None,
    spec: engine.SimulationSpec,
    ann: np.ndarray | None = None,
    store: engine.SpikeStore | None = None,
    stop: Callable[[], bool] | None = None,
    pause: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Simulate images and tell of each, after every step, whether its answer is right: the one place that counts hits.

    Args:
        snn: a converted network.
        inputs: normalised float32 [B, C, H, W].
        expected: the right class of each image, int [B]; None: the ANN's answer counts as right.
        spec: steps and device; what it records is not kept.
        ann: the ANN's answers, int [B], where they are known already.
        store: where spike trains are kept.
        stop: asked within; True ends the run at once. What is done by then is returned.
        pause: asked after every chunk of images; True ends the run there.
        on_progress: called after every chunk with (images done, images).

    Returns:
        The first images, at least one chunk of them.

    Raises:
        Cancelled: stop said so before the first chunk was done.
        ExplorerError: images or settings do not fit the network.
    """
    spec = replace(spec, record=engine.Record(counts=True, v_end=False))
    answers, spikes, seconds, done = [], [], [], 0
    try:
        for part in engine.simulate_chunks(snn, inputs, spec, store=store, stop=stop):
            answers.append(part.logits.argmax(2).T.numpy())
            spikes.append({name: n.flatten(1).sum(1).numpy() for name, n in part.counts.items()})
            seconds.append(np.full(part.images, part.seconds / part.images))
            done += part.images
            if on_progress:
                on_progress(done, len(inputs))
            if pause():
                break
    except engine.Cancelled:
        if not done:
            raise
    if ann is None:
        ann = snn.network.forward(inputs[:done]).argmax(1).numpy()
    expected_ = ann[:done] if expected is None else np.asarray(expected)[:done]
    sites = snn.network.sites
    return Result(
        spec.T,
        right=np.concatenate(answers) == expected_[:, None],
        ann_right=ann[:done] == expected_,
        spikes={site.name: np.concatenate([part[site.name] for part in spikes]).astype(np.int64) for site in sites},
        neurons={site.name: int(np.prod(site.shape)) for site in sites},
        theta={site.name: float(snn.theta[site.name].float().mean()) for site in sites},
        seconds=np.concatenate(seconds),
        labelled=expected is not None,
    )


class Engine:
    """What the queue of runs drives: images of a setting, counted and measured on this machine."""

    def available(self, settings: Settings, n: int) -> int:
        """Return how many images there are of so many."""
        return library.pictures(settings.network, settings.source).available(n)

    def advance(
        self, settings: Settings, begin: int, end: int, stop: Callable[[], bool], pause: Callable[[], bool]
    ) -> Result:
        """Return what images [begin, end) show; fewer of them if it took long or pause says so."""
        here = case(settings, stop)
        pictures = here.pictures
        expected = None if pictures.first(end).labels is None else pictures.expected(begin, end)
        late = time.monotonic() + PATIENCE
        return replace(
            score(
                here.snn,
                pictures.inputs(begin, end),
                expected,
                simulation_spec(settings),
                pictures.answers(begin, end),
                library.store(),
                stop,
                lambda: pause() or time.monotonic() > late,
            ),
            device=here.device,
        )

    def errors(self, settings: Settings, images: int, stop: Callable[[], bool]) -> dict[str, SiteSums]:
        """Return the conversion errors of the first images; their spikes are usually still in the store."""
        here = case(settings, stop)
        inputs = here.pictures.inputs(0, images)
        simulation = here.simulate(0, images, stop=stop)
        sites = {}
        for site in here.network.sites:
            if stop():
                raise engine.Cancelled("The run was stopped.")
            parts = analysis.error_parts(here.snn, inputs, simulation, (site.name,))[site.name]
            sites[site.name] = _site_sums(parts, here.snn.theta[site.name], simulation.v_end[site.name], settings.T)
        return sites


@dataclass(frozen=True, eq=False)
class Channel:
    """One channel of a site over some images, errors in units of theta.

    rms: [H, W] of the error at each place; parts: mean of each of its four parts, [H, W]; together they are the error.
    """

    sums: SiteSums
    rms: np.ndarray
    parts: dict[str, np.ndarray]
    images: int


def channel(settings: Settings, stop: Stop = None) -> Channel:
    """Return the errors of one channel (settings.layer, settings.channel), neuron by neuron, over the first images."""
    here, layer = case(settings, stop), settings.layer
    snn = here.snn
    images = here.pictures.available(ERROR_IMAGES)
    simulation = here.simulate(0, images, stop=stop)
    whole = analysis.error_parts(snn, here.pictures.inputs(0, images), simulation, (layer,))[layer]
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


def look(settings: Settings, stop: Stop = None) -> Look:
    """Run the chosen image and return scores, spike counts and activations of every site."""
    here, index = case(settings, stop), settings.image
    chosen = here.pictures.first(index + 1)
    if index >= len(chosen.images):
        raise DataError(f"image {index}: there are {len(chosen.images)} images. Choose 0 to {len(chosen.images) - 1}.")
    inputs = here.pictures.inputs(index, index + 1)
    simulation = here.simulate(index, index + 1, stop=stop)
    activations = here.network.activations(inputs)
    return Look(
        picture=np.asarray(chosen.images[index]),
        label=None if chosen.labels is None else int(chosen.labels[index]),
        classes=tuple(chosen.classes or here.card.classes),
        ann=here.network.forward(inputs)[0].float().numpy(),
        snn=simulation.logits[:, 0].float().numpy(),
        counts={name: count[0].numpy() for name, count in simulation.counts.items()},
        a={name: value[0].float().numpy() for name, value in activations.items()},
        theta={name: value.float().numpy() for name, value in here.snn.theta.items()},
        shapes={site.name: tuple(site.shape) for site in here.network.sites},
        device=here.device,
    )


def membrane(settings: Settings, neuron: int) -> analysis.Membrane:
    """Return the membrane of the neuron with this flat index in settings.layer on the chosen image."""
    here = case(settings)
    inputs = here.pictures.inputs(settings.image, settings.image + 1)
    return analysis.membrane(here.snn, inputs, settings.layer, neuron, settings.T, library.store(), settings.device)


def rasters(settings: Settings, neurons: int, stop: Stop = None) -> dict[str, np.ndarray]:
    """Return spikes uint8 [T, n] of up to so many neurons of every site on the chosen image."""
    here = case(settings, stop)
    names = tuple(site.name for site in here.network.sites)
    record = engine.Record(sites=names, neurons=neurons)
    run = here.simulate(settings.image, settings.image + 1, record, stop)
    return {name: run.spikes[name][:, 0].numpy() for name in names}


@dataclass(frozen=True, eq=False)
class Work:
    """Operations per image: additions by site and readout, multiply-accumulates done once, and on how many images."""

    additions: dict[str, float]
    constant: int
    images: int


def additions(settings: Settings, stop: Stop = None) -> Work:
    """Count the additions that the spikes of the first images cause; their trains are usually still in the store."""
    here = case(settings, stop)
    images = here.pictures.available(ERROR_IMAGES)
    run = here.simulate(0, images, engine.Record(v_end=False), stop)
    return Work(synapses.additions(here.network, run.counts), synapses.constant_macs(here.network), images)


def macs(network: str) -> dict[str, int]:
    """Return multiply-accumulates per image of the weights that feed each site, and of the readout."""
    return dict(library.loaded(network).network.macs())
