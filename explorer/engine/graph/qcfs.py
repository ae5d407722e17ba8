"""The quantised activation with a trained bound: the ANN already has the staircase of the neurons. [Bu2022b]"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from explorer.engine.graph.clip import TrainableClip


class _Staircase(torch.autograd.Function):
    """a = theta/L clip(floor(x L/theta + 1/2), 0, L); the floor passes gradients on as if it were the identity."""

    @staticmethod
    def forward(ctx, x: Tensor, theta: Tensor, levels: Tensor) -> Tensor:
        bound, steps = theta.to(x.dtype), levels.to(x.dtype)
        ctx.save_for_backward(x, theta, levels)
        a = (x * (steps / bound)).add_(0.5).floor_()
        return torch.minimum(a.clamp_(min=0), steps).mul_(bound / steps)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, theta, levels = ctx.saved_tensors
        # With u = clip(x/theta, 0, 1) and q its staircase, d(theta q)/dtheta = q - u between the bounds and 1 above.
        bound, steps = theta.to(x.dtype), levels.to(x.dtype)
        u = torch.minimum((x / bound).clamp_(min=0), torch.ones_like(bound))
        inside = (u > 0) & (u < 1)
        slope = (u * steps).add_(0.5).floor_().div_(steps).sub_(torch.where(inside, u, 0.0))
        return grad * inside, (grad * slope).sum(dtype=torch.float32), None


class QuantisedClip(nn.Module):
    """Rectify, clip and round to levels: a = theta/L clip(floor(x L/theta + 1/2), 0, L).

    theta is one positive number per module, trained, in activation units; levels is L, kept with the weights. After
    conversion theta is the site's threshold, and at `v_init` 1/2 and T = L the neurons' staircase is this one.

    `noise`, if whoever trains sets it, is a row of numbers in levels, at least as many as x has, that are added to x
    while training: spikes come unevenly, so a neuron's count strays from its staircase, and a network that is used to
    that bears it.
    """

    theta: nn.Parameter
    levels: Tensor

    def __init__(self, theta: float = 2.0, levels: int = 8) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(float(theta)))
        self.register_buffer("levels", torch.tensor(levels))
        self.noise: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the quantised activation, of x's shape and units."""
        if self.training and self.noise is not None:
            step = self.theta.detach().to(x.dtype) / self.levels.to(x.dtype)
            last = x.movedim(1, -1)  # a row is laid out as channels-last memory is
            x = x + self.noise[: x.numel()].to(x.dtype).view(last.shape).movedim(-1, 1) * step
        return _Staircase.apply(x, self.theta, self.levels)

    def extra_repr(self) -> str:
        """Show bound and levels in the module's repr."""
        return f"theta={float(self.theta):.3f}, levels={int(self.levels)}"


def without_levels(model: Any) -> Any:
    """Return a copy of a network whose quantised activations are the clips that they round."""
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, QuantisedClip) and name:
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, TrainableClip(float(module.theta.detach())))
    return model
