"""torchvision's own pretrained weights, fetched from its hub on machines that can reach it."""

from __future__ import annotations

import hashlib
import http.client
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from explorer.engine.errors import AssetError, SpecError
from explorer.zoo.architectures import TORCHVISION, build
from explorer.zoo.cards import Card
from explorer.zoo.checkpoint import read_state
from explorer.zoo.fitting import fit_state
from explorer.zoo.memory import require_memory

Progress = Callable[[int, int], None]
TIMEOUT = 20.0


def load_torchvision(name: str, on_progress: Progress | None = None) -> tuple[nn.Module, Card]:
    """Return a torchvision network with its default weights, in eval mode, and its card.

    The weights are kept in torch's hub folder; the first use fetches them, telling on_progress(bytes done, total).

    Raises:
        SpecError: torchvision has no such network, or keeps no weights for it.
        AssetError: the hub cannot be reached, or what came is damaged.
    """
    weights = _weights(name)
    require_memory(12 * weights.meta["num_params"], name)
    net = build(TORCHVISION + name, classes=1000)
    if hasattr(net, "transform_input"):
        net.__dict__["transform_input"] = True  # GoogLeNet's and Inception's weights were trained on -1..1
    state = read_state(fetch(weights.url, on_progress))
    fit_state(net, state)
    return net.eval().requires_grad_(False), torchvision_card(name, weights)


def fetch_torchvision(name: str, on_progress: Progress | None = None) -> Path:
    """Return the path of a torchvision network's default weights, fetched first if they are not there yet.

    Raises:
        SpecError: torchvision has no such network, or keeps no weights for it.
        AssetError: the hub cannot be reached, or what came is damaged.
    """
    return fetch(_weights(name).url, on_progress)


def is_fetched(name: str) -> bool:
    """Tell whether a torchvision network's default weights lie on this machine."""
    try:
        return _path(_weights(name).url).is_file()
    except SpecError:
        return False


def _path(url: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]


def _weights(name: str) -> Any:
    import torchvision.models as models

    try:
        return models.get_model_weights(name).DEFAULT
    except (AttributeError, KeyError, ValueError) as error:
        near = build(TORCHVISION + name, classes=1000)  # says so if there is no such network at all
        raise SpecError(f"torchvision keeps no weights for {type(near).__name__}. Choose another network.") from error


def torchvision_card(name: str, weights: Any) -> Card:
    """Return the card of torchvision's weights: sizes and normalisation from its transforms, top-1 as it publishes."""
    transforms = weights.transforms()
    metrics = weights.meta.get("_metrics", {}).get("ImageNet-1K", {})
    return Card(
        name=TORCHVISION + name,
        input_size=transforms.crop_size[0],
        resize=transforms.resize_size[0],
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        classes=tuple(weights.meta["categories"]),
        dataset="ImageNet-1K",
        parameters=weights.meta["num_params"],
        recipe={"origin": f"torchvision {weights}", "published_top1": metrics.get("acc@1", 0.0) / 100},
    )


def fetch(url: str, on_progress: Progress | None = None) -> Path:
    """Return the path of a file of torchvision's hub, fetched first if it is not there yet.

    The name carries the first digits of the file's SHA-256, as torch's hub does; they are verified.

    Raises:
        AssetError: it cannot be reached, or what came is damaged.
    """
    path = _path(url)
    folder = path.parent
    if path.exists():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _part_file(folder) as part:
            with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
                digest = _copy(answer, part, on_progress)
            if not digest.startswith(path.stem.rsplit("-", 1)[-1]):
                raise AssetError(f"{path.name}: what came from torchvision's hub is damaged. Try again.")
            part.close()
            Path(part.name).replace(path)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise AssetError(
            f"{path.name}: torchvision's hub cannot be reached from this machine, or broke off "
            f"({getattr(error, 'reason', error)}). Try again. Fetch {url} elsewhere and put it into {folder}, load it "
            "as your own checkpoint, or choose a shipped network."
        ) from error
    except OSError as error:
        raise AssetError(
            f"{path.name}: it cannot be kept in {folder} ({error.strerror}). Free space there, or set TORCH_HOME to a "
            "folder that can be written to."
        ) from error
    return path


@contextmanager
def _part_file(folder: Path) -> Iterator[Any]:
    """Open a file for what is being fetched; it is gone afterwards, whatever happens, unless it was moved."""
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as part:
        try:
            yield part
        finally:
            Path(part.name).unlink(missing_ok=True)


def _copy(answer: Any, part: Any, on_progress: Progress | None) -> str:
    length = answer.headers.get("Content-Length") or ""
    total, done, digest = int(length) if length.isdecimal() else 0, 0, hashlib.sha256()
    while block := answer.read(1 << 20):
        part.write(block)
        digest.update(block)
        done += len(block)
        if on_progress is not None:
            on_progress(done, total)
    return digest.hexdigest()
