"""Fine-tuning of a CIFAR network for T steps on the whole training set, and its checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from explorer.engine import methods, trace
from explorer.engine.errors import SpecError
from explorer.engine.finetune.progress import METHODS
from explorer.engine.finetune.tunable import Tunable
from explorer.engine.finetune.tuning import Held, Progress, Tuning, TuningSpec
from explorer.engine.graph.clip import TrainableClip
from explorer.engine.graph.qcfs import QuantisedClip
from explorer.zoo.architectures import build
from explorer.zoo.cards import Card
from explorer.zoo.registry import available, load
from explorer.zoo.training.batches import crop, pad, placement, to_input
from explorer.zoo.training.data import Images
from explorer.zoo.training.files import save

START = "calibrate:fit_amplitude=false,fit_even=false,fit_steps=0,fit_weights=true"  # what plain clips can hold
START_FROZEN = "calibrate:fit_amplitude=false,fit_even=false,fit_steps=0"  # the same with weights as they are
QUANTISED = "qcfs"  # a network with quantised activations starts, and stays, with its own bounds, one a site
TUNED = "opi:threshold=clip"  # one that was fine-tuned before goes on from the thresholds it has
CALIBRATION_IMAGES = 512
CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Crops:
    """Training images, uint8 [N, 32, 32, 3], cropped up to 4 pixels aside, and mirrored every other epoch."""

    data: Images
    seed: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "_padded", pad(self.data.images))

    def __len__(self) -> int:
        return len(self.data.images)

    @property
    def labels(self) -> Tensor:
        """The labels, int64 [N]."""
        return self.data.labels

    def take(self, index: Tensor, turn: int) -> Tensor:
        """See `engine.finetune.tuning.Pictures`."""
        padded: Tensor = self.__dict__["_padded"]
        return to_input(crop(padded, index, placement(len(self), self.seed, turn, alternate=True)[index]), CPU)


def begin(
    net: nn.Module, card: Card, spec: TuningSpec, data: Images, held: Images, judged: int, teacher: nn.Module
) -> Tuning:
    """Calibrate a network for T on training images, and return the fine-tuning that starts there.

    judged: how many of the images held out are looked at along the way. teacher: the ANN whose scores it learns.
    """
    chosen = torch.randperm(len(data.images), generator=torch.Generator().manual_seed(spec.seed))[:CALIBRATION_IMAGES]
    images = to_input(data.images[chosen], CPU)
    network = trace(net, card.example())
    start = methods.parse(start_of(card, spec.frozen_above)).fit(network, spec.T, images).snn
    few = Held(to_input(held.images[:judged], CPU), held.labels[:judged])
    return Tuning(trace(teacher, card.example()), start, spec, Crops(data, spec.seed), few)


def follow(tuning: Tuning, file: Path, say: Callable[[str], None]) -> None:
    """Do all updates that are left, from the state in a file if there is one, kept there at every look."""
    if file.exists():
        tuning.load_state_dict(torch.load(file, weights_only=True))
        say(f"going on after update {tuning.update}")
    say(f"at the start: {_told(tuning.judged[0].loss, tuning.judged[0].accuracy)}")
    first, began, losses = tuning.update, time.time(), [0.0]
    for progress in tuning.run():
        losses.append(progress.loss)
        if progress.judged is not None:
            left = (time.time() - began) / (progress.update - first) * (progress.updates - progress.update)
            say(_line(progress, sum(losses[1:]) / len(losses[1:]), left))
            losses = [0.0]
            save(file, tuning.state_dict())


def _line(progress: Progress, loss: float, left: float) -> str:
    assert progress.judged is not None
    theta = progress.theta.values()
    return (
        f"update {progress.update}/{progress.updates} loss {loss:.4f}; {progress.spiking} of {len(theta)} sites spike, "
        f"thresholds {min(theta):.2f} to {max(theta):.2f}; {_told(progress.judged.loss, progress.judged.accuracy)}; "
        f"left about {left / 60:.0f} min"
    )


def _told(loss: float, accuracy: float) -> str:
    return f"held-back loss {loss:.4f}, top-1 {100 * accuracy:.2f} %"


def start_of(card: Card, frozen_above: int = 0) -> str:
    """Return the conversion, as a line, that a network's fine-tuning starts from; weights to be frozen are kept."""
    if card.recipe.get("activation") == "qcfs":
        return QUANTISED
    if card.recipe.get("method") in METHODS:
        return TUNED
    return START_FROZEN if frozen_above else START


def architecture_of(card: Card) -> str:
    """Return the architecture, its activations quantised as before or trained clips, that fine-tuned weights fit.

    Raises:
        SpecError: there is none.
    """
    name = f"{card.recipe.get('architecture', '?')}-{'qcfs' if start_of(card) == QUANTISED else 'clip'}"
    try:
        with torch.device("meta"):
            build(name, len(card.classes))
    except SpecError:
        raise SpecError(
            f"{card.name}: no architecture of ours takes its weights with trained thresholds. Choose a shipped network."
        ) from None
    return name


@torch.no_grad()
def as_network(
    tuned: Tunable, architecture: str, classes: int, example: Tensor, rest: nn.Module | None = None
) -> nn.Module:
    """Return the architecture with a fine-tuned network's weights and thresholds, ready to be saved.

    Layers and clips are matched in the order in which they are called. Batch norms are set to add the offset and to
    change nothing else. With `rest`, the network that it came from, frozen weights are the ones there, and batch
    norms multiply by the channel's factor.

    Raises:
        SpecError: the architecture calls other layers.
    """
    net = build(architecture, classes).eval()
    calls: list[nn.Module] = []
    kinds = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, TrainableClip, QuantisedClip)
    hooks = [m.register_forward_hook(lambda m, *_: calls.append(m)) for m in net.modules() if isinstance(m, kinds)]
    try:
        net(example)
    finally:
        for hook in hooks:
            hook.remove()
    names = {module: name for name, module in net.named_modules()}
    nodes = [node for node in tuned.nodes.values() if tuned.layer(node) is not None]
    weights = [tuned.weights(node) for node in nodes]
    layers = [i for i, m in enumerate(calls) if isinstance(m, nn.Conv2d | nn.Linear)]
    clips = [m for m in calls if isinstance(m, TrainableClip | QuantisedClip)]
    if [calls[i].weight.shape for i in layers] != [w.shape for w, _ in weights] or len(clips) != len(tuned.theta):
        raise SpecError(f"{architecture}: its layers are not those of the network. This is a fault: please report it.")
    for i, node, (weight, bias) in zip(layers, nodes, weights, strict=True):
        layer: Any = calls[i]
        layer.weight.copy_(weight)
        norm: Any = calls[i + 1] if i + 1 < len(calls) and isinstance(calls[i + 1], nn.BatchNorm2d) else None
        offset = torch.zeros(len(weight)) if bias is None else bias
        if norm is None:
            layer.bias.copy_(offset)
            continue
        if layer.bias is not None:
            layer.bias.zero_()
        norm.reset_running_stats()
        norm.weight.fill_((1 + norm.eps) ** 0.5)
        if rest is not None and tuned.frozen(node):
            kept: Any = rest.get_submodule(names[layer])
            norm.weight *= _factors(weight, kept.weight)
            layer.weight.copy_(kept.weight)
        norm.bias.copy_(offset)
    for clip, theta in zip(clips, tuned.theta, strict=True):
        clip.theta = nn.Parameter(theta.detach().clone())
    return net.requires_grad_(False)


def _factors(weight: Tensor, kept: Tensor) -> Tensor:
    """Return by what each channel of weights is a multiple of those kept."""
    own, base = weight.flatten(1), kept.flatten(1)
    return (own * base).sum(1) / (base * base).sum(1).clamp(min=torch.finfo(base.dtype).tiny)


def stored_as(card: Card) -> str:
    """Return the type that weights are written in: the one of the network they came from."""
    return str(card.recipe.get("weights", "float32"))


def rest_of(card: Card) -> dict[str, str]:
    """Return which network's file frozen weights are left to, as a card's recipe has it."""
    return dict(card.recipe.get("rest") or {"network": card.name, "sha256": card.sha256})


def rest_for(card: Card) -> nn.Module:
    """Load the network that `rest_of` names.

    Raises:
        SpecError: it is not shipped.
    """
    wanted = rest_of(card)
    for shipped in available():
        if (shipped.name, shipped.sha256) == (wanted["network"], wanted["sha256"]):
            return load(shipped.name)[0]
    raise SpecError(
        f"frozen weights are left to the file of a shipped network, and {wanted['network']} is none. Start from one, "
        "or freeze nothing."
    )


def told(spec: TuningSpec) -> str:
    """Say for how many time-steps a network is tuned."""
    numbers = [f"T = {T}" if T else "the ANN" for T in spec.turns]
    return numbers[0] if len(numbers) == 1 else f"{', '.join(numbers[:-1])} and {numbers[-1]}, in turns"


def recipe_of(
    spec: TuningSpec, card: Card, tuning: Tuning, held_out: int, teacher: str, last: bool = False
) -> dict[str, Any]:
    """Return what a fine-tuned network's card says of how it came about. last: its last state was kept."""
    kept = "last one" if last else f"best on {len(tuning.held.images):,} of the images held out"
    return {
        "architecture": card.recipe["architecture"],
        "activation": "qcfs" if start_of(card) == QUANTISED else "clip",
        "weights": stored_as(card),
        **({"rest": rest_of(card)} if spec.frozen_above else {}),
        "start_from": card.name,
        "start_sha256": card.sha256,
        "start": start_of(card, spec.frozen_above),
        "calibration_images": CALIBRATION_IMAGES,
        "held_out": held_out,
        "teacher": teacher,
        **asdict(spec),
        "best_update": tuning.best.update,
        "kept": "last" if last else "best",
        "note": f"Fine-tuned for {told(spec)}. The state is the {kept}. "
        "The test images were looked at once, at the end.",
    }
