"""timm's architectures, where the package is installed: for own weights, or with timm's own where its hub answers."""

from __future__ import annotations

import importlib.util
import re
from difflib import get_close_matches
from functools import cache
from typing import Any

from torch import nn

from explorer.engine.errors import AssetError, SpecError
from explorer.zoo.cards import Card

TIMM = "timm:"
RECTIFIED = re.compile(  # families with rectifiers alone; of each a member was traced
    r"(resnet\d|resnext\d|wide_resnet|densenet|regnetx_|res2net|dla\d+$|hrnet_|mobilenetv2_|selecsls)"
)


@cache
def is_installed() -> bool:
    """Tell whether timm can be imported, without importing it."""
    return importlib.util.find_spec("timm") is not None


@cache
def timm_names() -> tuple[str, ...]:
    """Return the names of timm's architectures as `timm:NAME`; none where it is not installed."""
    return tuple(TIMM + name for name in _timm().list_models()) if is_installed() else ()


def is_rectified(name: str) -> bool:
    """Tell whether a `timm:NAME` is of a family that converts."""
    return RECTIFIED.match(name.removeprefix(TIMM)) is not None


def _timm() -> Any:
    try:
        import timm
    except Exception as error:  # a package of another version may fail in any way
        raise SpecError(
            f"architecture: timm's networks need its package, which cannot be imported ({type(error).__name__}: "
            f"{error}). Install it: pip install timm"
        ) from error
    return timm


def build_timm(name: str, classes: int, pretrained: bool = False) -> nn.Module:
    """Return timm's network NAME, its last layer with so many outputs.

    Raises:
        SpecError: timm is not installed, or has no such network.
    """
    timm = _timm()
    known = timm.list_models()
    if name.split(".")[0] not in known:
        near = ", ".join(get_close_matches(name[:100], known, 3, 0)) or "none"
        raise SpecError(f"architecture: timm has no network {name!r}. Near: {near}.")
    return timm.create_model(name, pretrained=pretrained, **({} if pretrained else {"num_classes": classes}))


def load_timm(name: str) -> tuple[nn.Module, Card]:
    """Return timm's network NAME with its own weights, fetched from its hub at the first use, and its card.

    Raises:
        SpecError: timm is not installed, or has no such network.
        AssetError: the hub cannot be reached, or keeps no weights for it.
    """
    try:
        net = build_timm(name, 0, pretrained=True)
    except SpecError:
        raise
    except Exception as error:  # its hub's client raises whatever it likes
        raise AssetError(
            f"{TIMM}{name}: its weights cannot be had from timm's hub ({type(error).__name__}: {error}). Give weights "
            "of your own by --weights, or choose a shipped network."
        ) from error
    return net.eval().requires_grad_(False), timm_card(name, net)


def timm_card(name: str, net: nn.Module) -> Card:
    """Return the card of a timm network: size and normalisation from its configuration."""
    told: dict[str, Any] = dict(net.pretrained_cfg)  # type: ignore[arg-type]
    size = int(told["input_size"][-1])
    return Card(
        name=TIMM + name,
        input_size=size,
        resize=max(size, round(size / float(told.get("crop_pct") or 1))),
        mean=tuple(told["mean"]),
        std=tuple(told["std"]),
        classes=_classes(int(told["num_classes"])),
        dataset="ImageNet-1K" if told["num_classes"] == 1000 else "",
        parameters=sum(p.numel() for p in net.parameters()),
        recipe={"origin": f"timm {name}"},
    )


def _classes(count: int) -> tuple[str, ...]:
    """Return ImageNet's class names for a thousand classes, else numbers."""
    if count == 1000:
        from torchvision.models import ResNet18_Weights

        return tuple(ResNet18_Weights.DEFAULT.meta["categories"])
    return tuple(f"class {i}" for i in range(count))
