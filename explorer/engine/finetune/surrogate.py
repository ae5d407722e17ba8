"""Spikes forward, a smooth step backward, through all time-steps: hybrid training. [Neftci2019, Rathi2020]

    forward    u(t) = v(t - 1) + x(t);  z(t) = [u(t) >= theta];  v(t) = u(t) - theta z(t);  v(0) = theta/2
    backward   d z / d u = max(0, 1 - |u - theta| / theta) / theta

A step's gradient reaches all currents before it through v: order in time counts, which a mean does not see.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from explorer.engine.finetune.representation import by_channel, laid_out, rows_of
from explorer.engine.finetune.scan import back_in_time, scan_all


class Spikes(torch.autograd.Function):
    """What a site sends, theta z, [T B, *site], one step after the other.

    steps: its currents, laid out alike; theta: [C, 1, ...] or one value; activation units.
    """

    @staticmethod
    def forward(ctx: Any, steps: Tensor, theta: Tensor, T: int) -> Tensor:
        """Fire, and keep the potentials before the reset."""
        rows = rows_of(steps)
        channels = rows.shape[1]
        u = rows.reshape(T, -1, channels)
        sent = np.empty_like(u)
        before = np.empty_like(u)
        scan_all(u, by_channel(theta, channels), before, sent)
        ctx.before, ctx.T = before, T
        ctx.save_for_backward(theta)
        return laid_out(sent.reshape(-1, channels), steps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        """Go back from the last step to the first."""
        (theta,) = ctx.saved_tensors
        channels = ctx.before.shape[2]
        into, above = np.empty_like(ctx.before), np.zeros(channels)
        given = rows_of(grad).reshape(ctx.before.shape)
        back_in_time(given, ctx.before, by_channel(theta, channels), into, above)
        per_channel = torch.from_numpy(above).to(theta)
        passed = per_channel.sum() if theta.ndim == 0 else per_channel.view_as(theta)
        return laid_out(into.reshape(-1, channels), grad), passed, None
