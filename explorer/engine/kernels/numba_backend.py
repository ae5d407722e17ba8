"""The CPU back end: compiled scans over slices of the images, one slice a thread."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from explorer.engine.integers import IntegerWeights
from explorer.engine.kernels import cpu
from explorer.engine.layout import aligned
from explorer.engine.segment import Segment

MAX_THREADS = 8
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> None:
    """Ask glibc not to hand freed arrays back to the system: faulting them in again cost as much as computing them.

    Peak memory is the same, since the largest amount in use decides it. Elsewhere than on glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 32 * 2**20)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 16 * 2**20)


class NumbaBackend:
    """Runs scans with Numba; every method returns new arrays and leaves its inputs, except `v` and `counts`."""

    name = "numba"

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1), "scan")
        self.byte_table = cpu.byte_table
        keep_freed_memory()

    def _each_slice(self, n: int, work: Callable[[int, int], None]) -> None:
        """Call work(first, last) on slices of range(n), as many as torch may use threads."""
        slices = min(n, torch.get_num_threads(), MAX_THREADS)
        if slices <= 1:
            work(0, n)
            return
        edges = [round(i * n / slices) for i in range(slices + 1)]
        futures = [self._pool.submit(work, a, b) for a, b in pairwise(edges[1:])]
        work(edges[0], edges[1])
        for future in futures:
            future.result()

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
        """Return spikes uint8 [B, pixels, T, bytes] of T steps; v [B, pixels, stored] is brought up to date."""
        stored = v.shape[2]
        out = np.empty((len(v), v.shape[1], T, stored // 8), np.uint8)
        x = np.empty(0, np.float32)

        def work(a: int, b: int) -> None:
            mine = const[a:b] if const.ndim > 1 else const
            self._run(segment, weights, [s[a:b] for s in spikes], mine, theta, v[a:b], out[a:b], x, T, b - a, True)

        self._each_slice(len(v), work)
        return out

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
        x = aligned((images, segment.height * segment.width, T, stored), np.float32)
        none, theta = np.empty(0, np.uint8), np.zeros(stored, np.float32)
        v = np.zeros((images, segment.height * segment.width, stored), np.float32)

        def work(a: int, b: int) -> None:
            mine = const[a:b] if const.ndim > 1 else const
            self._run(segment, weights, [s[a:b] for s in spikes], mine, theta, v[a:b], none, x[a:b], T, b - a, False)

        self._each_slice(images, work)
        return x

    def _run(
        self,
        segment: Segment,
        weights: IntegerWeights,
        spikes: list[np.ndarray],
        const: np.ndarray,
        theta: np.ndarray,
        v: np.ndarray,
        out: np.ndarray,
        x: np.ndarray,
        T: int,
        images: int,
        spiking: bool,
    ) -> None:
        stored = len(weights.scale)
        shape = (images, segment.height, segment.width, T, weights.tiles, stored // 8)
        flat = [s.reshape(images, -1) for s in spikes]
        together = flat[0] if len(flat) == 1 else np.concatenate(flat, 1) if flat else np.empty((images, 0), np.uint8)
        together = np.ascontiguousarray(together)
        tail = (
            const.reshape(-1),
            stored if const.ndim > 1 else 0,
            theta,
            v.reshape(-1),
            out.reshape(-1),
            x.reshape(-1),
        )
        if weights.table or not spikes:
            kernel = cpu.table_scan(weights.lanes)
            kernel(together, segment.taps, shape, weights.data, weights.scale, *tail, spiking)
            return
        sizes = [f.shape[1] // T for f in flat]
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        bytes_ = [int(segment.taps[segment.taps[:, cpu.SOURCE] == s, cpu.BYTES][0]) for s in range(len(flat))]
        sources = np.array(list(zip(starts, sizes, bytes_, strict=True)), np.int64)
        whole = all(n % cpu.CHUNK == 0 for n in bytes_)
        kernel = (cpu.tap_scan if whole else cpu.event_scan)(weights.lanes)
        bits = (cpu.BIT_INDEX, cpu.BIT_COUNT)
        kernel(together, sources, segment.taps, shape, weights.data, weights.scale, *tail, spiking, *bits)

    def dense_scan(self, summands: list[np.ndarray], theta: np.ndarray, v: np.ndarray, T: int) -> np.ndarray:
        """Return spikes for given currents, the sum of one or two float32 arrays [T, B, pixels, stored channels].

        v is brought up to date.
        """
        x, more = summands[0], summands[1].reshape(-1) if len(summands) > 1 else np.empty(0, np.float32)
        pixels = x.shape[2]
        images, stored = x.shape[1], x.shape[3]
        out = np.empty((images, pixels, T, stored // 8), np.uint8)

        def work(a: int, b: int) -> None:
            shape = (images, a, b, pixels, T, stored)
            cpu.dense_scan(x.reshape(-1), more, shape, theta, v.reshape(-1), out.reshape(-1))

        self._each_slice(images, work)
        return out

    def max_pool(
        self, spikes: np.ndarray, shapes: tuple[Any, Any], window: tuple[int, ...], counts: np.ndarray, T: int
    ) -> np.ndarray:
        """Return the pooled spikes uint8 [B, pixels, T, bytes] of a source with `counts` spikes before these steps."""
        (_, height, width), (_, out_height, out_width) = shapes
        images, n_bytes = len(spikes), spikes.shape[3]
        out = np.empty((images, out_height * out_width, T, n_bytes), np.uint8)

        def work(a: int, b: int) -> None:
            shape = (b - a, height, width, out_height, out_width, T, n_bytes)
            flat = (spikes[a:b].reshape(b - a, -1), shape, window, counts[a:b].reshape(-1), out[a:b].reshape(-1))
            cpu.max_pool_scan(*flat, cpu.BIT_VALUE)

        self._each_slice(images, work)
        return out

    def add_counts(self, spikes: np.ndarray, counts: np.ndarray) -> None:
        """Add spikes [B, pixels, T, bytes] to counts int32 [B, pixels, stored channels]."""
        T, n_bytes = spikes.shape[2:]

        def work(a: int, b: int) -> None:
            cpu.add_counts(spikes[a:b].reshape(-1), T, n_bytes, counts[a:b].reshape(-1), cpu.BIT_VALUE)

        self._each_slice(len(spikes), work)

    def count_all(self, spikes: np.ndarray) -> int:
        """Return how many spikes there are."""
        return int(np.bitwise_count(_words(spikes)).sum())

    def histogram(self, a: np.ndarray, per_unit: float, bins: int) -> np.ndarray:
        """Count values of a, float32 [..., C], by channel and bin of width 1 / per_unit: int64 [C, bins]."""
        return cpu.channel_histogram(a.reshape(-1), a.shape[-1], np.float32(per_unit), bins)

    def unpack(self, spikes: np.ndarray, amplitude: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return amplitude * z as float32 [T, B, pixels, channels]."""
        images, pixels, T, n_bytes = spikes.shape
        out = aligned((T, images, pixels, shape[0]), np.float32)
        value = np.zeros(n_bytes * 8, np.float32)
        value[: shape[0]] = amplitude

        def work(a: int, b: int) -> None:
            where = (images, pixels, T, n_bytes, shape[0])
            cpu.unpack(spikes.reshape(-1), where, a, b, value, out.reshape(-1), cpu.BIT_VALUE)

        self._each_slice(T, work)
        return out


def _words(spikes: np.ndarray) -> np.ndarray:
    flat = np.ascontiguousarray(spikes).reshape(-1)
    return flat.view(np.uint64) if flat.size % 8 == 0 else flat
