"""Thresholds from the activations of calibration images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from explorer.engine import kernels
from explorer.engine.errors import Cancelled, DataError, SpecError
from explorer.engine.graph import Network, Site
from explorer.engine.specs import CalibrationSpec, MaxActivation, MinSquaredError, Percentile, TrainedClip

BINS = 4096
CANDIDATES = 95  # shares 1.00, 0.99, ... 0.06 of the maximum, as in [Li2021]
TINY = 1e-30  # activations below are taken for zero: bins per unit would overflow float32
SILENT_THETA = 1.0  # of a site no calibration image excites; it stays silent at any positive threshold


class Batches(Protocol):
    """Normalised images [N, C, H, W], given slice by slice; a tensor is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, which: slice, /) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class ActivationStats:
    """What the threshold rules need to know of a site: maxima and a histogram per channel.

    maximum: float64 [C]; histogram: int64 [C, BINS] of activations over [0, top], zeros included. Two of the same `top`
    merge by adding up, in any order.
    """

    maximum: Tensor
    histogram: Tensor
    top: float

    def merge(self, other: ActivationStats) -> ActivationStats:
        """Return the statistics of both samples together."""
        assert self.top == other.top, "histograms over different ranges"
        maximum = torch.maximum(self.maximum, other.maximum)
        return ActivationStats(maximum, self.histogram + other.histogram, self.top)


@dataclass(frozen=True, eq=False)
class Calibration:
    """One threshold per site: `theta[site]`, float32, of shape `()` or `(C, 1, 1)` / `(C,)`, activation units.

    kept: the neurons last made of them (`conversion.convert`).
    """

    theta: dict[str, Tensor]
    spec: CalibrationSpec
    images: int
    silent: tuple[str, ...] = ()
    kept: dict[Any, Any] = field(init=False, repr=False, default_factory=dict)


def calibrate(
    network: Network,
    images: Batches,
    spec: CalibrationSpec | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Calibration:
    """Find every site's threshold.

    Args:
        network: a traced network.
        images: normalised calibration images [N, C, H, W], or what gives them slice by slice; not looked at by the
            rule TrainedClip.
        spec: the rule; by default the 99.9th percentile per site.
        on_progress: called with (passes done, passes to do).
        stop: asked before every pass; True ends the calibration.

    Raises:
        DataError: there is no image, or an activation is not finite.
        SpecError: TrainedClip on a network that has a site without a bound.
        Cancelled: stop said so.
    """
    spec = spec or CalibrationSpec()
    if isinstance(spec.rule, TrainedClip):
        return thresholds(network, {}, spec, 0)
    return thresholds(network, observe(network, images, on_progress, stop=stop), spec, len(images))


def thresholds(
    network: Network, stats: Mapping[str, ActivationStats], spec: CalibrationSpec, images: int
) -> Calibration:
    """Return every site's threshold by a rule, from what was observed on so many images (nothing for TrainedClip).

    Raises:
        SpecError: TrainedClip on a network that has a site without a bound.
    """
    if isinstance(spec.rule, TrainedClip):
        return Calibration({s.name: _trained_clip(s) for s in network.sites}, spec, 0)
    theta = {}
    for site in network.sites:
        theta[site.name] = site.rectified(_shaped(_threshold(stats[site.name], spec.rule), site))
    silent = tuple(name for name, s in stats.items() if s.top == 0)
    return Calibration(theta, spec, images, silent)


def observe(
    network: Network,
    images: Batches,
    on_progress: Callable[[int, int], None] | None = None,
    batch: int = 32,
    stop: Callable[[], bool] | None = None,
) -> dict[str, ActivationStats]:
    """Gather maxima and histograms of all sites in two passes over the images, at most `batch` at once, fewer if large.

    Raises:
        DataError: there is no image, or an activation is not finite.
        Cancelled: stop said so.
    """
    if len(images) == 0:
        raise DataError("Calibration needs at least 1 image, got none. Choose a data source with images.")
    batch = network.at_once(batch, keep_sites=True)
    starts = range(0, len(images), batch)
    maxima: dict[str, Tensor] = {}
    for done, i in enumerate(starts):
        _go_on(stop)
        for name, a in network.activations(images[i : i + batch]).items():
            here = _channel_maximum(a)
            maxima[name] = torch.maximum(maxima[name], here) if name in maxima else here
        if on_progress:
            on_progress(done + 1, 2 * len(starts))
    for name, m in maxima.items():
        if not torch.isfinite(m).all():
            raise DataError(f"{name}: an activation is not finite. Check the weights and the images' normalisation.")
    stats: dict[str, ActivationStats] = {}
    for done, i in enumerate(starts):
        _go_on(stop)
        for name, a in network.activations(images[i : i + batch]).items():
            part = histogram(a, maxima[name])
            stats[name] = stats[name].merge(part) if name in stats else part
        if on_progress:
            on_progress(len(starts) + done + 1, 2 * len(starts))
    return stats


def _go_on(stop: Callable[[], bool] | None) -> None:
    if stop is not None and stop():
        raise Cancelled("The calibration was stopped.")


def histogram(a: Tensor, maximum: Tensor) -> ActivationStats:
    """Return the statistics of activations [B, C, ...] over [0, largest of maximum]."""
    top = float(maximum.max())
    last = a.movedim(1, -1).contiguous().numpy()
    counts = kernels.histogram(last, BINS / top if top > TINY else 0.0, BINS)
    return ActivationStats(maximum, torch.from_numpy(counts), top)


def _channel_maximum(a: Tensor) -> Tensor:
    return a.amax(tuple(d for d in range(a.ndim) if d != 1)).double()


def _threshold(stats: ActivationStats, rule: MaxActivation | Percentile | MinSquaredError) -> Tensor:
    """Return thresholds per channel, [C] or [1], all positive."""
    if stats.top <= TINY:
        return torch.full((1,), SILENT_THETA, dtype=torch.float64)
    counts, maximum = stats.histogram, stats.maximum
    if rule.per == "site":
        counts, maximum = counts.sum(0, keepdim=True), maximum.max()[None]
    match rule:
        case MaxActivation():
            theta = maximum
        case Percentile(p=p):
            theta = torch.minimum(_percentile(counts, p, stats.top), maximum)
        case MinSquaredError(T=T):
            theta = _least_squares(counts, maximum, stats.top, T)
    return torch.where(theta > 0, theta, stats.top)


def _percentile(counts: Tensor, p: float, top: float) -> Tensor:
    """Return the p-th percentile of each row's activations, linear within a bin of width top / BINS."""
    cumulative = counts.cumsum(1).double()
    target = cumulative[:, -1:] * p / 100
    bin_ = torch.searchsorted(cumulative, target).clamp(max=BINS - 1)
    before = torch.where(bin_ > 0, cumulative.gather(1, (bin_ - 1).clamp(min=0)), 0.0)
    inside = ((target - before) / counts.gather(1, bin_).clamp(min=1)).clamp(0, 1)
    return ((bin_ + inside) * (top / BINS))[:, 0]


def _least_squares(counts: Tensor, maximum: Tensor, top: float, T: int) -> Tensor:
    """Return, per row, the share of the maximum whose T-step staircase errs least in the mean square."""
    a = (torch.arange(BINS, dtype=torch.float64) + 0.5) * (top / BINS)
    a[0] = 0.0
    weight = counts.double()
    best = torch.full_like(maximum, torch.inf)
    theta = maximum.clone()
    for i in range(CANDIDATES):
        candidate = (maximum * (1 - 0.01 * i)).clamp(min=1e-12)[:, None]
        a_hat = (a * T / candidate + 0.5).floor_().clamp_(0, T) * (candidate / T)
        error = (weight * (a_hat - a).square_()).sum(1)
        better = error < best
        best, theta = torch.where(better, error, best), torch.where(better, candidate[:, 0], theta)
    return theta


def _trained_clip(site: Site) -> Tensor:
    if site.cap is None:
        raise SpecError(
            f"{site.name}: an unbounded ReLU has no trained clip. Choose the rule 'maximum' or 'percentile', "
            "or a network trained with the clip."
        )
    return torch.as_tensor(site.bound, dtype=torch.float32)


def _shaped(theta: Tensor, site: Site) -> Tensor:
    value = theta.float()
    if len(value) == 1:
        return value[0]
    return value.reshape(-1, *(1,) * (len(site.shape) - 1))
