"""Optimisers and the learning rate's rise and fall."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from explorer.engine import QuantisedClip, TrainableClip
from explorer.zoo.training.recipes import Cycle, Recipe


def learning_rate(recipe: Recipe, cycle: Cycle, progress: float) -> float:
    """Return the learning rate at a share (0..1) of a cycle."""
    if progress < recipe.warmup:
        return cycle.peak_lr * progress / recipe.warmup
    left = (1 - progress) / (1 - recipe.warmup)
    if recipe.fall == "linear":
        return cycle.peak_lr * left
    return cycle.peak_lr * 0.5 * (1 - math.cos(math.pi * left))


def clips(net: nn.Module) -> list[nn.Parameter]:
    """Return the trained bounds of a network, in the order of its modules."""
    return [m.theta for m in net.modules() if isinstance(m, TrainableClip | QuantisedClip)]


def flat(weight: Tensor) -> Tensor:
    """View a channels-last kernel [O, I, H, W] as the matrix [O, H*W*I] in the same memory."""
    return weight.permute(0, 2, 3, 1).view(len(weight), -1)


class Optimiser:
    """The recipe's optimiser over a network's weights (decayed), batch norms and biases (not), clips (by the cycle).

    Muon, where the recipe asks for it, moves the convolutions; it takes matrices, so it gets views of the kernels.
    All else, the classifier included, goes by SGD with Nesterov momentum, at the same schedule.
    """

    def __init__(self, net: nn.Module, recipe: Recipe) -> None:
        self.recipe = recipe
        bounds = clips(net)
        special = {id(p) for p in bounds}
        self.kernels = [p for p in net.parameters() if p.ndim == 4] if recipe.muon else []
        special |= {id(p) for p in self.kernels}
        rest = [p for p in net.parameters() if id(p) not in special]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in rest if p.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
        ]
        if bounds:
            groups.append({"params": bounds, "weight_decay": 0.0})
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.SGD(groups, lr=0.0, momentum=recipe.momentum, nesterov=True)
        ]
        self.matrices = [nn.Parameter(flat(p.detach())) for p in self.kernels]
        if recipe.muon:
            self.parts.append(torch.optim.Muon(self.matrices, lr=0.0, weight_decay=recipe.muon.decay, momentum=0.9))

    def step(self, loss: Tensor, cycle: Cycle, progress: float) -> None:
        """Follow the gradient of a loss at the rate that a share (0..1) of a cycle has."""
        rate = learning_rate(self.recipe, cycle, progress)
        shares = [1.0, *([self.recipe.muon.rate_share] if self.recipe.muon else [])]
        for part, share in zip(self.parts, shares, strict=True):
            part.zero_grad()
            for group in part.param_groups:
                group["lr"] = rate * share
        for group in self.parts[0].param_groups[2:]:
            group["weight_decay"] = cycle.theta_decay
        for kernel in self.kernels:
            kernel.grad = None
        loss.backward()
        for kernel, matrix in zip(self.kernels, self.matrices, strict=True):
            assert kernel.grad is not None
            matrix.grad = flat(kernel.grad.contiguous(memory_format=torch.channels_last))
        for part in self.parts:
            part.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """Return the state of all parts, for a checkpoint."""
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Go on from a checkpoint's state."""
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)
