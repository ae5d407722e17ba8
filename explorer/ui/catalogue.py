"""Names of the networks on offer, read from the model cards beside the weights."""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).resolve().parents[2] / "assets"


def names() -> list[str]:
    """Return the networks whose weights and card lie in assets/; those that can be downloaded come last."""
    own = sorted(path.stem for path in ASSETS.glob("*.safetensors") if path.with_suffix(".json").exists())
    return [*own, "torchvision:resnet18", "torchvision:vgg16_bn"]
