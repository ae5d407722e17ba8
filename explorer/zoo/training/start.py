"""Where a network starts: from scratch, or from another's weights and activations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from explorer.engine import CalibrationSpec, Percentile, QuantisedClip, calibrate, trace
from explorer.zoo.architectures import build as build_network
from explorer.zoo.registry import load
from explorer.zoo.training.batches import to_input
from explorer.zoo.training.optimise import clips
from explorer.zoo.training.recipes import Recipe


def build(recipe: Recipe, classes: int = 10) -> nn.Module:
    """Return the recipe's untrained network."""
    net = build_network(f"{recipe.architecture}-{recipe.activation}", classes, recipe.theta_init)
    for module in net.modules():
        if isinstance(module, QuantisedClip):
            module.levels.fill_(recipe.levels[-1])
    return net


def go_on_from(net: nn.Module, recipe: Recipe, images: Tensor, weights: Path) -> None:
    """Give a network the weights of `start_from`, a network in the folder of weights, and its clips a start.

    Bounds are the other network's own where it has them, else percentiles of its activations.
    images: uint8 [N, 32, 32, 3] of the training set.
    """
    other, _ = load(recipe.start_from, weights)
    net.load_state_dict(other.state_dict(), strict=False)
    if clips(other) or not clips(net):
        return
    x = to_input(images, torch.device("cpu"))
    theta = calibrate(trace(other, x[:1]), x, CalibrationSpec(Percentile(recipe.theta_percentile))).theta
    with torch.no_grad():
        for site, value in theta.items():
            clip: Any = net.get_submodule(site)
            clip.theta.copy_(value)
