"""Settings as small frozen values: cache key, share link and exported configuration at once.

Every spec checks itself once, when it is made; what gets past the constructor is valid everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from explorer.engine.errors import SpecError
from explorer.engine.neurons import law_named

T_MAX = 256
Per = Literal["site", "channel"]


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise SpecError(message)


def _finite(value: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def check_steps(T: int) -> None:
    """Require 1 <= T <= 256.

    Raises:
        SpecError: T is not a whole number in that range.
    """
    whole = isinstance(T, int) and not isinstance(T, bool)
    _require(whole and T >= 1, f"T: at least 1 time-step, got {T}. Choose a whole number from 1 to {T_MAX}.")
    _require(T <= T_MAX, f"T: at most {T_MAX} time-steps, got {T}. Choose a whole number from 1 to {T_MAX}.")


def _check_per(per: str) -> None:
    _require(per in ("site", "channel"), f"per: 'site' or 'channel', got {per!r}.")


@dataclass(frozen=True)
class MaxActivation:
    """theta = the largest activation seen, per site or per channel. [Diehl2015]"""

    per: Per = "site"

    def __post_init__(self) -> None:
        _check_per(self.per)


@dataclass(frozen=True)
class Percentile:
    """theta = the p-th percentile of all activations, zeros included, per site or per channel. [Rueckauer2017]"""

    p: float = 99.9
    per: Per = "site"

    def __post_init__(self) -> None:
        ok = _finite(self.p) and 0 < self.p <= 100
        _require(ok, f"percentile: above 0 and at most 100, got {self.p}. The literature uses 99 to 99.99.")
        _check_per(self.per)


@dataclass(frozen=True)
class TrainedClip:
    """theta = the upper bound the network was trained with (trainable clip, ReLU6). [Bu2022]"""


@dataclass(frozen=True)
class MinSquaredError:
    """theta = the one whose staircase of T steps, started at one half, has the least squared error.

    Searched among shares of the largest activation, per site or per channel. [Li2021]
    """

    T: int = 32
    per: Per = "channel"

    def __post_init__(self) -> None:
        check_steps(self.T)
        _check_per(self.per)


ThresholdRule = MaxActivation | Percentile | TrainedClip | MinSquaredError


@dataclass(frozen=True)
class CalibrationSpec:
    """How thresholds come from activations on calibration images."""

    rule: ThresholdRule = field(default_factory=Percentile)

    def __post_init__(self) -> None:
        kinds = (MaxActivation, Percentile, TrainedClip, MinSquaredError)
        _require(isinstance(self.rule, kinds), f"rule: a threshold rule, got {self.rule!r}.")


def check_v_init(value: float, where: str = "v_init") -> None:
    """Require a finite share of the threshold between -1 and 2.

    Raises:
        SpecError: it is not.
    """
    ok = _finite(value) and -1 <= value <= 2
    _require(ok, f"{where}: a share of the threshold from -1 to 2, got {value}. One half is OPI's choice.")


def check_scale(value: float, where: str = "threshold scale") -> None:
    """Require a finite scale above zero and at most 100.

    Raises:
        SpecError: it is not.
    """
    ok = _finite(value) and 0 < value <= 100
    _require(ok, f"{where}: finite, above 0 and at most 100, got {value}. 1 keeps the threshold as calibrated.")


@dataclass(frozen=True)
class ConstantStart:
    """v(0) = value * theta in every neuron. [Bu2022]"""

    value: float = 0.5

    def __post_init__(self) -> None:
        check_v_init(self.value)


@dataclass(frozen=True)
class UniformStart:
    """v(0) = u * theta, u uniform in [low, high), drawn per neuron and image from the seed."""

    low: float = 0.0
    high: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_v_init(self.low, "v_init low")
        check_v_init(self.high, "v_init high")
        _require(self.low <= self.high, f"v_init: low {self.low} is above high {self.high}. Swap them.")
        _require(isinstance(self.seed, int) and self.seed >= 0, f"seed: a whole number from 0, got {self.seed}.")


@dataclass(frozen=True)
class GaussianStart:
    """v(0) = g * theta, g normal with this mean and deviation, drawn per neuron and image from the seed."""

    mean: float = 0.5
    std: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        check_v_init(self.mean, "v_init mean")
        ok = _finite(self.std) and 0 <= self.std <= 2
        _require(ok, f"v_init deviation: from 0 to 2 thresholds, got {self.std}.")
        _require(isinstance(self.seed, int) and self.seed >= 0, f"seed: a whole number from 0, got {self.seed}.")


InitialPotential = ConstantStart | UniformStart | GaussianStart


@dataclass(frozen=True)
class SiteSetting:
    """What one site does differently; None keeps what the whole network does.

    threshold_scale multiplies the site's calibrated threshold in place of the global scale; v_init is a share of the
    threshold that then results.
    """

    threshold_scale: float | None = None
    v_init: float | None = None

    def __post_init__(self) -> None:
        if self.threshold_scale is not None:
            check_scale(self.threshold_scale)
        if self.v_init is not None:
            check_v_init(self.v_init)


@dataclass(frozen=True)
class ConversionSpec:
    """Thresholds and initial potentials of the spiking network, as changes to the calibration.

    sites is a tuple of (site name, SiteSetting) pairs, so that the spec is hashable; see `with_site`. law names the
    spiking law of all sites, see `neurons.LAWS`.
    """

    v_init: InitialPotential = field(default_factory=ConstantStart)
    threshold_scale: float = 1.0
    sites: tuple[tuple[str, SiteSetting], ...] = ()
    law: str = "integrate_and_fire"

    def __post_init__(self) -> None:
        law_named(self.law)
        kinds = (ConstantStart, UniformStart, GaussianStart)
        _require(isinstance(self.v_init, kinds), f"v_init: an initial potential, got {self.v_init!r}.")
        check_scale(self.threshold_scale)
        names = [name for name, _ in self.sites]
        _require(len(set(names)) == len(names), "sites: each site at most once.")

    def with_site(
        self, site: str, *, threshold_scale: float | None = None, v_init: float | None = None
    ) -> ConversionSpec:
        """Return a copy in which one site has these settings in place of those it had."""
        rest = tuple(pair for pair in self.sites if pair[0] != site)
        setting = SiteSetting(threshold_scale, v_init)
        if setting != SiteSetting():
            rest = tuple(sorted((*rest, (site, setting))))
        return replace(self, sites=rest)


@dataclass(frozen=True)
class Record:
    """What a simulation keeps besides the class scores.

    counts, v_end: keep spike counts and final potentials of every site (two arrays of all neurons and images).
    sites: the sites whose spikes `z` and potentials `v` are kept after every step.
    neurons: how many neurons of each such site, spread evenly over it, or the flat indices wanted; None for all.
    """

    counts: bool = True
    v_end: bool = True
    sites: tuple[str, ...] = ()
    neurons: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        match self.neurons:
            case int(n):
                _require(n >= 1, f"record: at least 1 neuron, got {n}.")
            case tuple(indices):
                _require(all(i >= 0 for i in indices), "record: neuron indices count from 0.")


@dataclass(frozen=True)
class SimulationSpec:
    """How long to simulate and what to keep.

    T: time-steps, 1 to 256. chunk: images per chunk (0: chosen by the engine). integer: use exact integer spike sums
    where a site allows them; False runs every site by float32 convolutions. device: "auto", "cpu" or "cuda".
    """

    T: int = 32
    record: Record = field(default_factory=Record)
    chunk: int = 0
    integer: bool = True
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        check_steps(self.T)
        _require(self.chunk >= 0, f"chunk: 0 (automatic) or a number of images, got {self.chunk}.")
        _require(self.device in ("auto", "cpu", "cuda"), f"device: 'auto', 'cpu' or 'cuda', got {self.device!r}.")
