"""Averages of weights, and batch-norm statistics that fit them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from explorer.zoo.training.batches import crop, placement, to_input
from explorer.zoo.training.recipes import Recipe


class MovingAverage:
    """A copy of a network's state that follows it: average <- decay average + (1 - decay) state, a step."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {k: v.detach().clone() for k, v in net.state_dict().items()}

    @torch.no_grad()
    def follow(self, net: nn.Module) -> None:
        """Take a step towards the network's present state."""
        for key, value in net.state_dict().items():
            if value.is_floating_point():
                self.state[key].lerp_(value, 1 - self.decay)
            else:
                self.state[key].copy_(value)


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
    """Set batch-norm statistics to the mean over some batches of augmented training images, in float32."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    net.train()
    placed = placement(len(padded), recipe.seed + 1, 0, recipe.alternate)
    order = torch.randperm(len(padded), generator=torch.Generator().manual_seed(recipe.seed + 1))
    for index in order[: recipe.statistics_batches * 256].split(256):
        net(to_input(crop(padded, index, placed[index]), device))
