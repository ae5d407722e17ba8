"""What a run tells, image by image: right or wrong after each step, spikes; and conversion errors with their causes.

Everything is kept per image, so that the first N of them can be read exactly, however many more are known. NumPy arrays
throughout: plots need nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from explorer.engine.theory import PARTS

SHARE_MAX = 1.5  # of theta: histograms of rates and activations count what lies beyond in their last bin
EDGES_A = np.linspace(0.0, SHARE_MAX, 61)
EDGES_V = np.linspace(-20.0, 20.0, 801)
ERROR_IMAGES = 16  # millions of neurons in all: enough for shares of a per cent


def rate_edges(T: int) -> np.ndarray:
    """Return histogram edges of the rate: one bin a spike count up to T = 48, then 48 bins, and so on up to SHARE_MAX.

    Bursts and spikes worth more than a threshold decode to more than 1.
    """
    bins = min(T, 48)
    return (np.arange(math.ceil(SHARE_MAX * bins) + 2) - 0.5) / bins


@dataclass(eq=False)
class SiteSums:
    """Sums of one site over images and neurons; errors in units of the site's threshold.

    potentials: counts of v(T) / theta by EDGES_V, what lies beyond in the outer bins. below, above: neurons with
    v(T) < 0 and with v(T) > theta.
    """

    T: int
    n: int = 0
    total: float = 0.0
    squared: float = 0.0
    parts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    squared_parts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    histogram: np.ndarray = field(init=False)
    potentials: np.ndarray = field(default_factory=lambda: np.zeros(len(EDGES_V) - 1))
    below: int = 0
    above: int = 0
    channel_n: float = 0.0
    channel_squared: np.ndarray = field(default_factory=lambda: np.zeros(1))
    channel_total: np.ndarray = field(default_factory=lambda: np.zeros(1))

    def __post_init__(self) -> None:
        self.histogram = np.zeros((len(EDGES_A) - 1, len(rate_edges(self.T)) - 1))

    @property
    def mean(self) -> float:
        """Mean of (a_hat - a) / theta."""
        return self.total / max(self.n, 1)

    @property
    def mean_square(self) -> float:
        """Mean of ((a_hat - a) / theta) squared."""
        return self.squared / max(self.n, 1)

    def share(self, part: str, squared: bool = False) -> float:
        """Mean of one part, or of total times part: both add up to the total over the four parts."""
        return (self.squared_parts if squared else self.parts)[part] / max(self.n, 1)


@dataclass(frozen=True, eq=False)
class Result:
    """What is known of one run: its first images, one row each, in the order of the source.

    right[i, t - 1] tells whether image i is answered rightly after t steps, bool [images, T]; ann_right [images] the
    same of the ANN. Where nobody labelled the images, the class that the ANN gives counts as right, so that all shares
    are agreement with the ANN. spikes: per site, each image's spikes in all T steps, int64 [images]. neurons, theta:
    per site, how many neurons it has and its mean threshold. seconds: simulation time of each image. sites: conversion
    errors on the first `error_images` images. answers_from: the first step with an answer. extra: steps that an answer
    takes beyond T. bits: of a neuron in a step. additions: per image, first phases included, on the first
    `added_images` images.
    """

    T: int
    right: np.ndarray
    ann_right: np.ndarray
    spikes: dict[str, np.ndarray] = field(default_factory=dict)
    neurons: dict[str, int] = field(default_factory=dict)
    theta: dict[str, float] = field(default_factory=dict)
    seconds: np.ndarray = field(default_factory=lambda: np.zeros(0))
    labelled: bool = True
    device: str = ""
    sites: dict[str, SiteSums] = field(default_factory=dict)
    error_images: int = 0
    answers_from: int = 1
    extra: int = 0
    bits: int = 1
    additions: float = 0.0
    added_images: int = 0

    @staticmethod
    def empty(T: int) -> Result:
        """Return what is known before the first image."""
        return Result(T, np.zeros((0, T), bool), np.zeros(0, bool))

    def joined(self, part: Result) -> Result:
        """Return this result with the images that follow; errors are kept."""
        if not self.images:
            return replace(part, sites=self.sites, error_images=self.error_images)
        return replace(
            self,
            right=np.concatenate([self.right, part.right]),
            ann_right=np.concatenate([self.ann_right, part.ann_right]),
            spikes={site: np.concatenate([n, part.spikes[site]]) for site, n in self.spikes.items()},
            seconds=np.concatenate([self.seconds, part.seconds]),
        )

    def first(self, n: int) -> Result:
        """Return the same run on its first n images alone; errors, where their images are among them."""
        if n >= self.images:
            return self
        return replace(
            self,
            right=self.right[:n],
            ann_right=self.ann_right[:n],
            spikes={site: each[:n] for site, each in self.spikes.items()},
            seconds=self.seconds[:n],
            sites=self.sites if self.error_images <= n else {},
            error_images=self.error_images if self.error_images <= n else 0,
            additions=self.additions if self.added_images <= n else 0.0,
            added_images=self.added_images if self.added_images <= n else 0,
        )

    def after(self, T: int) -> Result:
        """Return the same run ended after T steps: answers only. (Thresholds stay those of the whole run.)"""
        if T == self.T:
            return self
        return Result(
            T,
            self.right[:, :T],
            self.ann_right,
            labelled=self.labelled,
            device=self.device,
            theta=self.theta,
            answers_from=self.answers_from,
            extra=self.extra,
            bits=self.bits,
        )

    @property
    def images(self) -> int:
        """How many images are known."""
        return len(self.right)

    @cached_property
    def hits(self) -> np.ndarray:
        """How many images are answered rightly after each step, int64 [T]."""
        return self.right.sum(0)

    @property
    def ann_hits(self) -> int:
        """How many images the ANN answers rightly."""
        return int(self.ann_right.sum())

    @property
    def wrong(self) -> list[int]:
        """The images not answered rightly after T steps."""
        return np.flatnonzero(~self.right[:, -1]).tolist()

    @property
    def top1(self) -> np.ndarray:
        """Accuracy after each step, [T], 0..1; NaN where there is no answer yet."""
        return np.where(self.answered, self.hits / max(self.images, 1), np.nan)

    @property
    def answered(self) -> np.ndarray:
        """After which steps there is an answer, bool [T]."""
        return np.arange(1, self.T + 1) >= self.answers_from

    @property
    def ann_top1(self) -> float:
        """The ANN's accuracy on the same images, 0..1."""
        return self.ann_hits / max(self.images, 1)

    def rate(self, site: str) -> float:
        """Mean firing rate of a site, spikes per neuron and step."""
        possible = self.neurons.get(site, 0) * self.images * self.T
        return int(self.spikes[site].sum()) / possible if possible else 0.0

    @property
    def spikes_per_neuron(self) -> float:
        """Spikes per neuron and image over all sites in T steps."""
        neurons = sum(self.neurons.values()) * self.images
        return sum(int(each.sum()) for each in self.spikes.values()) / neurons if neurons else 0.0

    def silent(self) -> list[str]:
        """Return the sites in which no neuron fired on any image."""
        return [site for site, each in self.spikes.items() if self.images and not each.any()]


def alike(results: Sequence[Result]) -> list[Result]:
    """Return results that can stand in one chart: each on the same first images, as many as all of them know.

    Runs that have not begun stay empty and do not count.
    """
    n = min((result.images for result in results if result.images), default=0)
    return [result.first(n) for result in results]
