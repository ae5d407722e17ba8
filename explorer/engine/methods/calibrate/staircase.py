"""Weights by descent through the staircase of a site's neurons, which passes gradients as if it were a clip. [Li2021]

    min over dW, db  of  E[(a_hat(z) - a)^2],   z = x + dW u + db
    a_hat(z) = theta / T clip(floor((T z + v(0)) / theta), 0, T),   d a_hat / d z = [0 < z < theta]

x: the mean current that arrives, u: the mean decoded input of the layer before it, a: the ANN's activation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

BETA_1, BETA_2, TINY = 0.9, 0.999, 1e-12  # Adam's


def stairs(z: Tensor, v: Tensor, theta: Tensor, T: int) -> Tensor:
    """Return the decoded activation of neurons at a mean current z, float64 [S, C]; v(0), theta: [C] or [S, C]."""
    return torch.floor((T * z + v) / theta).clamp(0, T) * theta / T


def descend(
    u: Tensor, x: Tensor, a: Tensor, v: Tensor, theta: Tensor, T: int, size: float, rounds: int, rate: float,
    go_on: Callable[[], None] = lambda: None,
) -> Tensor:  # fmt: skip
    """Return the change of weights and bias, float64 [F + 1, C], of the least error met on the way, channel by channel.

    u: [S, F]; x, a: [S, C]; v, theta: float64 [C]; size: the weights' root mean square, of which Adam's step is the
    share `rate`. A channel that does not gain is left alone.
    """
    u = torch.cat([u.double(), torch.ones(len(u), 1, dtype=torch.float64)], 1)
    x, a = x.double(), a.double()
    delta = torch.zeros(u.shape[1], x.shape[1], dtype=torch.float64)
    mean, square, best = torch.zeros_like(delta), torch.zeros_like(delta), delta
    least = torch.full((x.shape[1],), torch.inf, dtype=torch.float64)
    for k in range(1, rounds + 2):
        go_on()
        z = x + u @ delta
        miss = stairs(z, v, theta, T) - a
        error = miss.square().mean(0)
        better = error < least
        best, least = torch.where(better, delta, best), torch.where(better, error, least)
        if k > rounds:
            break
        gradient = u.T @ (miss * ((z > 0) & (z < theta))) * (2 / len(u))
        mean, square = BETA_1 * mean + (1 - BETA_1) * gradient, BETA_2 * square + (1 - BETA_2) * gradient.square()
        step = (mean / (1 - BETA_1**k)) / ((square / (1 - BETA_2**k)).sqrt() + TINY)
        delta = delta - rate * size * step
    return best
