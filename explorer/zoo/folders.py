"""A folder of class folders: its pictures, labelled by the network's outputs and divided into two parts."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Literal

import numpy as np

from explorer.engine.errors import DataError
from explorer.zoo.cards import Card
from explorer.zoo.images import ImageSet, check_count, read_picture
from explorer.zoo.paths import is_file, is_folder
from explorer.zoo.pictures import Pictures

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp", ".avif")
DEPTH_MAX, ENTRIES_MAX, SECONDS_MAX = 4, 2_000_000, 20.0  # ImageNet's training images are 1.3 million in 1,000 folders
EVALUATION_FOLDERS = ("val", "valid", "validation", "test")
Part = Literal["evaluation", "calibration"]


def read_class_folders(root: Path, card: Card, n: int | None, part: Part, seed: int) -> ImageSet:
    """Choose n pictures of a folder of class folders, as `load_images` says; each is read when it is looked at."""
    root, shared = _part_folder(root, part)
    classes = tuple(name for name in listing(root) if is_class(root / name))
    if not classes:
        raise DataError(
            f"{root}: no class folders here, so the pictures have no labels. Put them into one folder per class, "
            "named as the network names its classes."
        )
    outputs = to_outputs(classes, card, root.name)
    budget = Budget(root)
    groups = {label: sorted(_pictures_below(root / name, budget)) for label, name in enumerate(classes)}
    groups = {label: files for label, files in groups.items() if files}
    if not groups:
        raise DataError(f"{root}: its class folders hold no picture. PNG, JPEG, BMP, TIFF and WebP are read.")
    rng = np.random.default_rng(seed)
    for label, files in groups.items():
        drawn = [files[i] for i in rng.permutation(len(files))]
        groups[label] = _divide(drawn, part) if shared else drawn
    chosen = _take_turns(groups, n)
    check_count(len(chosen))

    def read(i: int) -> np.ndarray:
        return read_picture(Path(chosen[i][0]), card, os.path.relpath(chosen[i][0], root))

    pictures = Pictures(len(chosen), card.input_size, read)
    pictures[:1]  # a folder of what is no picture is noticed at once
    labels = outputs[np.asarray([label for _, label in chosen], dtype=np.int64)]
    note = f"drawn evenly from {len(groups)} class folders, seed {seed}"
    if shared:
        note += ", without the quarter of each class that sets the thresholds"
    return ImageSet(root.name, pictures, labels, card.classes, note)


class Budget:
    """What listing one folder may cost; a folder that holds more is not one of pictures."""

    def __init__(self, root: Path, entries: int = ENTRIES_MAX, seconds: float = SECONDS_MAX) -> None:
        self._root, self._left, self._end = root, entries, time.monotonic() + seconds

    def spend(self) -> None:
        """Count one entry.

        Raises:
            DataError: entries or time are used up.
        """
        self._left -= 1
        if self._left < 0 or time.monotonic() > self._end:
            raise DataError(
                f"{self._root}: listing it takes too long, or it holds more than {ENTRIES_MAX:,} entries. Give a "
                "folder that holds the pictures alone."
            )


def _pictures_below(folder: Path, budget: Budget) -> list[str]:
    """Return the paths of the picture files in a folder and the folders in it, links and hidden folders left out."""
    found: list[str] = []
    waiting = [(str(folder), 0)]
    while waiting:
        here, depth = waiting.pop()
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    budget.spend()
                    if entry.is_dir(follow_symlinks=False) and depth < DEPTH_MAX and not entry.name.startswith("."):
                        waiting.append((entry.path, depth + 1))
                    elif entry.is_file(follow_symlinks=False) and entry.name.lower().endswith(PICTURE_SUFFIXES):
                        found.append(entry.path)
        except OSError as error:
            raise DataError(f"{here}: the folder cannot be read ({error.strerror}). Change its permissions.") from error
    return found


def is_class(path: Path) -> bool:
    """Tell whether a path is a class folder: visible, no link, and not what archives leave behind."""
    return is_folder(path) and not path.is_symlink() and not path.name.startswith((".", "__"))


def _part_folder(root: Path, part: Part) -> tuple[Path, bool]:
    """Return the folder of class folders for a part, and whether both parts must share it."""
    evaluation = next((root / name for name in EVALUATION_FOLDERS if is_class(root / name)), None)
    if evaluation is None or not is_class(root / "train"):
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
    if not is_folder(root):
        raise DataError(f"{root}: there is no such folder. Give 'embedded' or a folder on this computer.")
    budget, names = Budget(root), []
    try:
        with os.scandir(root) as entries:
            for entry in entries:
                budget.spend()
                names.append(entry.name)
    except OSError as error:
        raise DataError(f"{root}: the folder cannot be read ({error.strerror}). Change its permissions.") from error
    if not names:
        raise DataError(f"{root}: the folder is empty. Give one with a folder of pictures per class.")
    return sorted(names)


def pictures_in(root: Path, names: list[str]) -> list[Path]:
    """Return the paths of those names that look like pictures and are files, not links."""
    named = [root / name for name in names if name.lower().endswith(PICTURE_SUFFIXES)]
    return [path for path in named if is_file(path) and not path.is_symlink()]
