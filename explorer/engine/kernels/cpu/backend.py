"""The CPU back end: compiled scans over slices of the images, one slice a thread."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from explorer.engine.compile.fixed_point import FixedPoint
from explorer.engine.compile.layout import aligned, aligned_copy, as_pixels
from explorer.engine.compile.segment import BYTES, SOURCE
from explorer.engine.kernels.cpu import scans
from explorer.engine.kernels.cpu.lanes import compiled_name
from explorer.engine.kernels.protocol import Constant, Current, Given, Taps
from explorer.engine.neurons import INTEGRATE_AND_FIRE, Law

MAX_THREADS = 8
MAX_TABLE_BYTES = 3 * 2**20
MAX_TABLE_PLANES = 3  # of a source: of more, few bits are set in any one
MAX_ROW_BYTES = 2 * 2**20
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
NO_BYTES, NO_FLOATS = np.empty(0, np.uint8), np.empty(0, np.float32)


def keep_freed_memory() -> None:
    """Ask glibc not to hand freed arrays back to the system: faulting them in again cost as much as computing them.

    Peak memory is the same, since the largest amount in use decides it. Elsewhere than on glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 32 * 2**20)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, 16 * 2**20)


@dataclass(frozen=True, eq=False)
class Rows:
    """Weights as a scan reads them: int32, flat, [tile, row, lane] or, as sums by bytes, [tile, byte, 256, lane].

    sources: int64 [S, 3], first byte (per step), bytes per image and step, and bytes per pixel and step of each.
    """

    fixed: FixedPoint
    data: np.ndarray
    table: bool
    lanes: int
    tiles: int
    sources: np.ndarray


class CpuBackend:
    """Runs scans with Numba; see `Backend`. Arrays are NumPy's."""

    name = "cpu"
    device = torch.device("cpu")
    precision = torch.float32

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1), "scan")
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

    def hold(self, array: np.ndarray) -> np.ndarray:
        """See `Backend`."""
        return array

    def release(self, array: np.ndarray) -> np.ndarray:
        """See `Backend`."""
        return array

    def arrange(self, fixed: FixedPoint) -> Rows:
        """See `Backend`. Small layers get sums by bytes of spikes, others their rows, tiles of lanes one by one."""
        rows, stored = fixed.rows, fixed.rows.shape[1]
        planes = len(fixed.inputs) / max(1, len({node for node, _ in fixed.inputs}))
        table = len(rows) * 32 * stored * 4 <= MAX_TABLE_BYTES and planes <= MAX_TABLE_PLANES
        lanes = next(n for n in (64, 32, 16) if stored % n == 0)
        if not table and len(rows) * lanes * 4 > MAX_ROW_BYTES:
            lanes = min(lanes, 32)
        tiles = stored // lanes
        if table:
            data = aligned(len(rows) * 32 * stored, np.int32)
            scans.byte_table(rows, data, lanes, tiles)
        else:
            data = aligned(rows.size, np.int32)
            data.reshape(tiles, len(rows), lanes)[:] = rows.reshape(len(rows), tiles, lanes).transpose(1, 0, 2)
        starts = np.concatenate([[0], np.cumsum(fixed.sizes)[:-1]]) if fixed.sizes else []
        of_pixel = [fixed.taps[fixed.taps[:, SOURCE] == s, BYTES][0] for s in range(len(fixed.sizes))]
        sources = np.array(list(zip(starts, fixed.sizes, of_pixel, strict=True)), np.int64).reshape(-1, 3)
        return Rows(fixed, data, table, lanes, tiles, sources)

    def start(self, v: Tensor, memory: bool) -> np.ndarray:
        """See `Backend`."""
        state = aligned((1 + memory, *v.shape), np.float32)
        state[0] = v.numpy()
        state[1:] = 0
        return state

    def copy(self, state: np.ndarray) -> np.ndarray:
        """See `Backend`."""
        return aligned_copy(state)

    def scan(self, current: Current, law: Law, theta: Tensor, state: np.ndarray, T: int) -> np.ndarray:
        """See `Backend`."""
        _, B, pixels, stored = state.shape
        train = np.empty((len(law.planes), B, pixels, T, stored // 8), np.uint8)
        if isinstance(current, Given):
            self._scan_given(current, law, theta, state, train)
        else:
            self._each_slice(B, lambda a, b: self._run(current, law, theta, state, train, NO_FLOATS, T, a, b))
        return train

    def values(self, current: Current, B: int, T: int) -> Tensor:
        """See `Backend`."""
        if isinstance(current, Given):
            x = as_pixels(sum(current.summands[1:], current.summands[0]).float(), T).permute(1, 2, 0, 3)
            const = current.const
            return x if const is None else x + (const.values if const.timed else const.values[..., None, :])
        fixed = current.weights.fixed
        stored = fixed.rows.shape[1]
        x = aligned((B, fixed.height * fixed.width, T, stored), np.float32)
        state, theta = np.zeros((1, B, x.shape[1], stored), np.float32), torch.zeros(stored)
        no_train = NO_BYTES.reshape(1, 0, 1, 1, 1)
        self._each_slice(
            B,
            lambda a, b: self._run(current, INTEGRATE_AND_FIRE, theta, state, no_train, x.reshape(B, -1)[a:b], T, a, b),
        )
        return torch.from_numpy(x)

    def _run(
        self,
        current: Taps,
        law: Law,
        theta: Tensor,
        state: np.ndarray,
        train: np.ndarray,
        x: np.ndarray,
        T: int,
        a: int,
        b: int,
    ) -> None:
        """Scan images a to b into the train, or write their currents to x where it has room for them."""
        weights, spiking = current.weights, not x.size
        fixed, stored = weights.fixed, state.shape[3]
        shape = (b - a, fixed.height, fixed.width, T, weights.tiles, stored // 8)
        flat = [plane[a:b].reshape(b - a, -1) for one in current.trains for plane in one]
        together = flat[0] if len(flat) == 1 else np.concatenate(flat, 1) if flat else np.empty((b - a, 0), np.uint8)
        together = np.ascontiguousarray(together)
        const, const_at = _constant(current.const, stored, T, a, b)
        out, plane_bytes = _from_image(train, a)
        tail = (
            weights.data,
            current.scale.numpy(),
            const,
            const_at,
            theta.numpy().reshape(-1),
            stored if theta.ndim > 1 else 0,
            state[0, a:b].reshape(-1),
            state[-1, a:b].reshape(-1),
            out,
            plane_bytes,
            x.reshape(-1),
            spiking,
        )
        kind = (weights.lanes, compiled_name(law.name), law.memory, current.const.timed)
        if weights.table or not flat:
            scans.table_scan(*kind)(together, fixed.taps, shape, *tail)
            return
        whole = all(n % scans.CHUNK == 0 for n in weights.sources[:, 2])
        kernel = (scans.tap_scan if whole else scans.event_scan)(*kind)
        kernel(together, weights.sources, fixed.taps, shape, *tail, scans.BIT_INDEX, scans.BIT_COUNT)

    def _scan_given(self, current: Given, law: Law, theta: Tensor, state: np.ndarray, train: np.ndarray) -> None:
        _, B, pixels, T, _ = train.shape
        stored = state.shape[3]
        x, *more = (as_pixels(value, T).numpy().reshape(-1) for value in current.summands)
        timed = current.const is not None and current.const.timed
        const, const_at = (NO_FLOATS, (0, 0)) if current.const is None else _constant(current.const, stored, T, 0, B)
        kernel = scans.dense_scan(compiled_name(law.name), law.memory, timed)
        levels = (const, const_at, theta.numpy().reshape(-1), stored if theta.ndim > 1 else 0)
        out, plane_bytes = _from_image(train, 0)
        flat = (state[0].reshape(-1), state[-1].reshape(-1), out, plane_bytes)
        second = more[0] if more else NO_FLOATS
        self._each_slice(B, lambda a, b: kernel(x, second, (B, a, b, pixels, T, stored), *levels, *flat))

    def mute(self, train: np.ndarray, gate: np.ndarray) -> np.ndarray:
        """See `Backend`."""
        return train & gate[..., None, :]

    def pool(
        self, train: np.ndarray, window: tuple[int, ...], shapes: tuple[Any, Any], counts: np.ndarray | None
    ) -> np.ndarray:
        """See `Backend`."""
        (_, height, width), (_, out_height, out_width) = shapes
        planes, B, pixels, T, n_bytes = train.shape
        out = np.empty((planes, B, out_height * out_width, T, n_bytes), np.uint8)
        before = np.zeros((B, pixels, n_bytes * 8), np.int32) if counts is None else counts

        def work(a: int, b: int) -> None:
            shape = (b - a, height, width, out_height, out_width, T, n_bytes)
            spikes, pooled = _from_image(train, a), _from_image(out, a)
            state = (before[a:b].reshape(-1), *pooled, scans.BIT_VALUE)
            scans.max_pool_scan(spikes[0], planes > 1, spikes[1], shape, window, *state)

        self._each_slice(B, work)
        return out

    def count(self, train: np.ndarray, planes: tuple[int, ...], counts: np.ndarray | None) -> np.ndarray:
        """See `Backend`."""
        _, B, pixels, T, n_bytes = train.shape
        after = np.zeros((B, pixels, n_bytes * 8), np.int32) if counts is None else counts.copy()

        def work(a: int, b: int) -> None:
            for weight, plane in zip(planes, train, strict=True):
                sums = after[a:b].reshape(-1)
                scans.add_counts(plane[a:b].reshape(-1), T, n_bytes, np.int32(weight), sums, scans.BIT_VALUE)

        self._each_slice(B, work)
        return after

    def total(self, train: np.ndarray) -> int:
        """See `Backend`."""
        flat = np.ascontiguousarray(train).reshape(-1)
        return int(np.bitwise_count(flat.view(np.uint64) if flat.size % 8 == 0 else flat).sum())

    def unpack(self, train: np.ndarray, planes: tuple[int, ...], worth: np.ndarray, shape: tuple[int, ...]) -> Tensor:
        """See `Backend`."""
        _, B, pixels, T, n_bytes = train.shape
        out = aligned((T, B, pixels, shape[0]), np.float32)
        amplitude = np.zeros(n_bytes * 8, np.float32)
        amplitude[: shape[0]] = worth
        for k, (weight, plane) in enumerate(zip(planes, train, strict=True)):
            value, flat = amplitude * np.float32(weight), plane.reshape(-1)

            def work(a: int, b: int, flat=flat, value=value, add=k > 0) -> None:
                where = (B, pixels, T, n_bytes, shape[0])
                scans.unpack(flat, where, a, b, value, out.reshape(-1), add, scans.BIT_VALUE)

            self._each_slice(T, work)
        x = torch.from_numpy(out)
        if len(shape) == 1:
            return x.reshape(-1, shape[0])
        return x.reshape(-1, shape[1], shape[2], shape[0]).permute(0, 3, 1, 2)


def _constant(const: Constant, stored: int, T: int, a: int, b: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Return a constant of images a to b, flat, and its elements per pixel and per step."""
    values = const.values.numpy()
    if const.per_pixel:
        values = values[a:b]
    at = ((T if const.timed else 1) * stored if const.per_pixel else 0, stored if const.timed else 0)
    return np.ascontiguousarray(values).reshape(-1), at


def _from_image(train: np.ndarray, image: int) -> tuple[np.ndarray, int]:
    """Return a train's bytes from an image of the first plane on, flat, and the bytes from plane to plane."""
    per_plane = train[0].size
    return train.reshape(-1)[image * (per_plane // max(1, train.shape[1])) :], per_plane


def histogram(a: np.ndarray, per_unit: float, bins: int) -> np.ndarray:
    """Count values of a, float32 [..., C], by channel and bin of width 1 / per_unit: int64 [C, bins]."""
    return scans.channel_histogram(a.reshape(-1), a.shape[-1], np.float32(per_unit), bins)
