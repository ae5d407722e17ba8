"""Inner loops of the engine, by back end: Numba on the CPU, Triton on CUDA, plain torch as the reference."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from explorer.engine.kernels.protocol import Backend


@cache
def _made(name: str) -> Backend:
    match name:
        case "cpu":
            from explorer.engine.kernels.cpu.backend import CpuBackend

            return CpuBackend()
        case "cuda":
            from explorer.engine.kernels.cuda.backend import CudaBackend

            return CudaBackend()
    from explorer.engine.kernels.reference import ReferenceBackend

    return ReferenceBackend()


def backend(name: str = "cpu") -> Backend:
    """Return a back end: "cpu", "cuda" or "reference".

    Where Numba is missing, or EXPLORER_KERNELS is "reference", the reference stands in for the CPU's.
    """
    if name == "cpu" and os.environ.get("EXPLORER_KERNELS", "") == "reference":
        name = "reference"
    try:
        return _made(name)
    except ImportError:
        if name != "cpu":
            raise
        return _made("reference")


def histogram(a: np.ndarray, per_unit: float, bins: int) -> np.ndarray:
    """Count values of a, float32 [..., C], by channel and bin of width 1 / per_unit: int64 [C, bins]."""
    try:
        from explorer.engine.kernels.cpu.backend import histogram as compiled

        return compiled(a, per_unit, bins)
    except ImportError:
        channels = a.shape[-1]
        index = np.minimum((a.reshape(-1, channels) * np.float32(per_unit)).astype(np.int64), bins - 1)
        index += np.arange(channels) * bins
        return np.bincount(index.reshape(-1), minlength=channels * bins).reshape(channels, bins)
