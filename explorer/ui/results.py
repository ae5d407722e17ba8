"""What a run adds up, slice of images by slice of images: accuracy over time, spikes, errors and their causes.

Sums only, so that a run can be stopped and taken up again. NumPy arrays throughout: plots need nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

PARTS = ("clipping", "quantisation", "unevenness", "inherited")
EDGES_A = np.linspace(0.0, 1.5, 61)
EDGES_V = np.linspace(-20.0, 20.0, 801)


def rate_edges(T: int) -> np.ndarray:
    """Return histogram edges of the rate: one bin a spike count up to T = 48, then 48 bins."""
    bins = min(T, 48)
    return (np.arange(bins + 2) - 0.5) / bins


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


@dataclass(eq=False)
class Result:
    """What is known so far about one run.

    hits[t - 1] counts the images right after t steps, ann_hits the ANN's; where nobody labelled the images, the class
    that the ANN gives counts as right, so that all shares are agreement with the ANN. wrong: those not right after T.
    """

    T: int
    images: int = 0
    labelled: bool = True
    hits: np.ndarray = field(init=False)
    ann_hits: int = 0
    spikes: dict[str, int] = field(default_factory=dict)
    neurons: dict[str, int] = field(default_factory=dict)
    theta: dict[str, float] = field(default_factory=dict)
    sites: dict[str, SiteSums] = field(default_factory=dict)
    error_images: int = 0
    seconds: float = 0.0
    wrong: list[int] = field(default_factory=list)
    device: str = ""

    def __post_init__(self) -> None:
        self.hits = np.zeros(self.T, np.int64)

    @property
    def top1(self) -> np.ndarray:
        """Accuracy after each step, [T], 0..1."""
        return self.hits / max(self.images, 1)

    @property
    def ann_top1(self) -> float:
        """The ANN's accuracy on the same images, 0..1."""
        return self.ann_hits / max(self.images, 1)

    def rate(self, site: str) -> float:
        """Mean firing rate of a site, spikes per neuron and step."""
        possible = self.neurons.get(site, 0) * self.images * self.T
        return self.spikes.get(site, 0) / possible if possible else 0.0

    @property
    def spikes_per_neuron(self) -> float:
        """Spikes per neuron and image over all sites in T steps."""
        neurons = sum(self.neurons.values()) * self.images
        return sum(self.spikes.values()) / neurons if neurons else 0.0

    def silent(self) -> list[str]:
        """Return the sites in which no neuron fired on any image."""
        return [site for site, count in self.spikes.items() if count == 0]


def wilson(hits: np.ndarray, n: int, z: float = 1.959964) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95 % Wilson interval (low, high) of hits out of n, elementwise. [Wilson1927]"""
    if n == 0:
        return np.zeros_like(hits, float), np.ones_like(hits, float)
    p = hits / n
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)
