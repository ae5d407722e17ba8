"""The scan on CUDA: one program holds a block of neurons' potentials in registers through all steps."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def _scan_kernel(x, v, theta, z, T, n, channels, inner, BLOCK: tl.constexpr):
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    step = index * 0 + n  # 64 bits: T * n may exceed 2**31
    here = index < n
    limit = tl.load(theta + (index // inner) % channels, mask=here, other=1.0)
    potential = tl.load(v + index, mask=here, other=0.0)
    for t in range(T):
        current = tl.load(x + t * step + index, mask=here, other=0.0)
        potential = potential + current
        fired = potential >= limit
        potential = tl.where(fired, potential - limit, potential)
        tl.store(z + t * step + index, fired.to(tl.uint8), mask=here)
    tl.store(v + index, potential, mask=here)


def if_scan(x: Tensor, v: Tensor, theta: Tensor) -> Tensor:
    """Scan currents x, float32 [T, B, C, ...] contiguous; return spikes uint8 of its shape, and bring v up to date.

    v: float32 [B, C, ...] contiguous; theta: float32 [C].
    """
    z = torch.empty(x.shape, dtype=torch.uint8, device=x.device)
    n = v.numel()
    inner = v[0, 0].numel()
    grid = (triton.cdiv(n, BLOCK),)
    _scan_kernel[grid](x, v, theta, z, x.shape[0], n, len(theta), inner, BLOCK=BLOCK)
    return z
