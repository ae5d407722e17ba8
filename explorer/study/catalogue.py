"""Names of the networks on offer, read from the model cards beside the weights."""

from __future__ import annotations

import json
from pathlib import Path

ASSETS = Path(__file__).resolve().parents[2] / "assets"


def names() -> list[str]:
    """Return the networks whose weights and card lie in assets/; those that can be downloaded come last."""
    own = sorted(path.stem for path in ASSETS.glob("*.safetensors") if path.with_suffix(".json").exists())
    return [*own, "torchvision:resnet18", "torchvision:vgg16_bn"]


def trained_clip(name: str) -> bool:
    """Tell whether a shipped network was trained with a clip, whose bounds then are its best thresholds."""
    try:
        card = json.loads((ASSETS / f"{name}.json").read_text(encoding="utf-8"))
        return card["recipe"]["activation"] == "clip"
    except (OSError, ValueError, KeyError, TypeError):
        return False  # a damaged card is explained when the network is loaded
