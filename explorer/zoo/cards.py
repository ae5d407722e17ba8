"""Weights and their cards: one safetensors file and one JSON beside it, bound by a checksum."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from explorer.engine.errors import AssetError, SpecError
from explorer.zoo.cifar10 import CLASSES as CIFAR10_CLASSES

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR10_STD = (0.2470, 0.2435, 0.2616)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
DATASET_CLASSES = {"CIFAR-10": CIFAR10_CLASSES}
SIZE_MIN, SIZE_MAX = 4, 1024
SHIPPED = Path(__file__).resolve().parents[2] / "assets"


@dataclass(frozen=True)
class Card:
    """What a network expects and how well it does.

    input_size: pixels a side. resize: the shorter side, in pixels, before the centre crop to input_size; 0 means
    input_size itself. mean, std: per input channel, of pixels scaled to 0..1; one number each for a one-channel
    network. classes: the outputs' names, in order. top1: a measured share 0..1 of top1_images images, or None.
    recipe: how the weights came about, as written in the card's file.
    """

    name: str
    input_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    dataset: str = ""
    resize: int = 0
    parameters: int = 0
    top1: float | None = None
    top1_images: int = 0
    recipe: Mapping[str, Any] = field(default_factory=dict, hash=False)
    sha256: str = ""

    def __post_init__(self) -> None:
        size_ok = isinstance(self.input_size, int) and SIZE_MIN <= self.input_size <= SIZE_MAX
        _require(size_ok, f"input size: {SIZE_MIN} to {SIZE_MAX} pixels, got {self.input_size}.")
        _require(
            self.resize == 0 or self.input_size <= self.resize <= 2 * SIZE_MAX,
            f"resize: 0 or from the input size {self.input_size} to {2 * SIZE_MAX} pixels, got {self.resize}.",
        )
        lengths_ok = len(self.mean) == len(self.std) and len(self.mean) in (1, 3)
        _require(
            lengths_ok,
            f"mean and standard deviation: three numbers each (red, green, blue), or one each for a one-channel "
            f"network, got {len(self.mean)} and {len(self.std)}.",
        )
        _require(all(math.isfinite(m) for m in self.mean), f"mean: finite numbers, got {self.mean}.")
        _require(
            all(math.isfinite(s) and s > 0 for s in self.std),
            f"standard deviation: finite and above 0, got {self.std}. Use 1 where pixels are not scaled.",
        )
        _require(len(self.classes) >= 2, f"classes: at least 2, got {len(self.classes)}.")

    @property
    def channels(self) -> int:
        """The number of input channels, 1 or 3."""
        return len(self.mean)

    def example(self) -> torch.Tensor:
        """Return an input of noise, float32 [1, channels, input_size, input_size], to trace the network with."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(1, self.channels, self.input_size, self.input_size, generator=generator)


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise SpecError(message)


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def verify(path: Path, expected: str) -> None:
    """Check that a shipped file is whole.

    Raises:
        AssetError: it is missing, or its checksum is another.
    """
    if not path.exists():
        raise AssetError(f"{path.name} is missing from {_place(path)}. {mend(path)}")
    try:
        found = sha256(path)
    except OSError as error:
        raise AssetError(f"{path.name} cannot be read ({error.strerror}). Change its permissions.") from error
    if found != expected:
        raise AssetError(f"{path.name} is damaged: its checksum is not the recorded one. {mend(path)}")


def _place(path: Path) -> str:
    return "assets/" if path.parent == SHIPPED else str(path.parent)


def mend(path: Path) -> str:
    """Return how a file that is missing or damaged is had again."""
    if path.parent == SHIPPED:
        return f"Restore it: git checkout -- assets/{path.name}"
    return "Copy it anew from where it came; weights and card belong together."


def write_network(
    folder: Path,
    name: str,
    net: nn.Module,
    recipe: dict[str, Any],
    top1: float,
    *,
    top1_images: int = 10_000,
    top1_after: Mapping[int, float] | None = None,
    dataset: str = "CIFAR-10",
    classes: tuple[str, ...] | None = None,
    rest: nn.Module | None = None,
) -> Path:
    """Save a CIFAR network's state dict and its card, both or neither; return the path of the weights.

    recipe is written as it is; `weights` in it names the stored type. top1 is a measured share, 0..1, of so many
    images; top1_after the spiking network's, by time-steps. classes are written where the data set's name does not say
    them. What a network `rest`, which `rest` in the recipe names, has just so is left to its file.

    Raises:
        AssetError: the folder cannot be written to.
    """
    path, beside = folder / f"{name}.safetensors", folder / f"{name}.json"
    parts = [one.with_name(f".{one.name}.part") for one in (path, beside)]
    stored = getattr(torch, recipe["weights"])
    state = {
        key: (value.to(stored) if value.is_floating_point() else value).contiguous()
        for key, value in net.state_dict().items()
    }
    known = {} if rest is None else rest.state_dict()
    state = {key: value for key, value in state.items() if key not in known or not _same(value, known[key])}
    card = {
        "name": name,
        "dataset": dataset,
        **({} if dataset in DATASET_CLASSES else {"classes": classes}),
        "input_size": 32,
        "mean": CIFAR10_MEAN,
        "std": CIFAR10_STD,
        "parameters": sum(p.numel() for p in net.parameters()),
        "top1": round(top1, 4),
        "top1_images": top1_images,
        "top1_after": {str(T): round(share, 4) for T, share in (top1_after or {}).items()},
        "recipe": recipe,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for one in (path, beside):
            if one.is_dir():
                raise IsADirectoryError(f"{one.name} is a folder")
        save_file(state, parts[0])
        parts[0].chmod(0o644)
        parts[1].write_text(json.dumps(card | {"sha256": sha256(parts[0])}, indent=2) + "\n")
        for part, whole in zip(parts, (path, beside), strict=True):
            part.replace(whole)
    except (OSError, SafetensorError) as error:
        for part in parts:
            part.unlink(missing_ok=True)
        raise AssetError(
            f"{path} cannot be written ({error}). Choose another folder, or free space on the disk."
        ) from error
    return path


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.to(b.dtype), b)


def read_card(path: Path) -> Card:
    """Read a card from its JSON file; class names not written there come from the data set.

    Raises:
        AssetError: it is missing, unreadable, or lacks a field.
    """
    if not path.exists():
        raise AssetError(f"{path.name} is missing from {_place(path)}. {mend(path)}")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return Card(
            name=raw["name"],
            input_size=raw["input_size"],
            mean=tuple(raw["mean"]),
            std=tuple(raw["std"]),
            classes=tuple(raw.get("classes") or DATASET_CLASSES[raw["dataset"]]),
            dataset=raw["dataset"],
            resize=raw.get("resize", 0),
            parameters=raw["parameters"],
            top1=raw["top1"],
            top1_images=raw["top1_images"],
            recipe=raw["recipe"],
            sha256=raw["sha256"],
        )
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise AssetError(f"{path.name} is damaged ({type(error).__name__}: {error}). {mend(path)}") from error


def read_weights(path: Path, expected: str) -> dict[str, torch.Tensor]:
    """Load a shipped state dict as float32, its checksum verified."""
    verify(path, expected)
    try:
        state = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise AssetError(f"{path.name} cannot be read ({error}). {mend(path)}") from error
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
