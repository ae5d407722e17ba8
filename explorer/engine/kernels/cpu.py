"""The CPU's inner loops: spikes in, spikes out, with the membrane potential in registers.

Spike trains are bytes `[image, pixel, T, channels/8]`, channel c in bit c % 8 of byte c // 8: what one neuron reads in
T steps lies in a few cache lines. A *tap* is one position of a kernel (or one pixel of a pooling window): it says where
the source pixel lies and which weights belong to it. Input currents are integers (see `fixed_point`), hence exact,
hence the same whatever the order, the batch or the number of threads.

Three ways to sum the weights of the spikes that arrived:
* `table_scan`: every byte of spikes looks up the sum of its eight weights. Cost independent of the rates; small layers.
* `event_scan`: the spikes of a receptive field are listed once and their weight rows added. Cost by spikes; wider ones.
* `tap_scan`: the same tap by tap, so that the rows in use stay in the first cache; the widest.
`dense_scan` takes currents computed elsewhere. All finish a step alike:
    x = sum * scale + const;  v = v + x;  z = [v >= theta];  v = v - theta z
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from explorer.engine.kernels.compile_cache import njit
from explorer.engine.kernels.vector import (
    add,
    fire,
    load,
    maximum,
    mul,
    pack_positive,
    splat,
    store,
    sub,
    to_float,
    zeros,
)

_OPTIONS: dict[str, Any] = {"nogil": True, "cache": True, "boundscheck": False, "error_model": "numpy"}

# Columns of a tap: source row and column offset, stride, height and width of the part of the source that counts, pixels
# in a row of the source, where the source begins in the image's spike bytes (per step), bytes per step and pixel, its
# first weight row, and which source it is.
DY, DX, STRIDE, HEIGHT, WIDTH, PITCH, OFFSET, BYTES, ROW, SOURCE = range(10)

CHUNK = 32  # bytes of spikes: with 32 lanes, 32 KiB of weights
SUMS = 16384  # integers that wait while taps are added

BIT_INDEX = np.zeros((256, 8), np.int32)
BIT_VALUE = np.zeros((256, 8), np.int32)
BIT_COUNT = np.zeros(256, np.int32)
for _byte in range(256):
    _set = [k for k in range(8) if _byte >> k & 1]
    BIT_INDEX[_byte, : len(_set)] = _set
    BIT_VALUE[_byte, _set] = 1
    BIT_COUNT[_byte] = len(_set)
BIT_INDEX, BIT_VALUE = BIT_INDEX.reshape(-1), BIT_VALUE.reshape(-1)


@njit(**_OPTIONS)
def byte_table(rows, table, lanes, tiles):
    """Sum weight rows over all 256 patterns of each byte of spikes.

    rows: int32 [bytes * 8, tiles * lanes]; table: int32, flat [tiles, bytes, 256, lanes], overwritten.
    """
    n_bytes = rows.shape[0] // 8
    for tile in range(tiles):
        for b in range(n_bytes):
            base = (tile * n_bytes + b) * 256 * lanes
            for j in range(lanes):
                table[base + j] = 0
            for k in range(8):
                step = 1 << k
                for pattern in range(step):
                    source = base + pattern * lanes
                    target = base + (pattern + step) * lanes
                    for j in range(lanes):
                        table[target + j] = table[source + j] + rows[b * 8 + k, tile * lanes + j]


@cache
def table_scan(lanes: int) -> Any:
    """Return the compiled scan that looks up sums by bytes of spikes, `lanes` channels at a time."""

    @njit(**_OPTIONS)
    def scan(spikes, taps, shape, table, scale, const, const_step, theta, v, out, x_out, spiking):
        n_images, height, width, T, tiles, out_bytes = shape
        channels = tiles * lanes
        n_bytes = table.shape[0] // (256 * channels)
        looks = 1
        for k in range(taps.shape[0]):
            looks += taps[k, BYTES]
        at = np.empty(looks, np.int64)
        by = np.empty(looks, np.int64)
        look = np.empty(looks, np.int64)
        for image in range(n_images):
            for p in range(height * width):
                oy = p // width
                ox = p - oy * width
                n = 0
                for k in range(taps.shape[0]):
                    iy = oy * taps[k, STRIDE] + taps[k, DY]
                    ix = ox * taps[k, STRIDE] + taps[k, DX]
                    if iy >= 0 and iy < taps[k, HEIGHT] and ix >= 0 and ix < taps[k, WIDTH]:
                        per_step = taps[k, BYTES]
                        for b in range(per_step):
                            at[n] = taps[k, OFFSET] * T + (iy * taps[k, PITCH] + ix) * T * per_step + b
                            by[n] = per_step
                            look[n] = (taps[k, ROW] // 8 + b) * 256 * lanes
                            n += 1
                for tile in range(tiles):
                    begin = tile * n_bytes * 256 * lanes
                    s = load(scale, tile * lanes, lanes)
                    th = load(theta, tile * lanes, lanes)
                    c = load(const, (image * height * width + p) * const_step + tile * lanes, lanes)
                    here = (image * height * width + p) * channels + tile * lanes
                    potential = load(v, here, lanes)
                    for t in range(T):
                        total = zeros(lanes)
                        for i in range(n):
                            byte = np.intp(spikes[image, at[i] + t * by[i]])
                            total = add(total, load(table, begin + look[i] + byte * lanes, lanes))
                        x = add(mul(to_float(total), s), c)
                        if spiking:
                            step = ((image * height * width + p) * T + t) * out_bytes + tile * (lanes // 8)
                            potential = fire(add(potential, x), th, out, step)
                        else:
                            store(x_out, ((image * height * width + p) * T + t) * channels + tile * lanes, x)
                    if spiking:
                        store(v, here, potential)

    return scan


@njit(**_OPTIONS)
def _list_spikes(spikes, n_bytes, per_step, indices, start, bit_index, bit_count):
    """List the set channels of every step: indices[start[q] : start[q + 1]] for step q = pixel * T + t."""
    n = 0
    steps = n_bytes // per_step
    for q in range(steps):
        start[q] = n
        for b in range(per_step):
            byte = np.intp(spikes[q * per_step + b])
            store(indices, n, add(load(bit_index, byte * 8, 8), splat(np.int32(8 * b), 8)))
            n += bit_count[byte]
    start[steps] = n


@cache
def event_scan(lanes: int) -> Any:
    """Return the compiled scan that adds one weight row a spike, `lanes` channels at a time."""

    @njit(**_OPTIONS)
    def scan(spikes, sources, taps, shape, rows, scale, const, const_step, theta, v, out, x_out, spiking, bits, ones):
        n_images, height, width, T, tiles, out_bytes = shape
        channels = tiles * lanes
        n_taps = taps.shape[0]
        pixels = height * width
        n_rows = rows.shape[0] // channels
        most = 0
        for k in range(n_taps):
            most += taps[k, BYTES] * 8
        block = max(1, min(pixels, 262144 // (T * most)))
        listed = np.empty(block * T * most + 16, np.int32)
        begin = np.empty(block * T + 1, np.int64)
        total_bytes = 0
        total_steps = 0
        for s in range(sources.shape[0]):
            total_bytes += sources[s, 1] * T
            total_steps += sources[s, 1] * T // sources[s, 2] + 1
        indices = np.empty(total_bytes * 8 + 32, np.int32)
        start = np.empty(total_steps, np.int64)
        first_index = np.empty(sources.shape[0], np.int64)
        first_step = np.empty(sources.shape[0], np.int64)
        where = np.empty(n_taps, np.int64)
        source = np.empty(n_taps, np.int64)
        row = np.empty(n_taps, np.int32)
        for image in range(n_images):
            n = 0
            m = 0
            for s in range(sources.shape[0]):
                first_index[s] = n
                first_step[s] = m
                steps = sources[s, 1] * T // sources[s, 2]
                _list_spikes(
                    spikes[image, sources[s, 0] * T :],
                    sources[s, 1] * T,
                    sources[s, 2],
                    indices[n:],
                    start[m:],
                    bits,
                    ones,
                )
                n += start[m + steps]
                m += steps + 1
            p0 = 0
            while p0 < pixels:
                p1 = min(pixels, p0 + block)
                n = 0
                for p in range(p0, p1):
                    oy = p // width
                    ox = p - oy * width
                    inside = 0
                    for k in range(n_taps):
                        iy = oy * taps[k, STRIDE] + taps[k, DY]
                        ix = ox * taps[k, STRIDE] + taps[k, DX]
                        if iy >= 0 and iy < taps[k, HEIGHT] and ix >= 0 and ix < taps[k, WIDTH]:
                            source[inside] = first_index[taps[k, SOURCE]]
                            where[inside] = first_step[taps[k, SOURCE]] + (iy * taps[k, PITCH] + ix) * T
                            row[inside] = taps[k, ROW]
                            inside += 1
                    for t in range(T):
                        begin[(p - p0) * T + t] = n
                        for k in range(inside):
                            a = start[where[k] + t]
                            count = start[where[k] + t + 1] - a
                            a += source[k]
                            base = splat(row[k], 8)
                            store(listed, n, add(load(indices, a, 8), base))
                            done = 8
                            while done < count:
                                store(listed, n + done, add(load(indices, a + done, 8), base))
                                done += 8
                            n += count
                begin[(p1 - p0) * T] = n
                for tile in range(tiles):
                    s = load(scale, tile * lanes, lanes)
                    th = load(theta, tile * lanes, lanes)
                    first = tile * n_rows
                    for p in range(p0, p1):
                        c = load(const, (image * pixels + p) * const_step + tile * lanes, lanes)
                        here = (image * pixels + p) * channels + tile * lanes
                        potential = load(v, here, lanes)
                        for t in range(T):
                            total = zeros(lanes)
                            for i in range(begin[(p - p0) * T + t], begin[(p - p0) * T + t + 1]):
                                total = add(total, load(rows, (first + np.intp(listed[i])) * lanes, lanes))
                            x = add(mul(to_float(total), s), c)
                            if spiking:
                                step = ((image * pixels + p) * T + t) * out_bytes + tile * (lanes // 8)
                                potential = fire(add(potential, x), th, out, step)
                            else:
                                store(x_out, ((image * pixels + p) * T + t) * channels + tile * lanes, x)
                        if spiking:
                            store(v, here, potential)
                p0 = p1

    return scan


@cache
def tap_scan(lanes: int) -> Any:
    """Return the compiled scan that goes tap by tap, so that the weight rows in use stay in the first cache.

    As `event_scan`, for sources of many channels (whole multiples of CHUNK bytes): sums wait in an array while one
    chunk of a tap's rows is added to all pixels and steps.
    """

    @njit(**_OPTIONS)
    def scan(spikes, sources, taps, shape, rows, scale, const, const_step, theta, v, out, x_out, spiking, bits, ones):
        n_images, height, width, T, tiles, out_bytes = shape
        channels = tiles * lanes
        pixels = height * width
        n_rows = rows.shape[0] // channels
        block = max(1, min(pixels, SUMS // (T * lanes)))
        sums = np.empty(block * T * lanes, np.int32)
        total_bytes = 0
        for s in range(sources.shape[0]):
            total_bytes += sources[s, 1] * T
        indices = np.empty(total_bytes * 8 + 32, np.int32)
        start = np.empty(total_bytes // CHUNK + sources.shape[0], np.int64)
        first_index = np.empty(sources.shape[0], np.int64)
        first_step = np.empty(sources.shape[0], np.int64)
        for image in range(n_images):
            n = 0
            m = 0
            for s in range(sources.shape[0]):
                first_index[s] = n
                first_step[s] = m
                steps = sources[s, 1] * T // CHUNK
                _list_spikes(
                    spikes[image, sources[s, 0] * T :], sources[s, 1] * T, CHUNK, indices[n:], start[m:], bits, ones
                )
                n += start[m + steps]
                m += steps + 1
            for tile in range(tiles):
                s = load(scale, tile * lanes, lanes)
                th = load(theta, tile * lanes, lanes)
                p0 = 0
                while p0 < pixels:
                    p1 = min(pixels, p0 + block)
                    sums[: (p1 - p0) * T * lanes] = 0
                    for k in range(taps.shape[0]):
                        chunks = taps[k, BYTES] // CHUNK
                        source = taps[k, SOURCE]
                        for j in range(chunks):
                            first = (tile * n_rows + taps[k, ROW] + j * CHUNK * 8) * lanes
                            for p in range(p0, p1):
                                oy = p // width
                                iy = oy * taps[k, STRIDE] + taps[k, DY]
                                ix = (p - oy * width) * taps[k, STRIDE] + taps[k, DX]
                                if iy >= 0 and iy < taps[k, HEIGHT] and ix >= 0 and ix < taps[k, WIDTH]:
                                    q = first_step[source] + (iy * taps[k, PITCH] + ix) * T * chunks + j
                                    for t in range(T):
                                        here = ((p - p0) * T + t) * lanes
                                        total = load(sums, here, lanes)
                                        for i in range(start[q], start[q + 1]):
                                            at = first + np.intp(indices[first_index[source] + i]) * lanes
                                            total = add(total, load(rows, at, lanes))
                                        store(sums, here, total)
                                        q += chunks
                    for p in range(p0, p1):
                        c = load(const, (image * pixels + p) * const_step + tile * lanes, lanes)
                        here = (image * pixels + p) * channels + tile * lanes
                        potential = load(v, here, lanes)
                        for t in range(T):
                            x = add(mul(to_float(load(sums, ((p - p0) * T + t) * lanes, lanes)), s), c)
                            if spiking:
                                step = ((image * pixels + p) * T + t) * out_bytes + tile * (lanes // 8)
                                potential = fire(add(potential, x), th, out, step)
                            else:
                                store(x_out, ((image * pixels + p) * T + t) * channels + tile * lanes, x)
                        if spiking:
                            store(v, here, potential)
                    p0 = p1

    return scan


@njit(**_OPTIONS)
def dense_scan(x, more, shape, theta, v, out):
    """Scan given currents x + more, flat [T, image, pixel, channels], of images first to last, 16 channels at a time.

    more: a second summand (a shortcut), or nothing.
    """
    n_images, first_image, last_image, pixels, T, channels = shape
    two = more.size > 0
    out_bytes = channels // 8
    tile = max(1, 2048 // channels)  # so many pixels at a time: their potentials stay in the first cache, x streams by
    for image in range(first_image, last_image):
        for p0 in range(0, pixels, tile):
            p1 = min(p0 + tile, pixels)
            for t in range(T):
                for p in range(p0, p1):
                    begin = ((t * n_images + image) * pixels + p) * channels
                    here = (image * pixels + p) * channels
                    step = ((image * pixels + p) * T + t) * out_bytes
                    for first in range(0, channels, 16):
                        current = load(x, begin + first, 16)
                        if two:
                            current = add(current, load(more, begin + first, 16))
                        potential = add(load(v, here + first, 16), current)
                        store(v, here + first, fire(potential, load(theta, first, 16), out, step + first // 8))


@njit(**_OPTIONS)
def max_pool_scan(spikes, shape, window, counts, out, bit_value):
    """Emit maxpool(S(t)) - maxpool(S(t-1)) of the spikes summed so far, 0 or 1 a step.

    spikes: uint8 [image, bytes]; window: (height, width, stride_y, stride_x, pad_y, pad_x, dilate_y, dilate_x);
    counts: int32, flat [image, pixel, channels], spikes of every source neuron before the first step, brought up to
    date; out: uint8, flat [image, pixel, T, bytes].
    """
    n_images, height, width, out_height, out_width, T, n_bytes = shape
    ky, kx, sy, sx, py, px, dy, dx = window
    sums = np.empty(ky * kx * 8, np.int32)
    source = np.empty(ky * kx, np.int64)
    for image in range(n_images):
        for p in range(out_height * out_width):
            oy = p // out_width
            ox = p - oy * out_width
            n = 0
            for i in range(ky):
                for j in range(kx):
                    iy = oy * sy - py + i * dy
                    ix = ox * sx - px + j * dx
                    if iy >= 0 and iy < height and ix >= 0 and ix < width:
                        source[n] = iy * width + ix
                        n += 1
            for b in range(n_bytes):
                most = zeros(8)
                for k in range(n):
                    before = load(counts, ((image * height * width + source[k]) * n_bytes + b) * 8, 8)
                    store(sums, k * 8, before)
                    most = maximum(most, before)
                for t in range(T):
                    now = most
                    for k in range(n):
                        byte = np.intp(spikes[image, (source[k] * T + t) * n_bytes + b])
                        total = add(load(sums, k * 8, 8), load(bit_value, byte * 8, 8))
                        store(sums, k * 8, total)
                        now = maximum(now, total)
                    step = ((image * out_height * out_width + p) * T + t) * n_bytes + b
                    pack_positive(sub(now, most), out, step)
                    most = now


@njit(**_OPTIONS)
def add_counts(spikes, T, n_bytes, counts, bit_value):
    """Add each neuron's spikes to counts, int32, flat [image, pixel, n_bytes * 8]; spikes: uint8, flat."""
    neurons = spikes.shape[0] // (T * n_bytes)
    for q in range(neurons):
        for b in range(n_bytes):
            total = load(counts, (q * n_bytes + b) * 8, 8)
            for t in range(T):
                byte = np.intp(spikes[(q * T + t) * n_bytes + b])
                total = add(total, load(bit_value, byte * 8, 8))
            store(counts, (q * n_bytes + b) * 8, total)


@njit(**_OPTIONS)
def unpack(spikes, shape, first, last, theta, out, bit_value):
    """Write theta * z of steps first to last as float32 [T, image, pixel, channels].

    spikes: uint8, flat [image, pixel, T, bytes]; theta: float32, padded to whole bytes of channels.
    """
    n_images, pixels, T, n_bytes, channels = shape
    whole = channels // 8
    for t in range(first, last):
        for image in range(n_images):
            for p in range(pixels):
                begin = ((t * n_images + image) * pixels + p) * channels
                step = ((image * pixels + p) * T + t) * n_bytes
                for b in range(whole):
                    z = load(bit_value, np.intp(spikes[step + b]) * 8, 8)
                    store(out, begin + 8 * b, mul(to_float(z), load(theta, 8 * b, 8)))
                for c in range(8 * whole, channels):
                    on = (spikes[step + (c >> 3)] >> (c & 7)) & 1
                    out[begin + c] = theta[c] if on else np.float32(0)


@njit(**_OPTIONS)
def channel_histogram(a, channels, per_unit, bins):
    """Count values by channel and bin: a, float32, flat [..., channels]; returns int64 [channels, bins]."""
    counts = np.zeros((channels, bins), np.int64)
    for i in range(0, a.shape[0], channels):
        for c in range(channels):
            index = min(bins - 1, int(a[i + c] * per_unit))
            counts[c, index] += 1
    return counts
