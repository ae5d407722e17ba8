"""The neurons' scan in training, compiled: one pass over the currents in place of six per step."""

from __future__ import annotations

from typing import Any

import numpy as np

from explorer.engine.kernels.cpu.compile_cache import njit

_OPTIONS: dict[str, Any] = {"nogil": True, "cache": True, "boundscheck": False, "error_model": "numpy"}


@njit(**_OPTIONS)
def scan(mean, steps, timed, theta, n, sent):
    """Fire for T steps: see `representation.fire`; T - 1 is the length of `sent`.

    mean, n: [rows, C], n overwritten; steps, sent: [T - 1, rows, C], sent overwritten, steps read if `timed`; theta:
    [C]. All of one type, float32 or float64.
    """
    before, rows, C = sent.shape
    v = np.empty(C, mean.dtype)
    half = mean.dtype.type(0.5)
    one, zero = mean.dtype.type(1), mean.dtype.type(0)
    whole = mean.dtype.type(before + 1)
    for r in range(rows):
        for c in range(C):
            v[c] = theta[c] * half
            n[r, c] = zero
        for t in range(before):
            for c in range(C):
                x = steps[t, r, c] if timed else mean[r, c]
                u = v[c] + x
                z = one if u >= theta[c] else zero
                s = z * theta[c]
                n[r, c] += z
                sent[t, r, c] = s
                v[c] = u - s
        for c in range(C):
            last = mean[r, c] * whole + theta[c] * half - theta[c] * n[r, c]
            n[r, c] += one if last >= theta[c] else zero


@njit(**_OPTIONS)
def spread(grad, mean, theta, inside, above):
    """Backward pass of clip(mean, 0, theta): see `representation.Representation`.

    grad, mean, inside: [rows, C], inside overwritten; theta: [C]; above: float64 [C], zeros, the sums of the gradient
    where mean > theta added.
    """
    rows, C = mean.shape
    zero = mean.dtype.type(0)
    part = np.empty(C, mean.dtype)
    for first in range(0, rows, 256):
        for c in range(C):
            part[c] = zero
        for r in range(first, min(first + 256, rows)):
            for c in range(C):
                x, g = mean[r, c], grad[r, c]
                over = x > theta[c]
                part[c] += g if over else zero
                inside[r, c] = zero if over or x < zero else g
        for c in range(C):
            above[c] += part[c]


@njit(**_OPTIONS)
def scan_all(x, theta, before, sent):
    """Fire for T steps: see `surrogate`. x, before, sent: [T, rows, C], the last two overwritten; theta: [C]."""
    T, rows, C = x.shape
    v = np.empty(C, x.dtype)
    half, zero = x.dtype.type(0.5), x.dtype.type(0)
    for r in range(rows):
        for c in range(C):
            v[c] = theta[c] * half
        for t in range(T):
            for c in range(C):
                u = v[c] + x[t, r, c]
                s = theta[c] if u >= theta[c] else zero
                before[t, r, c] = u
                sent[t, r, c] = s
                v[c] = u - s


@njit(**_OPTIONS)
def back_in_time(grad, before, theta, into, above):
    """Backward pass of `scan_all`: see `surrogate`.

    grad: of what is sent; before: potentials before the reset; into: of the currents, overwritten; all [T, rows, C];
    theta: [C]; above: float64 [C], zeros, the gradient of theta added.
    """
    T, rows, C = grad.shape
    kind = grad.dtype.type
    zero, one, half = kind(0), kind(1), kind(0.5)
    part, g, inverse = np.empty(C, grad.dtype), np.empty(C, grad.dtype), np.empty(C, grad.dtype)
    for c in range(C):
        inverse[c] = one / theta[c]
    for first in range(0, rows, 256):
        for c in range(C):
            part[c] = zero
        for r in range(first, min(first + 256, rows)):
            for c in range(C):
                g[c] = zero
            for back in range(T):
                t = T - 1 - back
                for c in range(C):
                    share = before[t, r, c] * inverse[c]
                    z = one if share >= one else zero
                    slope = max(zero, one - abs(share - one))
                    sending = grad[t, r, c] - g[c]
                    part[c] += sending * (z - slope * share)
                    g[c] += sending * slope
                    into[t, r, c] = g[c]
            for c in range(C):
                part[c] += g[c] * half
        for c in range(C):
            above[c] += part[c]
