"""What the engine measures: hits and spikes image by image, one image for a close look, one neuron's membrane.

Imports torch, so it is itself imported only when the first number is needed. Everything returned is NumPy.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from explorer import engine
from explorer.engine import analysis, methods, synapses
from explorer.engine.errors import DataError, SpecError
from explorer.engine.graph import report
from explorer.engine.methods import Fitted, names
from explorer.engine.methods.catalogue.calibrate import Calibrated
from explorer.engine.methods.catalogue.differential import DifferentialRun
from explorer.engine.methods.coded import Coded, depths
from explorer.engine.methods.fitted import TwoPhases
from explorer.engine.theory import PARTS
from explorer.study import library
from explorer.study.case import case, is_ready
from explorer.study.results import EDGES_A, EDGES_V, ERROR_IMAGES, Result, SiteSums, rate_edges
from explorer.study.seen import Channel, Described, Facts, Look, Membrane, Windows, Work
from explorer.study.settings import Settings
from explorer.study.translate import simulation_spec

Stop = Callable[[], bool] | None
PATIENCE = 0.6  # seconds after which a slice hands over what it has, so that others have their turn


def score(
    snn: engine.SpikingNetwork | Fitted,
    inputs: torch.Tensor,
    expected: np.ndarray | None,
    spec: engine.SimulationSpec,
    ann: np.ndarray | None = None,
    store: engine.SpikeStore | None = None,
    stop: Callable[[], bool] | None = None,
    pause: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int, int], None] | None = None,
    additions: bool = False,
) -> Result:
    """Simulate images and tell of each, after every step, whether its answer is right: the one place that counts hits.

    Args:
        snn: a converted network, or a method's fitted conversion.
        inputs: normalised float32 [B, C, H, W].
        expected: the right class of each image, int [B]; None: the ANN's answer counts as right.
        spec: steps and device; what it records is not kept.
        ann: the ANN's answers, int [B], where they are known already.
        store: where spike trains are kept.
        stop: asked within; True ends the run at once. What is done by then is returned.
        pause: asked after every chunk of images; True ends the run there.
        on_progress: called after every chunk with (images done, images).
        additions: whether they are counted.

    Returns:
        The first images, at least one chunk of them.

    Raises:
        Cancelled: stop said so before the first chunk was done.
        ExplorerError: images or settings do not fit the network.
    """
    fitted = snn if isinstance(snn, Fitted) else Fitted(methods.get("opi")(), snn, spec.T)
    network = fitted.network
    answers, spikes, seconds, added, done = [], [], [], 0.0, 0
    try:
        how: Any = {"store": store, "stop": stop, "device": spec.device, "chunk": spec.chunk}
        for part in fitted.run_chunks(inputs, spec.T, additions=additions, **how):
            count = part.logits.shape[1]
            answers.append(part.logits.argmax(2).T.numpy())
            spikes.append({name: n.numpy() for name, n in part.spikes.items()})
            seconds.append(np.full(count, part.seconds / count))
            added += float(part.added.sum()) if additions else 0.0
            done += count
            if on_progress:
                on_progress(done, len(inputs))
            if pause():
                break
    except engine.Cancelled:
        if not done:
            raise
    if ann is None:
        ann = network.forward(inputs[:done]).argmax(1).numpy()
    expected_ = ann[:done] if expected is None else np.asarray(expected)[:done]
    sites, right = network.sites, np.concatenate(answers) == expected_[:, None]
    right[:, : fitted.answers_from - 1] = False
    return Result(
        spec.T,
        right=right,
        ann_right=ann[:done] == expected_,
        spikes={site.name: np.concatenate([part[site.name] for part in spikes]).astype(np.int64) for site in sites},
        neurons={site.name: int(np.prod(site.shape)) for site in sites},
        theta={site.name: float(fitted.snn.theta[site.name].float().mean()) for site in sites},
        seconds=np.concatenate(seconds),
        labelled=expected is not None,
        answers_from=fitted.answers_from,
        extra=fitted.extra,
        bits=fitted.bits,
        additions=added / done,
        added_images=done if additions else 0,
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
                here.fitted,
                pictures.inputs(begin, end),
                expected,
                simulation_spec(settings),
                pictures.answers(begin, end),
                library.store(),
                stop,
                lambda: pause() or time.monotonic() > late,
                additions=begin == 0,
            ),
            device=here.device,
        )

    def ready(self, settings: Settings) -> bool:
        """Tell whether a method's conversion is at hand."""
        return is_ready(settings)

    def prepare(self, settings: Settings, stop: Callable[[], bool]) -> None:
        """Fit a method, which may take long."""
        case(settings, stop)

    def errors(self, settings: Settings, images: int, stop: Callable[[], bool]) -> dict[str, SiteSums]:
        """Return the conversion errors of the first images; their spikes are usually still in the store."""
        watched, sites = case(settings, stop).watch(0, images, stop), {}
        for name in watched.spikes:
            if stop():
                raise engine.Cancelled("The run was stopped.")
            theta, v_end = watched.snn.theta[name], watched.v_end(name)
            sites[name] = _site_sums(watched.error_parts(name), theta, v_end, settings.T)
        return sites


def channel(settings: Settings, stop: Stop = None) -> Channel:
    """Return the errors of one channel (settings.layer, settings.channel), neuron by neuron, over the first images."""
    here, layer = case(settings, stop), settings.layer
    watched = here.watch(0, here.pictures.available(ERROR_IMAGES), stop)
    whole, images = watched.error_parts(layer), len(watched.images)
    shape = whole.total.shape[:2] + (1,) * (4 - whole.total.dim()) + whole.total.shape[2:]
    theta = torch.broadcast_to(watched.snn.theta[layer], whole.total.shape[1:]).reshape(shape[1:])[settings.channel]
    one = {name: getattr(whole, name).reshape(shape)[:, settings.channel] for name in ("a", "a_hat", "total", *PARTS)}
    v_end = watched.v_end(layer).reshape(shape)[:, settings.channel]
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


def facts(fitted: Fitted) -> Facts:
    """Return what there is to say of a fitted conversion."""
    neurons = fitted.snn.neurons
    told: dict[str, Any] = {}
    if isinstance(fitted, Calibrated):
        told["layers"] = tuple((row.site, row.before, row.after) for row in fitted.layers)
        told["kept"] = fitted.kept
        if fitted.held is not None:
            told["held"] = (fitted.held.images, fitted.held.opi, fitted.held.calibrated)
    return Facts(
        fitted.extra,
        fitted.bits,
        fitted.skipped,
        tuple(name for name, own in neurons.items() if own.amplitude is not None),
        tuple(name for name, own in neurons.items() if own.shift is not None),
        fitted.snn.network is not fitted.network,
        most=max(own.law.most for own in neurons.values()),
        bounded=not isinstance(fitted, DifferentialRun),
        decoded=isinstance(fitted, Coded | DifferentialRun),
        coded=isinstance(fitted, Coded),
        rounds=fitted.extra // fitted.steps if isinstance(fitted, TwoPhases) else 1,
        **told,
    )


def stairs(fitted: Fitted) -> dict[str, float]:
    """Return v(0) / theta of each site's staircase clip(floor(T a / theta + v(0) / theta), 0, T) theta / T.

    A shift that is the same for all neurons and steps counts as a start T times as large. Sites without one staircase,
    or with another, have none: starts by image or neuron, codes, spikes worth more or less than a threshold, what is
    added to currents or to what is sent.
    """
    if isinstance(fitted, TwoPhases):
        return {}
    if isinstance(fitted, Coded) and (fitted.levels != fitted.T or fitted.before or fitted.after):
        return {}
    found = {}
    for site in fitted.network.sites:
        own = fitted.snn.neurons[site.name]
        if own.amplitude is not None or own.gate is not None or own.law.most > 1:
            continue
        start = own.initial_potential(site, [b"one", b"other"]) / own.theta
        if own.shift is not None:
            start = start + (own.shift.sum(0) if own.timed(site) else fitted.T * own.shift) / own.theta
        if float(start.max() - start.min()) < 1e-5:
            found[site.name] = float(start.mean())
    return found


def _mean_start(snn: engine.SpikingNetwork, site: engine.Site) -> float:
    """Return the mean of v(0) / theta over a site's neurons."""
    v = snn.initial_potential(site, [b"mean"])
    return float((v / snn.theta[site.name]).float().mean())


def look(settings: Settings, stop: Stop = None, on_progress: Callable[[int, int], None] | None = None) -> Look:
    """Run the chosen image and return scores, spike counts and activations of every site; on_progress: see `case`."""
    here, index = case(settings, stop, on_progress), settings.image
    chosen = here.pictures.first(index + 1)
    if index >= len(chosen.images):
        raise DataError(f"image {index}: there are {len(chosen.images)} images. Choose 0 to {len(chosen.images) - 1}.")
    watched = here.watch(index, index + 1, stop)
    activations = here.network.activations(watched.images)
    return Look(
        picture=np.asarray(chosen.images[index]),
        label=None if chosen.labels is None else int(chosen.labels[index]),
        classes=tuple(chosen.classes or here.card.classes),
        ann=here.network.forward(watched.images)[0].float().numpy(),
        snn=watched.logits[:, 0].float().numpy(),
        counts={name: watched.sent(name)[0].numpy() for name in watched.spikes},
        a={name: value[0].float().numpy() for name, value in activations.items()},
        theta={name: value.float().numpy() for name, value in here.snn.theta.items()},
        start={site.name: _mean_start(here.snn, site) for site in here.network.sites},
        stairs=stairs(here.fitted),
        facts=facts(here.fitted),
        shapes={site.name: tuple(site.shape) for site in here.network.sites},
        depths=depths(here.network),
        device=here.device,
    )


def membrane(settings: Settings, neuron: int) -> Membrane:
    """Return the membrane of the neuron with this flat index in settings.layer on the chosen image."""
    return carried(case(settings).watch(settings.image, settings.image + 1).membrane(settings.layer, neuron))


def carried(got: analysis.Membrane) -> Membrane:
    """Return a membrane without torch."""
    x, v_before, v, z, decoded = (part.float().numpy() for part in (got.x, got.v_before, got.v, got.z, got.decoded))
    before = None if got.before is None else carried(got.before)
    told = (float(got.theta), float(got.v0), float(got.a))
    return Membrane(
        *(x, v_before, v, z, *told, decoded),
        muted=got.muted,
        before=before,
        skipped=got.skipped,
        sends_later=got.sends_later,
        stretches=got.stretches,
        fires_at=got.fires_at,
        sized=got.sized,
    )


def rasters(settings: Settings, neurons: int, stop: Stop = None) -> dict[str, np.ndarray]:
    """Return spikes uint8 [T, n] of up to so many neurons of every site on the chosen image."""
    watched = case(settings, stop).watch(settings.image, settings.image + 1, stop)
    shown = watched.rasters(tuple(watched.spikes), neurons)
    return {name: z[:, 0].numpy() for name, z in shown.items()}


def additions(settings: Settings, stop: Stop = None) -> Work:
    """Count the additions that the spikes of the first images cause; their trains are usually still in the store."""
    here = case(settings, stop)
    images = here.pictures.available(ERROR_IMAGES)
    inputs, how = here.pictures.inputs(0, images), {"store": library.store(), "stop": stop}
    outcome = here.fitted.run(inputs, device=settings.device, **how)
    added = {name: float(each.mean()) for name, each in outcome.additions.items()}
    return Work(added, synapses.constant_macs(here.network), images)


def windows(settings: Settings, begin: int, end: int, stop: Stop = None) -> Windows:
    """Read images [begin, end) over every window of steps; their trains are often still in the store.

    Raises:
        SpecError: the conversion answers once, after all of its steps.
    """
    here = case(settings, stop)
    if here.fitted.answers_from > 1:
        raise SpecError(
            f"{names.title(settings.method)}: each neuron sends one code, so there is an answer after all steps alone, "
            "and no window of them. Choose a method whose spikes are counted."
        )
    pictures = here.pictures
    whole, expected, done = replace(here.fitted, skipped=0), pictures.expected(begin, end), 0
    hits = np.zeros((settings.T, settings.T), np.int64)
    how: dict[str, Any] = {"store": library.store(), "stop": stop, "device": settings.device, "additions": False}
    for part in whole.run_chunks(pictures.inputs(begin, end), settings.T, **how):
        labels = torch.from_numpy(np.asarray(expected[done : done + part.logits.shape[1]]).astype(np.int64))
        hits += analysis.window_hits(part.logits, labels).numpy()
        done += len(labels)
    return Windows(
        hits,
        done,
        here.fitted.left_out,
        pictures.first(end).labels is not None,
        int((pictures.answers(begin, end) == expected).sum()),
    )


def constant(network: str) -> int:
    """Return multiply-accumulates per image that are done once, whatever T is: those of the first layer's current."""
    return synapses.constant_macs(library.loaded(network).network)


def macs(network: str) -> dict[str, int]:
    """Return multiply-accumulates per image of the weights that feed each site, and of the readout."""
    return dict(library.loaded(network).network.macs())


def first(network: str, source: str, n: int) -> np.ndarray:
    """Return the first n evaluation images of a source as the network wants them, uint8 [N, H, W, C]."""
    return np.asarray(library.pictures(network, source).first(n).images)


def how_chosen(network: str, source: str, n: int) -> str:
    """Return how the first n images of a source were chosen, in words; "" where there was no choice."""
    return library.pictures(network, source).first(n).note


def available(network: str, source: str, n: int) -> int:
    """Return how many images a source has of so many."""
    return library.pictures(network, source).available(n)


def describe(name: str) -> Described:
    """Return what the conversion does to a network."""
    return described(library.loaded(name))


def described(loaded: library.Loaded) -> Described:
    """Return what the conversion does to a network that is loaded."""
    told = report.conversion_report(loaded.network)
    return Described(
        tuple(loaded.network.input_shape),
        len(loaded.card.classes),
        loaded.card.parameters,
        told.summary(),
        tuple(map(str, told.unsupported)),
        report.HEAD,
        told.lines,
    )


ENGINE = Engine()
