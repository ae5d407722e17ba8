"""How values lie in memory: pixels by channels, channels padded to whole vectors, spikes as bits."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

LANES = 16
CACHE_LINE = 64


def padded(channels: int) -> int:
    """Return the number of channels as stored: the next multiple of 16."""
    return -(-channels // LANES) * LANES


def pixels(shape: tuple[int, ...]) -> int:
    """Return the number of pixels of a node of this shape, [C, H, W] or [C]."""
    return shape[1] * shape[2] if len(shape) == 3 else 1


def bytes_per_step(shape: tuple[int, ...]) -> int:
    """Return the bytes that one image's spikes of one step take at a node of this shape."""
    return padded(shape[0]) // 8 * pixels(shape)


def aligned(shape: int | tuple[int, ...], dtype: type) -> np.ndarray:
    """Return an uninitialised array that begins at a cache line, so that no vector of its elements straddles two."""
    size, width = math.prod(shape) if isinstance(shape, tuple) else shape, np.dtype(dtype).itemsize
    room: np.ndarray = np.empty(size + CACHE_LINE // width, dtype)
    begin = -room.ctypes.data % CACHE_LINE // width
    return room[begin : begin + size].reshape(shape)


def aligned_copy(array: np.ndarray) -> np.ndarray:
    """Return a copy, contiguous, that begins at a cache line."""
    out = aligned(array.shape, array.dtype.type)
    out[...] = array
    return out


def to_pixels(value: Tensor, fill: float = 0.0) -> Tensor:
    """Lay a value [B, C, H, W] or [B, C] out as float32 [B, pixels, stored channels], what is added filled."""
    x = value.permute(0, 2, 3, 1).flatten(1, 2) if value.ndim == 4 else value[:, None]
    missing = padded(x.shape[2]) - x.shape[2]
    x = x.float()
    return (torch.nn.functional.pad(x, (0, missing), value=fill) if missing else x).contiguous()


def from_pixels(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Undo `to_pixels`: [..., pixels, stored channels] to [..., *shape]."""
    x = value[..., : shape[0]]
    lead = x.shape[:-2]
    if len(shape) == 1:
        return x.reshape(*lead, shape[0]).contiguous()
    return x.reshape(*lead, shape[1], shape[2], shape[0]).movedim(-1, -3).contiguous()


def as_pixels(value: Tensor, T: int) -> Tensor:
    """Lay [T*B, C, H, W] or [T*B, C] out as float32 [T, B, pixels, stored channels]."""
    return to_pixels(value).unflatten(0, (T, -1))
