"""A folder of class folders: its pictures, labelled by the network's outputs and divided into two parts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from explorer.engine.errors import DataError
from explorer.zoo.cards import Card
from explorer.zoo.images import ImageSet, check_count, read_picture

if TYPE_CHECKING:
    from torchvision.datasets import ImageFolder

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
EVALUATION_FOLDERS = ("val", "valid", "validation", "test")
Part = Literal["evaluation", "calibration"]


def read_class_folders(root: Path, card: Card, n: int | None, part: Part, seed: int) -> ImageSet:
    """Read n pictures of a folder of class folders, as `load_images` says."""
    root, shared = _part_folder(root, part)
    listing(root)
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
            classes = [name for name in listing(Path(directory)) if is_class(Path(directory) / name)]
            if not classes:
                raise FileNotFoundError(directory)
            return classes, {name: i for i, name in enumerate(classes)}

    return Folder(str(root), allow_empty=True)


def is_class(path: Path) -> bool:
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


def listing(root: Path) -> list[str]:
    """Return the names in a folder, sorted; DataError if there is no such folder, or nothing to read in it."""
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder. Give 'embedded' or a folder on this computer.")
    try:
        names = sorted(os.listdir(root))
    except OSError as error:
        raise DataError(f"{root}: the folder cannot be read ({error.strerror}). Change its permissions.") from error
    if not names:
        raise DataError(f"{root}: the folder is empty. Give one with a folder of pictures per class.")
    return names


def pictures_in(root: Path, names: list[str]) -> list[Path]:
    """Return the paths of those names that look like pictures."""
    return [root / name for name in names if name.lower().endswith(PICTURE_SUFFIXES)]
