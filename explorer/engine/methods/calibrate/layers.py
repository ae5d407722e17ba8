"""Front to back through the sites: fit each one's neurons to what arrives there from those fitted before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from explorer.engine.conversion import SpikingNetwork
from explorer.engine.graph import Site
from explorer.engine.kernels import backend
from explorer.engine.methods.calibrate import parts
from explorer.engine.methods.calibrate.parts import Best
from explorer.engine.methods.calibrate.sample import Sample
from explorer.engine.methods.calibrate.scanner import Scanner, Trial
from explorer.engine.methods.fitting import by_channel
from explorer.engine.neurons.parameters import Neurons

LEAST_TOP = 0.02  # of the site's threshold: the scale of channels that hardly speak


@dataclass(frozen=True)
class Parts:
    """Which parts run. steps: rounds of moving single steps' shifts, 0 for none."""

    threshold: bool = True
    shift: bool = True
    amplitude: bool = True
    even: bool = True
    steps: int = 2


@dataclass(frozen=True)
class LayerError:
    """A site's error on calibration images: E[(a_hat - a)^2] / E[a^2], with its neurons as they were, and fitted.

    Both on the spikes that arrive from layers already calibrated.
    """

    site: str
    before: float
    after: float


def fit_layers(
    sample: Sample,
    base: SpikingNetwork,
    which: Parts,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[SpikingNetwork, tuple[LayerError, ...]]:
    """Return the network with every site's neurons fitted, and each site's error before and after.

    Raises:
        Cancelled: the probe's stop said so.
    """
    snn, rows = base, []
    for done, site in enumerate(base.network.sites):
        own = base.neurons[site.name]
        neurons, row = fit_site(site, own, sample, snn, which)
        snn = replace(snn, neurons={**snn.neurons, site.name: neurons})
        rows.append(row)
        if on_progress:
            on_progress(done + 1, len(base.network.sites))
    return snn, tuple(rows)


def fit_site(site: Site, own: Neurons, sample: Sample, snn: SpikingNetwork, which: Parts) -> tuple[Neurons, LayerError]:
    """Fit one site's neurons to the currents that arrive there."""
    x, a = sample.currents(snn, site.name), sample.activations[site.name]
    start = sample.start(site, own.start)
    scanner = Scanner(backend("cpu"), own.law, x, a, start, which.amplitude)
    theta = own.theta.reshape(-1).expand(site.channels).contiguous()
    first = Trial(theta, theta, torch.zeros(sample.T, site.channels))
    _, before = replace(scanner, regress=False).measured(first)
    best = Best(first, before)
    top = torch.maximum(a.amax(0), LEAST_TOP * theta.max())
    if which.threshold:
        best = parts.thresholds(scanner, best, top)
    elif which.amplitude:
        best = best.against(scanner, first)
    if which.shift:
        best = parts.shift(scanner, best)
    if which.even:
        best = parts.even(scanner, best)
    if which.steps:
        best = parts.steps(scanner, best, which.steps)
    if which.threshold and (which.shift or which.even or which.steps):
        best = parts.nearby(scanner, best)
    whole = max(float(scanner.power.sum()), 1e-30)
    row = LayerError(site.name, float(before.sum()) / whole, float(best.error.sum()) / whole)
    return _neurons(site, own, best.trial), row


def _neurons(site: Site, own: Neurons, trial: Trial) -> Neurons:
    """Write a trial as neurons; what is as without it is left out."""
    shift = by_channel(trial.shift, site) if bool(trial.shift.any()) else None
    if shift is not None and bool((trial.shift == trial.shift[0]).all()):
        shift = by_channel(trial.shift[0], site)
    amplitude = None if torch.equal(trial.amplitude, trial.theta) else by_channel(trial.amplitude, site)
    return replace(own, theta=by_channel(trial.theta, site), shift=shift, amplitude=amplitude)
