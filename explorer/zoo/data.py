"""Where images come from: the embedded ones, a CIFAR-10 root, a folder of class folders, or loose pictures.

Every source has two parts that share no image: `evaluation`, on which accuracy is measured, and `calibration`, on which
thresholds are set. A source is a small frozen value; `load_images` reads it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from explorer.engine.errors import AssetError, DataError
from explorer.zoo.cards import Card, verify
from explorer.zoo.cifar10 import CLASSES, balanced_choice, load_split
from explorer.zoo.images import ImageSet, check_count, fit, read_picture, read_pictures

if TYPE_CHECKING:
    from torchvision.datasets import ImageFolder

ASSETS = Path(__file__).resolve().parents[2] / "assets"
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
EVALUATION_FOLDERS = ("val", "valid", "validation", "test")
Part = Literal["evaluation", "calibration"]


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
    """A folder of pictures that nobody has labelled: scores and traces, but no accuracy."""

    root: str


DataSource = Embedded | Cifar10Root | ClassFolders | LoosePictures


def data_source(text: str) -> DataSource:
    """Say which source a word or path means: `embedded`, a CIFAR-10 root, class folders, or a folder of pictures.

    Raises:
        DataError: there is no such folder, it cannot be read, or no picture is in it.
    """
    if text.strip() in ("", "embedded"):
        return Embedded()
    root = Path(text).expanduser()
    names = _listing(root)
    if "cifar-10-batches-py" in names or "test_batch.png" in names:
        return Cifar10Root(str(root))
    if any(_is_class(root / name) for name in names):
        return ClassFolders(str(root))
    if _pictures_in(root, names):
        return LoosePictures(str(root))
    raise DataError(
        f"{root}: no picture and no class folder here. Give a CIFAR-10 root, a folder with one folder of pictures per "
        "class, or a folder of pictures."
    )


def load_images(
    source: DataSource, card: Card, n: int | None = None, part: Part = "evaluation", seed: int = 0
) -> ImageSet:
    """Read the first n images of a source's part (all where None or fewer), at the card's size.

    Class folders and CIFAR-10's training images are drawn by the seed, as many of each class as of any other.

    Raises:
        DataError: nothing there, a broken picture, classes that are not the network's, n < 1.
        AssetError: the embedded images are damaged.
    """
    check_count(n, card)
    match source:
        case Embedded():
            found = embedded(part)
        case Cifar10Root(root):
            found = _cifar10(Path(root), n, part, seed)
        case ClassFolders(root):
            return _class_folders(Path(root), card, n, part, seed)
        case LoosePictures(root):
            files = [(path.name, path) for path in _pictures_in(Path(root), _listing(Path(root)))]
            return read_pictures(files if n is None else files[:n], card, Path(root).name)
    if n is not None:
        found = found.take(n)
    labels = to_outputs(found.classes, card, found.name)[found.labels]
    images = found.images
    if images.shape[1] != card.input_size:
        check_count(len(images), card)
        images = np.stack([fit(Image.fromarray(image), card) for image in images])
    return ImageSet(found.name, images, labels, card.classes, found.note)


def embedded(part: Part = "evaluation", assets: Path = ASSETS) -> ImageSet:
    """Return the shipped CIFAR-10 images, uint8 [2000 or 512, 32, 32, 3], their checksum verified.

    Raises:
        AssetError: a file is missing or damaged.
    """
    try:
        document = json.loads((assets / "cifar10.json").read_text())
        described, classes, size = document["parts"][part], document["classes"], document["size"]
    except (OSError, ValueError, KeyError) as error:
        raise AssetError(
            f"cifar10.json is missing or damaged ({type(error).__name__}). "
            "Restore it: git checkout -- assets/cifar10.json"
        ) from error
    path = assets / described["file"]
    verify(path, described["sha256"])
    columns, labels = described["columns"], np.asarray(described["labels"], dtype=np.int64)
    grid = np.asarray(Image.open(path)).reshape(-1, size, columns, size, 3).swapaxes(1, 2)
    note = "first 2,000 test images" if part == "evaluation" else "512 training images, class balanced"
    return ImageSet("CIFAR-10, embedded", grid.reshape(-1, size, size, 3), labels, tuple(classes), note)


def _cifar10(root: Path, n: int | None, part: Part, seed: int) -> ImageSet:
    try:
        images, labels = load_split(root, train=part == "calibration")
    except (OSError, ValueError, RuntimeError, EOFError, KeyError) as error:
        raise DataError(f"{root}: CIFAR-10 is incomplete or damaged here ({error}). Unpack it again.") from error
    note = f"{len(images):,} test images"
    if part == "calibration":
        chosen = balanced_choice(labels, min(n or 512, len(labels)), seed)
        images, labels, note = images[chosen], labels[chosen], f"training images, class balanced, seed {seed}"
    return ImageSet("CIFAR-10", images, labels, CLASSES, note)


def _class_folders(root: Path, card: Card, n: int | None, part: Part, seed: int) -> ImageSet:
    root, shared = _part_folder(root, part)
    _listing(root)
    try:
        folder = _image_folder(root)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{root}: no class folders here, so the pictures have no labels. Put them into one folder per class, "
            "named as the network names its classes."
        ) from error
    groups: dict[int, list[str]] = {}
    for path, label in folder.samples:
        groups.setdefault(label, []).append(path)
    if not groups:
        raise DataError(f"{root}: its class folders hold no picture. PNG, JPEG, BMP, TIFF and WebP are read.")
    outputs = to_outputs(tuple(folder.classes), card, root.name)
    rng = np.random.default_rng(seed)
    for label in sorted(groups):
        files = sorted(groups[label])
        files = [files[i] for i in rng.permutation(len(files))]
        groups[label] = _divide(files, part) if shared else files
    chosen = _take_turns(groups, n)
    check_count(len(chosen), card)
    images = np.stack([read_picture(Path(path), card, os.path.relpath(path, root)) for path, _ in chosen])
    labels = outputs[np.asarray([label for _, label in chosen], dtype=np.int64)]
    note = f"drawn evenly from {len(groups)} class folders, seed {seed}"
    return ImageSet(root.name, images, labels, card.classes, note)


def _image_folder(root: Path) -> ImageFolder:
    """List a folder of class folders by torchvision, hidden ones left out."""
    from torchvision.datasets import ImageFolder

    class Folder(ImageFolder):
        def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
            classes = [name for name in _listing(Path(directory)) if _is_class(Path(directory) / name)]
            if not classes:
                raise FileNotFoundError(directory)
            return classes, {name: i for i, name in enumerate(classes)}

    return Folder(str(root), allow_empty=True)


def _is_class(path: Path) -> bool:
    """Tell whether a path is a class folder: visible, and not what archives leave behind."""
    return path.is_dir() and not path.name.startswith((".", "__"))


def _part_folder(root: Path, part: Part) -> tuple[Path, bool]:
    """Return the folder of class folders for a part, and whether both parts must share it."""
    evaluation = next((root / name for name in EVALUATION_FOLDERS if (root / name).is_dir()), None)
    if evaluation is None or not (root / "train").is_dir():
        return root, True
    return (evaluation if part == "evaluation" else root / "train"), False


def _divide(files: list[str], part: Part) -> list[str]:
    """Keep the last quarter of a class for calibration and the rest for evaluation; a single picture serves both."""
    cut = len(files) - max(1, len(files) // 4) if len(files) > 1 else 0
    if cut == 0:
        return files
    return files[:cut] if part == "evaluation" else files[cut:]


def _take_turns(groups: dict[int, list[str]], n: int | None) -> list[tuple[str, int]]:
    """Take one file of each class after the other until n are taken or none is left."""
    longest = max(len(files) for files in groups.values())
    turns = [(groups[label][i], label) for i in range(longest) for label in sorted(groups) if i < len(groups[label])]
    return turns if n is None else turns[:n]


def to_outputs(classes: tuple[str, ...], card: Card, where: str) -> np.ndarray:
    """Return which output of the network each class of the data means, int64 [len(classes)].

    By name where all names are the network's, by number where all are numbers in range, by position where there are
    as many as outputs.

    Raises:
        DataError: none of these holds.
    """
    position = {name.casefold(): i for i, name in enumerate(card.classes)}
    if all(name.casefold() in position for name in classes):
        found = [position[name.casefold()] for name in classes]
    elif all(name.isdecimal() and int(name) < len(card.classes) for name in classes):
        found = [int(name) for name in classes]
    elif len(classes) == len(card.classes):
        found = list(range(len(classes)))
    else:
        few = ", ".join(classes[:3]) + (", ..." if len(classes) > 3 else "")
        raise DataError(
            f"{where}: its {len(classes)} classes ({few}) are not the {len(card.classes)} that {card.name} tells "
            f"apart ({', '.join(card.classes[:3])}, ...). Name the class folders as the network's classes, number "
            "them from 0, or choose other images."
        )
    return np.asarray(found, dtype=np.int64)


def _listing(root: Path) -> list[str]:
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder. Give 'embedded' or a folder on this computer.")
    try:
        names = sorted(os.listdir(root))
    except OSError as error:
        raise DataError(f"{root}: the folder cannot be read ({error.strerror}). Change its permissions.") from error
    if not names:
        raise DataError(f"{root}: the folder is empty. Give one with a folder of pictures per class.")
    return names


def _pictures_in(root: Path, names: list[str]) -> list[Path]:
    return [root / name for name in names if name.lower().endswith(PICTURE_SUFFIXES)]
