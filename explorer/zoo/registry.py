"""The shipped networks: whatever cards lie in assets/, and torchvision's with weights from its own hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from explorer.engine.errors import AssetError, SpecError
from explorer.engine.graph.clip import shape_clips
from explorer.zoo.architectures import TORCHVISION, build
from explorer.zoo.cards import Card, mend, read_card, read_weights
from explorer.zoo.data import ASSETS
from explorer.zoo.paths import is_file, why_no_file
from explorer.zoo.timm_models import TIMM, load_timm

Progress = Callable[[int, int], None]


def available(assets: Path = ASSETS) -> tuple[Card, ...]:
    """Return the cards of the shipped networks in order of their names; a damaged card is left out.

    (Loading a network by the name of a damaged card raises, so damage is not hidden from whoever asks for it.)
    """
    found = []
    for weights in sorted(assets.glob("*.safetensors")):
        try:
            found.append(read_card(weights.with_suffix(".json")))
        except AssetError:
            continue
    return tuple(found)


def load_written(path: Path) -> tuple[nn.Module, Card]:
    """Return a network from weights whose card lies beside them, as training and fine-tuning write them.

    Raises:
        SpecError: there is no such file.
        AssetError: its card is missing, or one of them is damaged.
    """
    if not is_file(path):
        raise SpecError(f"network: {why_no_file(path)}. Give the .safetensors file that training wrote.")
    return _from_card(path)


def load(name: str, assets: Path = ASSETS, on_progress: Progress | None = None) -> tuple[nn.Module, Card]:
    """Return a pretrained network in eval mode, float32 on the CPU, and its card.

    name is one of `available()`, `torchvision:NAME` for a network whose weights torchvision's hub keeps (fetching those
    tells on_progress(bytes done, bytes in all)), or `timm:NAME` where timm is installed.

    Raises:
        AssetError: its weights or card are missing or damaged, or the hub cannot be reached.
        SpecError: nobody knows that name.
    """
    if name.startswith(TORCHVISION):
        from explorer.zoo.hub import load_torchvision

        return load_torchvision(name.removeprefix(TORCHVISION), on_progress)
    if name.startswith(TIMM):
        return load_timm(name.removeprefix(TIMM))
    known = [path.stem for path in sorted(assets.glob("*.safetensors"))]
    if name not in known and (Path(name).name != name or not is_file(assets / f"{name}.json")):
        listed = ", ".join(known) or "none is in assets/ yet"
        raise SpecError(f"network: nobody knows {name!r}. Choose one of: {listed}; or 'torchvision:NAME'.")
    return _from_card(assets / f"{name}.safetensors")


def _from_card(weights: Path) -> tuple[nn.Module, Card]:
    card = read_card(weights.with_suffix(".json"))
    recipe = card.recipe
    try:
        state = _rest(weights, recipe.get("rest")) | read_weights(weights, card.sha256)
        net = build(f"{recipe['architecture']}-{recipe['activation']}", len(card.classes))
        shape_clips(net, state).load_state_dict(state)
    except (AttributeError, KeyError, RuntimeError, SpecError, TypeError) as error:
        raise AssetError(f"{weights.stem}: its card and weights do not belong together. {mend(weights)}") from error
    return net.eval().requires_grad_(False), card


def _rest(weights: Path, rest: Mapping[str, str] | None) -> dict[str, Tensor]:
    """Return the weights of the network that a file leaves the rest of its own to; it lies beside it or in assets/."""
    if rest is None:
        return {}
    path = weights.with_name(f"{Path(rest['network']).name}.safetensors")
    path = path if is_file(path) else ASSETS / path.name
    try:
        return read_weights(path, rest["sha256"])
    except AssetError as error:
        raise AssetError(f"{weights.stem} has the rest of its weights in {path.name}. {error}") from error
