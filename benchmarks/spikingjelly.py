"""SpikingJelly 2's own recipes beside ours, on the same weights and images: `python -m benchmarks.spikingjelly`.

    half      RateCodingRecipe(channel_wise=True, half_threshold=True, mode="Max")   beside opi:threshold=max:channel
    balanced  LocalThresholdBalancingRecipe                                         beside local-balancing:delayed=False

Where the rules agree, spikes agree but for rounding: both run in float32, in different orders. SpikingJelly knows plain
rectifier modules only; networks with clips are left out.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from explorer.engine import Record, SimulationSpec, methods, simulate, trace
from explorer.engine.graph import Network
from explorer.engine.methods import Method
from explorer.engine.theory import wilson
from explorer.terminal import Parser, guarded
from explorer.zoo.data import Embedded, load_images
from explorer.zoo.images import normalise
from explorer.zoo.registry import load

BATCH = 16


@dataclass(frozen=True)
class Pair:
    """What both give on the same images, ours first: scores at T [2, B, K], and spike counts by site [B, *site]."""

    scores: tuple[Tensor, Tensor]
    counts: dict[str, tuple[Tensor, Tensor]]

    @property
    def different(self) -> float:
        """The share of neurons whose counts differ."""
        unequal = sum(int((a != b).sum()) for a, b in self.counts.values())
        return unequal / sum(a.numel() for a, _ in self.counts.values())

    def top1(self, labels: Tensor) -> tuple[float, float]:
        """Return both accuracies, shares."""
        ours, theirs = (float((s.argmax(1) == labels).double().mean()) for s in self.scores)
        return ours, theirs


def ours(recipe: str, updates: int) -> Method:
    """Return our counterpart of a recipe."""
    if recipe == "half":
        return methods.parse("opi:threshold=max:channel")
    return methods.get("local-balancing")(batch=BATCH, updates=updates, delayed=False)


def converted(recipe: str, model: nn.Module, training: Tensor, updates: int) -> nn.Module:
    """Return SpikingJelly's network: half looks at all images in one batch, balanced at so many batches in turn."""
    from spikingjelly.activation_based import ann2snn

    def batches() -> Iterator[Tensor]:
        while True:
            yield from training.split(BATCH)

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        if recipe == "half":
            chosen: Any = ann2snn.RateCodingRecipe([training], mode="Max", channel_wise=True, half_threshold=True)
        else:
            chosen = ann2snn.LocalThresholdBalancingRecipe(list(islice(batches(), updates)))
        return ann2snn.Converter(chosen).convert(copy.deepcopy(model).eval()).eval()


@torch.no_grad()
def theirs(snn: nn.Module, network: Network, images: Tensor, T: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Run SpikingJelly's network step by step: mean scores and counts by our sites, which neurons meet in one order."""
    from spikingjelly.activation_based import functional, neuron

    met: list[nn.Module] = []
    counts: dict[nn.Module, Tensor] = {}

    def count(module: nn.Module, _: Any, spikes: Tensor) -> None:
        if module not in counts:
            met.append(module)
        counts[module] = counts.get(module, 0) + spikes

    neurons = [module for module in snn.modules() if isinstance(module, neuron.HalfThresholdIFNode)]
    hooks = [module.register_forward_hook(count) for module in neurons]
    try:
        functional.reset_net(snn)
        scores = sum((snn(images) for _ in range(T)), torch.zeros(())) / T
    finally:
        for hook in hooks:
            hook.remove()
    return scores, {site.name: counts[each].int() for site, each in zip(network.sites, met, strict=True)}


def both(
    recipe: str, model: nn.Module, network: Network, training: Tensor, images: Tensor, T: int, updates: int
) -> Pair:
    """Convert and run by both."""
    fitted = ours(recipe, updates).fit(network, T, training)
    run = simulate(fitted.snn, images, SimulationSpec(T, Record(v_end=False)))
    scores, counts = theirs(converted(recipe, model, training, updates), network, images, T)
    return Pair((run.logits[-1], scores), {name: (run.counts[name], counts[name]) for name in counts})


def main() -> None:
    """Measure and print."""
    parser = Parser(description=__doc__)
    parser.add_argument("--network", default="resnet20-relu")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--calibration-images", type=int, default=64)
    parser.add_argument("--steps", default="8,32")
    parser.add_argument("--updates", type=int, default=200)
    args = parser.parse_args()
    model, card = load(args.network)
    test = load_images(Embedded(), card, n=args.images)
    training = normalise(load_images(Embedded(), card, n=args.calibration_images, part="calibration").images, card)
    images, labels = normalise(test.images, card), torch.from_numpy(test.labels)
    network = trace(model, card.example())
    ann = float((network.forward(images).argmax(1) == labels).double().mean())
    print(f"{args.network}, {len(images)} images, ANN {100 * ann:.1f}\n")
    print("| recipe | T | SpikingJelly | ours | ours, 95 % | counts that differ |\n|---|---|---|---|---|---|")
    for recipe in ("half", "balanced"):
        for T in map(int, args.steps.split(",")):
            pair = both(recipe, model, network, training, images, T, args.updates)
            mine, other = pair.top1(labels)
            low, high = wilson(round(mine * len(images)), len(images))
            cells = f"{100 * other:.1f} | {100 * mine:.1f} | {100 * low:.1f} to {100 * high:.1f}"
            print(f"| {recipe} | {T} | {cells} | {100 * pair.different:.3f} % |", flush=True)


if __name__ == "__main__":
    raise SystemExit(guarded(main))
