"""What papers report for CIFAR-10, to stand beside ours where network and data are of the same kind.

Their networks were trained with their own recipes, and they count all 10,000 test images. What our networks reach on
all of them stands in their cards, measured when they were trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from explorer.engine.finetune.progress import METHODS
from explorer.engine.theory import wilson
from explorer.limits import limits
from explorer.study import catalogue
from explorer.study.scene import Display, Scene
from explorer.study.settings import Settings


@dataclass(frozen=True)
class Published:
    """Top-1 in per cent by T. method: its name here. network: the family. checked: False where from memory only."""

    method: str
    paper: str
    network: str
    ann: float
    top1: Mapping[int, float]
    checked: Mapping[int, bool] | bool = True
    note: str = ""

    def is_checked(self, T: int) -> bool:
        """Tell whether the figure at T was read in print, and is not from memory."""
        return self.checked if isinstance(self.checked, bool) else self.checked.get(T, False)


PUBLISHED = (
    Published("opi", "Bu et al. 2022", "vgg16", 94.57, {8: 90.96, 16: 93.38, 32: 94.20, 64: 94.45}, {16: True}),
    Published("opi", "Bu et al. 2022", "resnet20", 92.74, {8: 66.24, 16: 87.22, 32: 91.88, 64: 92.57}, False),
    Published(
        "qcfs",
        "Bu et al. 2022b",
        "vgg16",
        95.52,
        {2: 91.18, 4: 93.96, 8: 94.95, 16: 95.40, 32: 95.54, 64: 95.55},
        note="trained with quantised activations",
    ),
    Published(
        "qcfs",
        "Bu et al. 2022b",
        "resnet20",
        91.77,
        {2: 73.20, 4: 83.75, 8: 89.55, 16: 91.62, 32: 92.24, 64: 92.35},
        note="trained with quantised activations",
    ),
    Published("rmp", "Han et al. 2020, in Bu et al. 2022b", "vgg16", 93.63, {32: 60.30, 64: 90.35}),
    Published("optimal-shift", "Deng & Gu 2021, in Bu et al. 2022b", "vgg16", 95.72, {32: 76.24, 64: 90.64}),
    Published("light-calibration", "Li et al. 2021", "vgg16", 95.76, {16: 93.3}),
)


CIFAR10 = "CIFAR-10"
CALLED = {"vgg16": "VGG-16", "resnet20": "ResNet-20"}
ACTIVATIONS = {"clip": "opi", "qcfs": "qcfs"}  # of a shipped network, and the method by which its card measures it


@dataclass(frozen=True)
class Ours:
    """A shipped network's own top-1 by T, in per cent, on so many test images: its trained thresholds, v_init = 1/2.

    tuned: it was fine-tuned on spikes for this T, which no paper's conversion was.
    """

    network: str
    method: str
    ann: float
    top1: Mapping[int, float]
    images: int
    tuned: bool = False

    def interval(self, T: int) -> tuple[float, float]:
        """Return Wilson's 95 % interval of the figure at T, in per cent."""
        low, high = wilson(round(self.top1[T] / 100 * self.images), self.images)
        return 100 * float(low), 100 * float(high)


def family(network: str) -> str:
    """Return the family of a shipped network for which figures were published; "" for another one."""
    return next((name for name in CALLED if network.startswith(f"{name}-")), "")


def beside(network: str, dataset: str) -> list[Published]:
    """Return what was published for networks of this family on a set of test images, named as by `library.dataset`."""
    return [one for one in PUBLISHED if dataset == CIFAR10 and one.network == family(network)]


def ours(network: str, dataset: str) -> list[Ours]:
    """Return what our networks of this family reach on all test images of that set, as their cards have it."""
    found = []
    for name in catalogue.names() if dataset == CIFAR10 and family(network) else ():
        card = catalogue.card(name)
        top1 = {int(T): 100 * share for T, share in card.get("top1_after", {}).items()}
        if top1 and family(name) == family(network) and card["dataset"] == dataset:
            method = ACTIVATIONS[card["recipe"]["activation"]]
            tuned = card["recipe"].get("method") in METHODS
            found.append(Ours(name, method, 100 * card["top1"], top1, card["top1_images"], tuned))
    return found


def reproduction(one: Published, T: int, source: str, device: str) -> Scene | None:
    """Return the scene that does here what a figure was published for; None where no such network is shipped.

    source: CIFAR-10's test images; all of them are taken.
    """
    network = f"{one.network}-{'qcfs' if one.method == 'qcfs' else 'clip'}"
    if network not in catalogue.names():
        return None
    whole = 2_000 if source == Settings().source else 10_000
    settings = Settings(network, source, min(whole, limits().images), T, rule="clip", method=one.method, device=device)
    return Scene(settings, Display(published=True))


def named(one: Published) -> str:
    """Return how a paper's figures for a network are called in a chart."""
    return f"{one.paper}, {CALLED[one.network]} (ANN {one.ann:.2f})"
