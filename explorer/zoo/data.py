"""Where images come from: the embedded ones, a CIFAR-10 root, a folder of class folders, or loose pictures.

Every source has two parts that share no image: `evaluation`, on which accuracy is measured, and `calibration`, on which
thresholds are set. (Unlabelled pictures, which give no accuracy, are both; see `calibration_source`.) A source is a
small frozen value; `load_images` reads it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from explorer.engine.errors import AssetError, DataError
from explorer.limits import FOLDERS, NAMED, limits
from explorer.zoo.cards import SHIPPED, Card, verify
from explorer.zoo.cifar10 import CLASSES, balanced_choice, load_split
from explorer.zoo.folders import Part, is_class, listing, pictures_in, read_class_folders, to_outputs
from explorer.zoo.images import ImageSet, check_count, fit, read_pictures
from explorer.zoo.paths import expanded
from explorer.zoo.pictures import Pictures

ASSETS = SHIPPED


@dataclass(frozen=True)
class Embedded:
    """CIFAR-10 as shipped: the first 2,000 test images, and 512 training images to calibrate on."""


@dataclass(frozen=True)
class Cifar10Root:
    """The user's own whole CIFAR-10: 10,000 test images, and training images to calibrate on."""

    root: str


@dataclass(frozen=True)
class ClassFolders:
    """A folder with one folder of pictures per class, or with `train` and `val` (or `test`) folders of that form."""

    root: str


@dataclass(frozen=True)
class LoosePictures:
    """A folder of pictures that nobody has labelled: scores and membranes, but no accuracy."""

    root: str


@dataclass(frozen=True)
class UploadedPictures:
    """Pictures given by name and content, which nobody has labelled."""

    files: tuple[tuple[str, bytes], ...]


DataSource = Embedded | Cifar10Root | ClassFolders | LoosePictures | UploadedPictures


def data_source(text: str) -> DataSource:
    """Say which source a word or path means: `embedded`, a CIFAR-10 root, class folders, or a folder of pictures.

    `folder:NAME` is a folder that the operator named (see `explorer.limits`).

    Raises:
        DataError: there is no such folder, it cannot be read, or no picture is in it.
    """
    if text.strip() in ("", "embedded"):
        return Embedded()
    if text.startswith(NAMED) and text.removeprefix(NAMED) not in limits().folders:
        known = ", ".join(limits().folders) or "none"
        raise DataError(f"{text}: no folder of this name here. Those that {FOLDERS} names: {known}.")
    root = expanded(limits().folders[text.removeprefix(NAMED)] if text.startswith(NAMED) else text)
    names = listing(root)
    if "cifar-10-batches-py" in names or "test_batch.png" in names:
        return Cifar10Root(str(root))
    if any(is_class(root / name) for name in names):
        return ClassFolders(str(root))
    if pictures_in(root, names):
        return LoosePictures(str(root))
    raise DataError(
        f"{root}: no picture and no class folder here (links are not followed). Give a CIFAR-10 root, a folder with "
        "one folder of pictures per class, or a folder of pictures."
    )


def calibration_source(source: DataSource, card: Card) -> DataSource:
    """Return where calibration images should come from.

    Unlabelled pictures are often few and of anything: a network that tells CIFAR-10's classes apart is calibrated on
    CIFAR-10's training images instead.
    """
    loose = isinstance(source, LoosePictures | UploadedPictures)
    return Embedded() if loose and card.classes == CLASSES else source


def load_images(
    source: DataSource, card: Card, n: int | None = None, part: Part = "evaluation", seed: int = 0
) -> ImageSet:
    """Read the first n images of a source's part (all where None or fewer), at the card's size.

    Class folders and CIFAR-10's training images are drawn by the seed, as many of each class as of any other. Shown to
    a network of other classes, the embedded images come without labels.

    Raises:
        DataError: nothing there, a broken picture, classes that are not the network's, n < 1.
        AssetError: the embedded images are damaged.
    """
    check_count(n)
    match source:
        case Embedded():
            found = embedded(part)
        case Cifar10Root(root):
            found = _cifar10(Path(root), n, part, seed)
        case ClassFolders(root):
            return read_class_folders(Path(root), card, n, part, seed)
        case LoosePictures(root):
            files = [(path.name, path) for path in pictures_in(Path(root), listing(Path(root)))]
            return read_pictures(files[:n], card, Path(root).name)
        case UploadedPictures(given):
            return read_pictures(given[:n], card)
    if n is not None:
        found = found.take(n)
    images, labels, note = found.images, found.labels, found.note
    try:
        labels = to_outputs(found.classes, card, found.name)[labels]
    except DataError:
        if not isinstance(source, Embedded):
            raise
        labels, note = None, f"{note}, unlabelled: {card.name} tells other classes apart"
    assert isinstance(images, np.ndarray)
    if images.shape[1] == card.input_size:
        return ImageSet(found.name, images, labels, card.classes, note)
    scaled = Pictures(len(images), card.input_size, lambda i: fit(Image.fromarray(images[i]), card))
    return ImageSet(found.name, scaled, labels, card.classes, note)


def is_test_set(source: DataSource) -> bool:
    """Tell whether a source holds CIFAR-10's test set: all 10,000 images, the first of them the embedded ones."""
    if not isinstance(source, Cifar10Root):
        return False
    found, known = _cifar10(Path(source.root), None, "evaluation", 0), embedded()
    assert found.labels is not None and known.labels is not None
    same = np.array_equal(found.labels[: len(known)], known.labels)
    return len(found) == 10_000 and same and np.array_equal(found.images[: len(known)], known.images)


def embedded(part: Part = "evaluation", assets: Path = ASSETS) -> ImageSet:
    """Return the shipped CIFAR-10 images, uint8 [2000 or 512, 32, 32, 3], their checksum verified.

    Raises:
        AssetError: a file is missing or damaged.
    """
    try:
        document = json.loads((assets / "cifar10.json").read_text(encoding="utf-8"))
        described, classes, size = document["parts"][part], tuple(document["classes"]), int(document["size"])
        path, digest, columns = assets / described["file"], str(described["sha256"]), int(described["columns"])
        labels = np.asarray(described["labels"], dtype=np.int64)
        if labels.ndim != 1 or not all(0 <= label < len(classes) for label in labels):
            raise ValueError("labels that are no classes")
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise AssetError(
            f"cifar10.json is missing or damaged ({type(error).__name__}). "
            "Restore it: git checkout -- assets/cifar10.json"
        ) from error
    verify(path, digest)
    try:
        sheet = np.asarray(Image.open(path, formats=("PNG",)))
        grid = sheet.reshape(-1, size, columns, size, 3).swapaxes(1, 2)
        assert grid.shape[0] * grid.shape[1] == len(labels)
    except (OSError, ValueError, AssertionError) as error:
        raise AssetError(
            f"{path.name} and cifar10.json do not belong together. Restore them: git checkout -- assets/"
        ) from error
    note = "first 2,000 test images" if part == "evaluation" else "512 training images, class balanced"
    return ImageSet("CIFAR-10, embedded", grid.reshape(-1, size, size, 3), labels, classes, note)


def _cifar10(root: Path, n: int | None, part: Part, seed: int) -> ImageSet:
    try:
        images, labels = load_split(root, train=part == "calibration")
    except DataError:
        raise
    except Exception as error:  # damaged sheets and pickles raise whatever they like
        raise DataError(f"{root}: CIFAR-10 is incomplete or damaged here ({error}). Unpack it again.") from error
    note = f"{len(images):,} test images"
    if part == "calibration":
        chosen = balanced_choice(labels, min(n or 512, len(labels)), seed)
        images, labels, note = images[chosen], labels[chosen], f"training images, class balanced, seed {seed}"
    return ImageSet("CIFAR-10", images, labels, CLASSES, note)
