"""Spikes forward, their mean backward: what one site does in training. [Meng2022]

    forward    v(0) = theta/2;  z(t) = [v(t) >= theta];  a_hat = theta n / T
    backward   d a_hat / d mean(x) = [0 <= mean(x) <= theta];   d a_hat / d theta = [mean(x) > theta]

The backward pass is that of clip(mean(x), 0, theta), the expected a_hat of a neuron that starts at theta/2. [Bu2022]
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from explorer.engine.finetune.scan import scan, spread


@torch.no_grad()
def fire(mean: Tensor, steps: Tensor | None, theta: Tensor, T: int) -> tuple[Tensor, Tensor]:
    """Return spike counts n [B, *site] and what is sent in the first T - 1 steps, theta z, [(T - 1) B, *site].

    mean: the mean current over T steps [B, *site]; steps: the current of the first T - 1 steps, one after the other
    [(T - 1) B, *site], None where every step has the mean; theta: [C, 1, ...] or one value; activation units. The last
    step needs no current of its own: by charge, v before it fires is theta/2 + T mean - theta n(T - 1).
    """
    rows = rows_of(mean)
    channels = rows.shape[1]
    n = np.empty_like(rows)
    sent = np.empty((T - 1, *rows.shape), rows.dtype)
    given = rows[None] if steps is None else rows_of(steps).reshape(T - 1, *rows.shape)
    scan(rows, given, steps is not None, by_channel(theta, channels), n, sent)
    return laid_out(n, mean), laid_out(sent.reshape(-1, channels), mean, T - 1)


def by_channel(theta: Tensor, channels: int) -> np.ndarray:
    """Return thresholds [C] for a scan."""
    return theta.detach().reshape(-1).expand(channels).contiguous().cpu().numpy()


def rows_of(value: Tensor) -> np.ndarray:
    """View values [B, C, ...] as rows [B * places, C]: no copy where the memory is channels-last."""
    last = value.detach().movedim(1, -1)
    return last.reshape(-1, last.shape[-1]).contiguous().cpu().numpy()


def laid_out(rows: np.ndarray, like: Tensor, times: int = 1) -> Tensor:
    """View rows [times B * places, C] as values [times B, C, ...], shaped like others [B, C, ...]."""
    B, C, *places = like.shape
    return torch.from_numpy(rows).to(like.device).view(times * B, *places, C).movedim(-1, 1)


class Representation(torch.autograd.Function):
    """Return a_hat; pass gradients on to mean and theta as clip(mean, 0, theta) would."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, theta: Tensor, a_hat: Tensor) -> Tensor:
        """Keep what the backward pass looks at."""
        ctx.save_for_backward(mean, theta)
        return a_hat

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        """Spread the gradient: inside the bounds to the mean, above them to theta."""
        mean, theta = ctx.saved_tensors
        x, channels = rows_of(mean), mean.shape[1]
        inside, above = np.empty_like(x), np.zeros(channels)
        spread(rows_of(grad), x, by_channel(theta, channels), inside, above)
        per_channel = torch.from_numpy(above).to(theta)
        passed = per_channel.sum() if theta.ndim == 0 else per_channel.view_as(theta)
        return laid_out(inside, mean), passed, None
