"""Front to back through the sites: fit each one's neurons to what arrives there from those fitted before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from explorer.engine.compile.plan import READOUT, plan_for
from explorer.engine.conversion import SpikingNetwork
from explorer.engine.graph import Site
from explorer.engine.kernels import backend
from explorer.engine.methods.calibrate import parts
from explorer.engine.methods.calibrate.parts import Best
from explorer.engine.methods.calibrate.refit import layer_before, own_copy, ridge, sealed
from explorer.engine.methods.calibrate.sample import Sample
from explorer.engine.methods.calibrate.scanner import Scanner, Trial
from explorer.engine.methods.fitting import by_channel
from explorer.engine.neurons.parameters import Neurons

LEAST_TOP = 0.02  # of the site's threshold: the scale of channels that hardly speak


@dataclass(frozen=True)
class Parts:
    """Which parts run. steps: rounds of moving single steps' shifts, 0 for none; ridge: see `refit`."""

    threshold: bool = True
    shift: bool = True
    amplitude: bool = True
    even: bool = True
    steps: int = 2
    weights: bool = False
    ridge: float = 1e-3


@dataclass(frozen=True)
class LayerError:
    """A site's error on calibration images: E[(a_hat - a)^2] / E[a^2], with its neurons as they were, and fitted.

    Both on the spikes that arrive from layers already calibrated. refitted: the share of channels with new weights.
    """

    site: str
    before: float
    after: float
    refitted: float = 0.0


def fit_layers(
    sample: Sample,
    base: SpikingNetwork,
    which: Parts,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[SpikingNetwork, tuple[LayerError, ...]]:
    """Return the network with every site's neurons fitted, and each site's error before and after.

    Where weights are refitted it is a new network; the given one is left as it is.

    Raises:
        Cancelled: the probe's stop said so.
    """
    snn, rows = base, []
    if which.weights:
        snn = replace(base, network=own_copy(base.network))
    for done, site in enumerate(base.network.sites):
        neurons, row = fit_site(site, sample, snn, which)
        snn = replace(snn, neurons={**snn.neurons, site.name: neurons})
        rows.append(row)
        if on_progress:
            on_progress(done + 1, len(base.network.sites))
    if which.weights:
        _refit_readout(sample, snn, which.ridge)
        snn = replace(snn, network=sealed(snn.network))
    return snn, tuple(rows)


def fit_site(site: Site, sample: Sample, snn: SpikingNetwork, which: Parts) -> tuple[Neurons, LayerError]:
    """Fit one site's neurons, and the weights before it, to the spikes that arrive there."""
    own, x = snn.neurons[site.name], sample.currents(snn, site.name)
    best, before, power = fit_neurons(site, own, sample, x, which)
    refitted = 0.0
    if which.weights:
        plan = plan_for(snn.network, True)
        layer = layer_before(snn.network, plan.by_name[site.name].value, plan.dynamic)
        if layer is not None:
            u = sample.patches(snn, site.name, layer)
            delta = ridge(u, sample.inputs[site.name] - x.mean(0), which.ridge)
            old = layer.change(delta)
            snn.network.plans.clear()
            again, _, _ = fit_neurons(site, own, sample, sample.currents(snn, site.name), which)
            better = again.error < best.error
            layer.keep(old, better)
            snn.network.plans.clear()
            best = Best(best.trial.mixed(again.trial, better), torch.where(better, again.error, best.error))
            refitted = float(better.double().mean())
    whole = max(float(power.sum()), 1e-30)
    row = LayerError(site.name, float(before.sum()) / whole, float(best.error.sum()) / whole, refitted)
    return _neurons(site, own, best.trial), row


def fit_neurons(site: Site, own: Neurons, sample: Sample, x: Tensor, which: Parts) -> tuple[Best, Tensor, Tensor]:
    """Fit a site's neurons to currents x, float32 [T, S, C].

    Returns the best parameters, and per channel, float64 [C], the error of the neurons as they were, and E[a^2].
    """
    a = sample.activations[site.name]
    start, go_on = sample.start(site, own.start), sample.probe.go_on
    scanner = Scanner(backend("cpu"), own.law, x, a, start, which.amplitude, go_on)
    theta = own.theta.reshape(-1).expand(site.channels).contiguous()
    first = Trial(theta, theta, torch.zeros(sample.T, site.channels))
    _, before = replace(scanner, regress=False).measured(first)
    best = Best(first, before)
    if which.amplitude:
        best = best.against(scanner, first)
    if which.threshold:
        best = parts.thresholds(scanner, best, torch.maximum(a.amax(0), LEAST_TOP * theta.max()))
    if which.shift:
        best = parts.shift(scanner, best)
    if which.even:
        best = parts.even(scanner, best)
    if which.steps:
        best = parts.steps(scanner, best, which.steps)
    if which.threshold and (which.shift or which.even or which.steps):
        best = parts.nearby(scanner, best)
    return best, before, scanner.power


def _refit_readout(sample: Sample, snn: SpikingNetwork, share: float) -> None:
    """Refit the last layer so that its mean scores come close to the ANN's."""
    plan = plan_for(snn.network, True)
    layer = layer_before(snn.network, plan.readout.value, plan.dynamic)
    if layer is None:
        return
    u = sample.patches(snn, READOUT, layer)
    now = torch.cat(
        [
            sample.probe.walk(snn, chunk, sample.T).mean_value(READOUT, plan.readout.value.name)
            for chunk in sample.probe.chunks(sample.T)
        ]
    )
    layer.change(ridge(u, sample.scores - now, share))
    snn.network.plans.clear()


def _neurons(site: Site, own: Neurons, trial: Trial) -> Neurons:
    """Write a trial as neurons; what is as without it is left out."""
    shift = by_channel(trial.shift, site) if bool(trial.shift.any()) else None
    if shift is not None and bool((trial.shift == trial.shift[0]).all()):
        shift = by_channel(trial.shift[0], site)
    amplitude = None if torch.equal(trial.amplitude, trial.theta) else by_channel(trial.amplitude, site)
    return replace(own, theta=by_channel(trial.theta, site), shift=shift, amplitude=amplitude)
