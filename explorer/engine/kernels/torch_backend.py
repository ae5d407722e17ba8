"""The reference back end: the same arithmetic in plain torch, one obvious step after the other.

Sums of integers stay below 2^53, so float64 holds them exactly and the results equal the compiled kernels' bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from explorer.engine.integers import IntegerWeights
from explorer.engine.segment import Segment


def if_scan(x: Tensor, v: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Scan currents x [T, ...]: return spikes bool [T, ...] and the potential after the last step. [Bu2022]"""
    spikes = []
    for current in x:
        v = v + current
        z = v >= theta
        v = torch.where(z, v - theta, v)
        spikes.append(z)
    return torch.stack(spikes), v


def unpack_bits(spikes: np.ndarray) -> np.ndarray:
    """Turn bytes [B, pixels, T, bytes] into 0/1 [T, B, pixels, stored channels]."""
    return np.unpackbits(spikes, axis=3, bitorder="little").transpose(2, 0, 1, 3)


def pack_bits(z: Tensor) -> np.ndarray:
    """Undo `unpack_bits`."""
    return np.packbits(z.numpy().transpose(1, 2, 0, 3), axis=3, bitorder="little")


class TorchBackend:
    """Runs everything with torch on the CPU; the same methods as `NumbaBackend`."""

    name = "torch"

    @staticmethod
    def byte_table(rows: np.ndarray, table: np.ndarray, lanes: int, tiles: int) -> None:
        """Sum weight rows over all patterns of each byte, as `cpu.byte_table` does."""
        bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(np.int64)
        sums = np.einsum("pk,bkc->bpc", bits, rows.reshape(-1, 8, tiles * lanes).astype(np.int64))
        laid = sums.reshape(-1, 256, tiles, lanes).transpose(2, 0, 1, 3)
        table[:] = laid.astype(np.int32).reshape(-1)

    def scan(
        self,
        segment: Segment,
        weights: IntegerWeights,
        spikes: list[np.ndarray],
        const: np.ndarray,
        theta: np.ndarray,
        v: np.ndarray,
        T: int,
    ) -> np.ndarray:
        """Return spikes uint8 [B, pixels, T, bytes]; v is brought up to date."""
        x = torch.from_numpy(self.currents(segment, weights, spikes, const, T, len(v)).transpose(2, 0, 1, 3))
        z, after = if_scan(x, torch.from_numpy(v), torch.from_numpy(theta))
        v[:] = after.numpy()
        return pack_bits(z)

    def currents(
        self,
        segment: Segment,
        weights: IntegerWeights,
        spikes: list[np.ndarray],
        const: np.ndarray,
        T: int,
        images: int,
    ) -> np.ndarray:
        """Return input currents float32 [B, pixels, T, stored channels]."""
        stored = len(weights.scale)
        total = torch.zeros(T, images, segment.height, segment.width, stored, dtype=torch.float64)
        rows = torch.from_numpy(_rows(weights, stored)).double()
        trains = [torch.from_numpy(unpack_bits(s)).double() for s in spikes]
        ys, xs = torch.arange(segment.height), torch.arange(segment.width)
        for dy, dx, stride, height, width, pitch, _, n_bytes, row, source in segment.taps.tolist():
            train = trains[source].reshape(T, images, -1, pitch, n_bytes * 8)[:, :, :height, :width]
            iy, ix = ys * stride + dy, xs * stride + dx
            good_y, good_x = (iy >= 0) & (iy < train.shape[2]), (ix >= 0) & (ix < train.shape[3])
            seen = train[:, :, iy[good_y]][:, :, :, ix[good_x]] @ rows[row : row + n_bytes * 8]
            before_y, before_x = int(good_y.int().argmax()), int(good_x.int().argmax())
            after_y = segment.height - before_y - int(good_y.sum())
            after_x = segment.width - before_x - int(good_x.sum())
            total += F.pad(seen, (0, 0, before_x, after_x, before_y, after_y))
        current = total.float() * torch.from_numpy(weights.scale)
        bias = torch.from_numpy(const)
        bias = bias.reshape(images, segment.height, segment.width, stored) if bias.ndim > 1 else bias
        return (current + bias).flatten(2, 3).permute(1, 2, 0, 3).contiguous().numpy()

    def dense_scan(self, summands: list[np.ndarray], theta: np.ndarray, v: np.ndarray, T: int) -> np.ndarray:
        """Return spikes for given currents, the sum of one or two float32 arrays [T, B, pixels, stored channels].

        v is brought up to date.
        """
        z, after = if_scan(
            torch.from_numpy(sum(summands[1:], summands[0])), torch.from_numpy(v), torch.from_numpy(theta)
        )
        v[:] = after.numpy()
        return pack_bits(z)

    def max_pool(
        self, spikes: np.ndarray, shapes: tuple[Any, Any], window: tuple[int, ...], counts: np.ndarray, T: int
    ) -> np.ndarray:
        """Return maxpool(S(t)) - maxpool(S(t-1)) as spikes uint8 [B, pixels, T, bytes]."""
        (_, height, width), (_, *out_size) = shapes
        images, stored = counts.shape[0], counts.shape[2]
        before = torch.from_numpy(counts).double()[None]
        sums = torch.cat([before, before + torch.from_numpy(unpack_bits(spikes)).double().cumsum(0)])
        maps = sums.reshape((T + 1) * images, height, width, stored).permute(0, 3, 1, 2)
        shape = (window[0:2], window[2:4], window[4:6], window[6:8])
        pooled = F.max_pool2d(maps, *shape)
        if list(pooled.shape[2:]) != out_size:
            pooled = F.max_pool2d(maps, *shape, ceil_mode=True)
        z = torch.diff(pooled.permute(0, 2, 3, 1).reshape(T + 1, images, -1, stored), dim=0)
        return pack_bits(z.bool())

    def add_counts(self, spikes: np.ndarray, counts: np.ndarray) -> None:
        """Add spikes [B, pixels, T, bytes] to counts int32 [B, pixels, stored channels]."""
        counts += unpack_bits(spikes).sum(0, dtype=np.int32)

    def count_all(self, spikes: np.ndarray) -> int:
        """Return how many spikes there are."""
        return int(np.bitwise_count(spikes).sum())

    def histogram(self, a: np.ndarray, per_unit: float, bins: int) -> np.ndarray:
        """Count values of a, float32 [..., C], by channel and bin of width 1 / per_unit: int64 [C, bins]."""
        channels = a.shape[-1]
        index = np.minimum((a.reshape(-1, channels) * np.float32(per_unit)).astype(np.int64), bins - 1)
        index += np.arange(channels) * bins
        return np.bincount(index.reshape(-1), minlength=channels * bins).reshape(channels, bins)

    def unpack(self, spikes: np.ndarray, amplitude: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return amplitude * z as float32 [T, B, pixels, channels]."""
        return unpack_bits(spikes)[..., : shape[0]] * amplitude.astype(np.float32)


def _rows(weights: IntegerWeights, stored: int) -> np.ndarray:
    """Return a layout's integers as [row, stored channel]."""
    if not weights.table:
        return weights.data.reshape(weights.tiles, -1, weights.lanes).transpose(1, 0, 2).reshape(-1, stored)
    sums = weights.data.reshape(weights.tiles, -1, 256, weights.lanes)[:, :, [1 << k for k in range(8)]]
    return sums.transpose(1, 2, 0, 3).reshape(-1, stored)
