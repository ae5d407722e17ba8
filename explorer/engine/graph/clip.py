"""The trainable upper clip of OPI: the activation whose bound becomes the spiking threshold. [Bu2022]"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class _ClipFunction(torch.autograd.Function):
    """a = clip(x, 0, theta): the gradient of theta is what the clipped elements pass on."""

    @staticmethod
    def forward(ctx, x: Tensor, theta: Tensor) -> Tensor:
        bound = float(theta)
        ctx.save_for_backward(x)
        ctx.bound = bound
        return torch.clamp(x, 0.0, bound)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        (x,) = ctx.saved_tensors
        above = x >= ctx.bound
        grad_theta = torch.where(above, grad, 0.0).sum(dtype=torch.float32)
        grad_x = torch.ops.aten.hardtanh_backward(grad, x, 0.0, ctx.bound)
        return grad_x, grad_theta


class TrainableClip(nn.Module):
    """Rectify and clip at a bound that is trained: a = clip(x, 0, theta).

    theta is one positive number per module, or one a channel as [C, 1, ...], in activation units. After conversion it
    is the site's threshold.
    """

    def __init__(self, theta: float | Tensor = 2.0) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.as_tensor(theta, dtype=torch.float32).detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return clip(x, 0, theta), of x's shape and units."""
        if self.theta.ndim == 0:
            return _ClipFunction.apply(x, self.theta)
        return torch.minimum(x.clamp(min=0.0), self.theta)

    def extra_repr(self) -> str:
        """Show the bound in the module's repr."""
        return f"theta={float(self.theta.detach().mean()):.3f}" + ("" if self.theta.ndim == 0 else " on average")


def shape_clips(net: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Give a network's clips as many bounds as a state dict has for them, in place: one, or one a channel."""
    for name, module in net.named_modules():
        theta = state.get(f"{name}.theta")
        if isinstance(module, TrainableClip) and theta is not None and theta.ndim > module.theta.ndim:
            module.theta = nn.Parameter(torch.ones(theta.shape, device=module.theta.device))
    return net
