"""Inner loops of the engine, by device: Numba on the CPU, plain torch as the reference and where Numba is missing."""

from __future__ import annotations

import os
from functools import cache
from typing import Any


@cache
def _numba() -> Any:
    from explorer.engine.kernels.numba_backend import NumbaBackend

    return NumbaBackend()


@cache
def _reference() -> Any:
    from explorer.engine.kernels.torch_backend import TorchBackend

    return TorchBackend()


def backend(name: str | None = None) -> Any:
    """Return the back end by name: "numba" or "torch" (default: EXPLORER_KERNELS, else the first that works)."""
    name = name or os.environ.get("EXPLORER_KERNELS", "")
    if name == "torch":
        return _reference()
    try:
        return _numba()
    except ImportError:
        if name == "numba":
            raise
        return _reference()
