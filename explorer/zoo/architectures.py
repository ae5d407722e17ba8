"""The architectures that weights can be loaded onto, by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from explorer.engine.errors import SpecError
from explorer.engine.graph.clip import TrainableClip
from explorer.engine.graph.qcfs import QuantisedClip
from explorer.zoo.resnet import resnet20
from explorer.zoo.timm_models import TIMM, build_timm, is_rectified, timm_names
from explorer.zoo.vgg import vgg16

CIFAR_ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {"resnet20": resnet20, "vgg16": vgg16}
ACTIVATIONS: dict[str, Callable[[float], nn.Module]] = {
    "relu": lambda theta: nn.ReLU(),
    "clip": TrainableClip,
    "qcfs": QuantisedClip,
}
TORCHVISION = "torchvision:"
RECTIFIED = (  # torchvision's families whose activations are all rectifiers, and nothing else stands in the way
    "alexnet",
    "densenet",
    "googlenet",
    "inception_v3",
    "mnasnet",
    "mobilenet_v2",
    "regnet_x",
    "resnet",
    "resnext",
    "shufflenet_v2",
    "squeezenet",
    "vgg",
    "wide_resnet",
)


def architectures() -> tuple[str, ...]:
    """Return every name that `build` knows: `resnet20-relu` and its like, then `torchvision:resnet18` and its like.

    torchvision's are its classification networks, also those that will turn out not to convert; timm's, where the
    package is installed, as `timm:resnet18`.
    """
    import torchvision.models as models

    ours = tuple(f"{name}-{activation}" for name in CIFAR_ARCHITECTURES for activation in ACTIVATIONS)
    theirs = tuple(TORCHVISION + name for name in models.list_models(module=models))
    return ours + theirs + timm_names()


def convertible() -> tuple[str, ...]:
    """Return those architectures that convert: all of ours, and torchvision's and timm's rectified families."""
    rest = tuple(name for name in architectures() if not name.startswith(TIMM))
    rectified = tuple(name for name in rest if name.removeprefix(TORCHVISION).startswith(RECTIFIED))
    return rectified + tuple(filter(is_rectified, timm_names()))


def build(name: str, classes: int = 10, theta: float = 2.0) -> nn.Module:
    """Return a network with random weights: `resnet20-relu`, `vgg16-clip`, `torchvision:resnet18`, ...

    theta is where trained bounds start, in activation units.

    Raises:
        SpecError: nobody knows that name.
    """
    if name.startswith(TORCHVISION):
        return _torchvision(name.removeprefix(TORCHVISION), classes)
    if name.startswith(TIMM):
        return build_timm(name.removeprefix(TIMM), classes)
    base, _, activation = name.partition("-")
    activation = activation or "relu"
    if base not in CIFAR_ARCHITECTURES or activation not in ACTIVATIONS:
        ours = ", ".join(f"{b}-{a}" for b in CIFAR_ARCHITECTURES for a in ACTIVATIONS)
        raise SpecError(
            f"architecture: nobody knows {name!r}. Choose {ours}, 'torchvision:NAME', or a Python file "
            "'FILE.py:factory'."
        )
    return CIFAR_ARCHITECTURES[base](lambda: ACTIVATIONS[activation](theta), classes)


def _torchvision(name: str, classes: int) -> nn.Module:
    import torchvision.models as models

    known = models.list_models(module=models)
    if name not in known:
        near = ", ".join(sorted(known, key=lambda other: _distance(name[:100], other))[:3])
        raise SpecError(f"architecture: torchvision has no classification network {name!r}. Near: {near}.")
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return models.get_model(name, weights=None, num_classes=classes, **extra)


def _distance(a: str, b: str) -> float:
    from difflib import SequenceMatcher

    return -SequenceMatcher(None, a, b).ratio()
