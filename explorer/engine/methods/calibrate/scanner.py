"""Spikes of a sample of one site's neurons, again and again under other parameters: what every part of a fit asks.

The currents that arrive are kept, so a trial repeats the law's scan and nothing else, in the same arithmetic as a run.
Counts are whole numbers, and activations are rounded to 2^-18 of the site's largest, so that all sums are exact: they
do not depend on the order of images, on threads, or on how the sample is cut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from explorer.engine.compile.layout import padded
from explorer.engine.kernels.protocol import Backend, Constant, Given
from explorer.engine.neurons import Law

LEVELS = 2**18
LEAST = 1024  # neurons per channel that a thinned sample has


@dataclass(frozen=True, eq=False)
class Trial:
    """Parameters of a site's C channels: theta and amplitude float32 [C], shift float32 [T, C]; activation units."""

    theta: Tensor
    amplitude: Tensor
    shift: Tensor

    def mixed(self, other: Trial, better: Tensor) -> Trial:
        """Return the other trial's channels where `better`, bool [C], says so, and these elsewhere."""
        pairs = ((self.theta, other.theta), (self.amplitude, other.amplitude), (self.shift, other.shift))
        return Trial(*(torch.where(better, new, old) for old, new in pairs))


@dataclass(frozen=True, eq=False)
class Sums:
    """What a trial's spikes add up to per channel, over the sample: n, n^2 and n a, float64 [C]."""

    n: Tensor
    nn: Tensor
    na: Tensor


@dataclass(frozen=True, eq=False)
class Scanner:
    """A site's neurons at S sampled places, and how well they tell the ANN's activations.

    x: currents that arrive, float32 [T, S, C]; a: the ANN's activations there, float32 [S, C]; start: v(0) / theta,
    float32 [S, C] or [1, C]; regress: whether the worth of a spike is fitted, or equals its threshold; go_on: called
    before every trial, raises where the fit is to stop.
    """

    backend: Backend
    law: Law
    x: Tensor
    a: Tensor
    start: Tensor
    regress: bool = True
    go_on: Callable[[], None] = lambda: None

    @property
    def T(self) -> int:
        """Steps."""
        return self.x.shape[0]

    @property
    def size(self) -> int:
        """Sampled neurons per channel."""
        return self.x.shape[1]

    def thinned(self, every: int) -> Scanner:
        """Return a scanner of every so manieth neuron, or this one where few would be left."""
        if self.size < every * LEAST:
            return self
        start = self.start[::every] if len(self.start) > 1 else self.start
        return replace(self, x=self.x[:, ::every].contiguous(), a=self.a[::every].contiguous(), start=start)

    @cached_property
    def _unit(self) -> float:
        top = float(self.a.max())
        return top / LEVELS if top > 0 else 1.0

    @cached_property
    def _whole(self) -> Tensor:
        """The activations in units of 2^-18 of the largest, whole numbers in float64."""
        return torch.round(self.a.double() / self._unit)

    @cached_property
    def power(self) -> Tensor:
        """The mean square of the activations, float64 [C]: the error of a channel that is silent."""
        return self._whole.square().sum(0) * self._unit**2 / self.size

    @cached_property
    def mean(self) -> Tensor:
        """The mean activation, float64 [C]."""
        return self._whole.sum(0) * self._unit / self.size

    @cached_property
    def _given(self) -> Tensor:
        return self._stored(self.x).reshape(self.T * self.size, -1).contiguous().to(self.backend.device)

    def _stored(self, value: Tensor, fill: float = 0.0) -> Tensor:
        """Pad the channels to whole vectors."""
        missing = padded(value.shape[-1]) - value.shape[-1]
        return F.pad(value, (0, missing), value=fill) if missing else value

    def train(self, trial: Trial) -> Tensor:
        """Return the train, uint8 [plane, S, 1, T, bytes], that the sampled neurons send."""
        self.go_on()
        v = self._stored(self.start * trial.theta).expand(self.size, -1)[:, None].contiguous()
        state = self.backend.start(v, self.law.memory)
        current = Given((self._given,), Constant(self._stored(trial.shift).contiguous(), timed=True))
        theta = self._stored(trial.theta, torch.inf)
        return self.backend.scan(current, self.law, theta, state, self.T)

    def sums(self, trial: Trial) -> Sums:
        """Add a trial's spikes up."""
        counts = self.backend.release(self.backend.count(self.train(trial), self.law.planes, None))
        n = counts[:, 0, : self.x.shape[2]].astype(np.float64)
        # einsum writes no products: on large samples new memory for them takes longer than the sums.
        nn, na = (torch.from_numpy(np.einsum("sc,sc->c", n, other)) for other in (n, self._whole.numpy()))
        return Sums(torch.from_numpy(n.sum(0)), nn, na * self._unit)

    def per_step(self, trial: Trial) -> Tensor:
        """Return what each step's spikes are worth on average: float64 [T, C], activation units."""
        train = self.backend.release(self.train(trial))[:, :, 0]
        bits = (np.unpackbits(plane, axis=-1, bitorder="little") for plane in train)
        z = sum(n * plane.sum(0, dtype=np.int64) for n, plane in zip(self.law.planes, bits, strict=True))
        return trial.amplitude.double() * torch.from_numpy(z[:, : self.x.shape[2]]).double() / self.size

    def measured(self, trial: Trial) -> tuple[Trial, Tensor]:
        """Return the trial, its worth fitted if asked, and its mean squared error (theta n / T - a)^2, float64 [C]."""
        sums = self.sums(trial)
        if self.regress:
            fitted = self.T * sums.na / sums.nn.clamp(min=1)
            trial = replace(trial, amplitude=torch.where(fitted > 0, fitted, trial.theta.double()).float())
        worth = trial.amplitude.double() / self.T
        return trial, (worth.square() * sums.nn - 2 * worth * sums.na) / self.size + self.power

    def bias(self, trial: Trial) -> Tensor:
        """Return the mean of the ANN's activation less the decoded one, float64 [C]."""
        return self.mean - trial.amplitude.double() * self.sums(trial).n / (self.T * self.size)
