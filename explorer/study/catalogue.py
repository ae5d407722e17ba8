"""Names of the networks on offer, read from the model cards beside the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ASSETS = Path(__file__).resolve().parents[2] / "assets"


def names() -> list[str]:
    """Return the networks whose weights and card lie in assets/; those that can be downloaded come last."""
    own = sorted(path.stem for path in ASSETS.glob("*.safetensors") if path.with_suffix(".json").exists())
    return [*own, "torchvision:resnet18", "torchvision:vgg16_bn"]


def card(name: str) -> dict[str, Any]:
    """Return a shipped network's card as written; empty where there is none, or a damaged one."""
    try:
        found = json.loads((ASSETS / f"{name}.json").read_text(encoding="utf-8"))
        return found if isinstance(found["recipe"]["activation"], str) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # a damaged card is explained when the network is loaded


def trained_clip(name: str) -> bool:
    """Tell whether a shipped network was trained with bounds (OPI, QCFS), which then are its best thresholds."""
    return bool(found := card(name)) and found["recipe"]["activation"] in ("clip", "qcfs")
