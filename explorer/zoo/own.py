"""Open any network by one description: shipped, from torchvision's hub, or the visitor's own."""

from __future__ import annotations

import copy
import importlib.util
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from explorer.engine.errors import CheckpointError, ExplorerError, SpecError
from explorer.zoo.architectures import architectures
from explorer.zoo.cards import (
    CIFAR10_CLASSES,
    CIFAR10_MEAN,
    CIFAR10_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Card,
)
from explorer.zoo.checkpoint import open_state
from explorer.zoo.data import ASSETS
from explorer.zoo.fitting import fit_architecture, fit_state
from explorer.zoo.paths import is_file, why_no_file
from explorer.zoo.programs import load_program, unpack, without_modes
from explorer.zoo.registry import Progress, load, load_written
from explorer.zoo.timm_models import TIMM

T = TypeVar("T")


@dataclass(frozen=True)
class Preset:
    """What the networks of one data set expect: size in pixels, normalisation, and class names (none: numbered)."""

    input_size: int
    resize: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...] = ()


PRESETS = {
    "CIFAR-10": Preset(32, 0, CIFAR10_MEAN, CIFAR10_STD, CIFAR10_CLASSES),
    "CIFAR-100": Preset(32, 0, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "ImageNet": Preset(224, 256, IMAGENET_MEAN, IMAGENET_STD),
    "pixels from -1 to 1": Preset(32, 0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "pixels from 0 to 1": Preset(32, 0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "MNIST, one channel": Preset(28, 0, (0.1307,), (0.3081,)),
}


@dataclass(frozen=True)
class NetworkSource:
    """Which network, and what it expects; None keeps what its card says (own networks: CIFAR-10's preset).

    network: a shipped name, `torchvision:NAME`, an architecture of the zoo (with weights), `FILE.py:factory`, or a
    whole program `FILE.pt2`. weights: a state dict file; part: which weights of it, as `open_state` says. classes:
    names of the outputs, in order. resize: the shorter side, in pixels, before the centre crop to input_size; 0 means
    input_size itself.
    """

    network: str
    weights: str | None = None
    input_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: tuple[str, ...] | None = None
    resize: int | None = None
    part: str | None = None


def open_network(
    source: NetworkSource, assets: Path = ASSETS, on_progress: Progress | None = None
) -> tuple[nn.Module, Card]:
    """Return the network, in eval mode, on the CPU, and its card.

    A Python file is executed: give only one you trust, and never one that came through a browser.

    Raises:
        ExplorerError: with the reason and the mend, whatever goes wrong.
    """
    read = None
    path, _, factory = source.network.rpartition(":")
    if path.endswith(".py"):
        net = _from_python(Path(path), factory)
        if source.weights is not None:
            own_card(net, source, Path(path).name)  # running it once gives lazy layers their shapes
            read = open_state(Path(source.weights), part=source.part)
            net = fit_state(net, read.tensors, Path(source.weights).name)
    elif source.network.endswith(".onnx"):
        raise SpecError(
            f"network: {source.network} is ONNX, which is not read. Write the PyTorch network by torch.export.save "
            "and give the .pt2 file, or give its Python file and weights."
        )
    elif source.network.endswith(".pt2"):
        _refuse_weights(source, "a whole program")
        net = load_program(Path(source.network))
    elif source.network.endswith(".safetensors"):
        _refuse_weights(source, "weights themselves")
        net, card = load_written(Path(source.network))
        return net, _changed(card, source)
    elif source.weights is not None:
        if not source.network.startswith(TIMM) and source.network not in architectures():
            raise SpecError(
                f"network: {source.network!r} is no architecture that weights can be put onto. Choose resnet20-relu, "
                "vgg16-relu, 'torchvision:NAME', or a Python file 'FILE.py:factory'."
            )
        read = open_state(Path(source.weights), part=source.part)
        net = fit_architecture(source.network, read.tensors, len(source.classes or ()), Path(source.weights).name)
    else:
        net, card = load(source.network, assets, on_progress)
        return net, _changed(card, source)
    name = Path(path or source.network).name if source.weights is None else Path(source.weights).name
    card = own_card(net, source, name)
    return net, card if read is None else replace(card, recipe={**card.recipe, "part": read.part, "parts": read.parts})


def number(text: str, what: str) -> float:
    """Return the number in a text.

    Raises:
        SpecError: it is none.
    """
    try:
        return float(text)
    except ValueError:
        raise SpecError(f"{what}: a number, got {text!r}.") from None


def numbers(text: str, what: str) -> tuple[float, ...]:
    """Return the numbers in a text, separated by commas."""
    return tuple(number(part, what) for part in text.split(","))


def class_list(text: str) -> tuple[str, ...]:
    """Return the names in a text: one a line or, in a single line, separated by commas; blanks are left out."""
    lines = text.strip().splitlines()
    parts = lines if len(lines) > 1 else text.split(",")
    return tuple(part.strip() for part in parts if part.strip())


def own_card(net: nn.Module, source: NetworkSource, name: str, preset: str = "CIFAR-10") -> Card:
    """Return a card for a network nobody has described, its outputs counted by running it once on noise.

    What source leaves open comes from the preset; class names are the preset's if their number fits, else numbers.

    Raises:
        CheckpointError: the network does not map images [B, C, H, W] to finite class scores [B, K].
        SpecError: size, mean or standard deviation are out of range.
    """
    known = PRESETS[preset]
    names = source.classes or known.classes
    card = Card(
        name=name,
        input_size=_given(source.input_size, known.input_size),
        resize=_resize(source, known),
        mean=_given(source.mean, known.mean),
        std=_given(source.std, known.std),
        classes=names if len(names) >= 2 else ("class 0", "class 1"),
        recipe={"origin": "the visitor's own"},
    )
    outputs = _try_out(net, card).shape[1]
    if source.classes and len(source.classes) != outputs:
        raise SpecError(f"classes: {len(source.classes)} names given, but {name} has {outputs} outputs.")
    if len(names) != outputs:
        names = tuple(f"class {i}" for i in range(outputs))
    return replace(card, classes=names, parameters=sum(p.numel() for p in net.parameters()))


def _given(value: T | None, default: T) -> T:
    """Return what was given, however small; the default where nothing was."""
    return default if value is None else value


def _resize(source: NetworkSource, known: Preset | Card) -> int:
    if source.resize is not None:
        return source.resize
    return known.resize if source.input_size in (None, known.input_size) else 0


def _try_out(net: nn.Module, card: Card) -> Tensor:
    size, channels = card.input_size, card.channels
    fed = f"an image of noise [1, {channels}, {size}, {size}]"
    mend = "Check the input size, and whether the network takes one channel or three."
    net.eval()
    types = {p.dtype for p in (*net.parameters(), *net.buffers()) if p.is_floating_point()}
    try:
        with torch.no_grad():
            trial = net if types <= {torch.float32} else copy.deepcopy(net).float()
            scores = trial(card.example())
            if isinstance(scores, Tensor) and scores.ndim == 1:  # squeezed: one image alone loses its axis
                scores = trial(card.example().expand(2, -1, -1, -1))[:1]
    except (Exception, SystemExit) as error:  # somebody else's forward raises whatever it likes
        raise CheckpointError(f"{card.name}: fails on {fed} ({type(error).__name__}: {error}). {mend}") from error
    net.requires_grad_(False)
    if not isinstance(scores, Tensor) or scores.ndim != 2 or scores.shape[0] != 1 or scores.shape[1] < 2:
        kind = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise CheckpointError(
            f"{card.name}: gives {kind} for {fed}; class scores [1, K], K at least 2, are needed. "
            "Return the scores only, and flatten before the last layer."
        )
    if not bool(torch.isfinite(scores).all()):
        raise CheckpointError(
            f"{card.name}: its class scores on {fed} are not finite. Check weights and normalisation."
        )
    return scores


def _changed(card: Card, source: NetworkSource) -> Card:
    """Return a pretrained network's card with what the visitor wants otherwise."""
    if source.classes and len(source.classes) != len(card.classes):
        raise SpecError(f"classes: {len(source.classes)} names given, but {card.name} has {len(card.classes)} outputs.")
    return replace(
        card,
        input_size=_given(source.input_size, card.input_size),
        resize=_resize(source, card),
        mean=_given(source.mean, card.mean),
        std=_given(source.std, card.std),
        classes=source.classes or card.classes,
    )


def _refuse_weights(source: NetworkSource, kind: str) -> None:
    if source.weights is not None:
        raise SpecError(f"weights: {source.network} is {kind} and has its own. Leave --weights out.")


def _from_python(path: Path, factory: str) -> nn.Module:
    """Import a Python file and call its factory."""
    if not is_file(path):
        raise CheckpointError(f"{why_no_file(path)}. Give --network FILE.py:factory.")
    name = f"own_network_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
        make = getattr(module, factory, None)
        if not callable(make):
            found = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            raise CheckpointError(
                f"{path.name}: no factory {factory!r} in it. It defines: {', '.join(found[:8]) or 'nothing callable'}."
            )
        net = make()
    except ExplorerError:
        raise
    except (Exception, SystemExit) as error:  # somebody else's file raises whatever it likes
        raise CheckpointError(
            f"{path.name}:{factory} failed ({type(error).__name__}: {error}). Run the file by itself to see where."
        ) from error
    finally:
        with suppress(ValueError):  # it may have changed the path itself
            sys.path.remove(str(path.parent.resolve()))
    if isinstance(net, torch.export.ExportedProgram):
        return unpack(net, f"{path.name}:{factory}")
    if not isinstance(net, nn.Module):
        raise CheckpointError(f"{path.name}:{factory} returned {type(net).__name__}, not an nn.Module.")
    if isinstance(net, torch.jit.ScriptModule):
        raise CheckpointError(
            f"{path.name}:{factory} returned a scripted network (torch.jit), which cannot be looked into. Return the "
            "PyTorch network that it was made of."
        )
    return without_modes(net)
