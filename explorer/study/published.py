"""What papers report for CIFAR-10, to stand beside ours where network and data are of the same kind.

Their networks were trained with their own recipes, and they count all 10,000 test images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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


def beside(settings: Settings) -> list[Published]:
    """Return what was published for networks of this family on CIFAR-10; nothing for other images or networks."""
    if settings.source != "embedded":
        return []
    return [one for one in PUBLISHED if settings.network.startswith(f"{one.network}-")]
