"""What measuring returns besides runs: NumPy and words throughout, so that it travels and is drawn without torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from explorer.study.results import SiteSums


@dataclass(frozen=True)
class Facts:
    """What a conversion is beside its thresholds and starts.

    extra: steps of an answer beyond T. bits: of a neuron in a step. skipped: steps the read-out leaves out. amplitudes:
    sites whose spikes are worth something else than the threshold. shifted: sites whose current is shifted. refitted:
    whether weights are other than the network's own. layers: each site's error before and after a calibration, as
    shares of the mean square activation. held: images held back, share named as by the ANN after OPI and after the
    method. kept: False where OPI's neurons are used because they agreed more often. most: what a neuron's spikes can
    count in one step. bounded: whether most is the most that a neuron can be worth. decoded: what a neuron is worth is
    no count of its spikes. coded: each layer sends after the one before it has sent. rounds: of the first phase.
    """

    extra: int = 0
    bits: int = 1
    skipped: int = 0
    amplitudes: tuple[str, ...] = ()
    shifted: tuple[str, ...] = ()
    refitted: bool = False
    layers: tuple[tuple[str, float, float], ...] = ()
    held: tuple[int, float, float] | None = None
    kept: bool = True
    most: int = 1
    bounded: bool = True
    decoded: bool = False
    coded: bool = False
    rounds: int = 1


@dataclass(frozen=True, eq=False)
class Look:
    """One image through both networks.

    ann: [K]; snn: [T, K] mean scores; per site: counts and a [*site], theta, and start, the mean of v(0) / theta.
    stairs: v(0) / theta of the staircase that all neurons of a site follow at constant input, where there is one.
    depths: how many sites lie one behind the other up to each, itself included, on the longest way.
    facts: what else there is to say of the conversion.
    """

    picture: np.ndarray
    label: int | None
    classes: tuple[str, ...]
    ann: np.ndarray
    snn: np.ndarray
    counts: dict[str, np.ndarray]
    a: dict[str, np.ndarray]
    theta: dict[str, np.ndarray]
    start: dict[str, float]
    stairs: dict[str, float]
    facts: Facts
    shapes: dict[str, tuple[int, ...]]
    depths: dict[str, int]
    device: str


@dataclass(frozen=True, eq=False)
class Membrane:
    """One neuron over T steps: `analysis.Membrane`, its tensors as float32 arrays [T]."""

    x: np.ndarray
    v_before: np.ndarray
    v: np.ndarray
    z: np.ndarray
    theta: float
    v0: float
    a: float
    decoded: np.ndarray
    muted: bool = False
    before: Membrane | None = None
    skipped: int = 0
    sends_later: bool = False
    stretches: bool = False
    fires_at: float = 1.0
    sized: bool = False


@dataclass(frozen=True, eq=False)
class Channel:
    """One channel of a site over some images, errors in units of theta.

    rms: [H, W] of the error at each place; parts: mean of each of its four parts, [H, W]; together they are the error.
    """

    sums: SiteSums
    rms: np.ndarray
    parts: dict[str, np.ndarray]
    images: int


@dataclass(frozen=True, eq=False)
class Work:
    """Operations per image: additions by site and readout, multiply-accumulates done once, and on how many images."""

    additions: dict[str, float]
    constant: int
    images: int


@dataclass(frozen=True, eq=False)
class Windows:
    """Accuracy over every read-out window.

    hits: of how many images the mean current over the steps i + 1 to j gives the right answer (without labels, the
    ANN's), int64 [T, T], row i, column j - 1, 0 where there is no step. begin: steps that the conversion's own read-out
    leaves out.
    """

    hits: np.ndarray
    images: int
    begin: int
    labelled: bool
    ann_hits: int

    def joined(self, part: Windows) -> Windows:
        """Return the same of these images and those of another part."""
        images, ann_hits = self.images + part.images, self.ann_hits + part.ann_hits
        return replace(self, hits=self.hits + part.hits, images=images, ann_hits=ann_hits)


@dataclass(frozen=True)
class Described:
    """What the conversion does to a network, in words.

    lines: of a table, under `head`; problems: the calls without a rule.
    """

    input_shape: tuple[int, ...]
    classes: int
    parameters: int
    summary: str
    problems: tuple[str, ...]
    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Taken:
    """An uploaded network as the server knows it. key: "" if it cannot be converted; parts: what its file holds."""

    key: str
    described: Described
    source: Any
    clips_trained: bool
    part: str
    parts: tuple[str, ...]
