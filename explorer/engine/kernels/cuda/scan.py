"""The scans on CUDA, in Triton: sums of integers on tensor cores, potentials in registers through all steps.

The weights are those of the CPU: 32-bit integers, of which every spike adds a row. A tensor core multiplies int8 by
0 and 1 and adds in int32, so each weight is cut into four digits of eight bits from -128 to 127,
    w = d0 + 2^8 d1 + 2^16 d2 + 2^24 d3.
The four sums are put together again modulo 2^32, which is exact because the whole sum fits (`compile.fixed_point`). So
currents, spikes and potentials equal the CPU's bit for bit, whatever the order of the sums.

A program holds BM neurons' places by BN channels. Its taps are read anew in every step (they stay in the caches); the
spiking law is the law's own source, compiled into the loop.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import triton
import triton.language as tl

from explorer.engine.neurons import LAWS

BM, BK = 64, 32


@triton.jit
def where(condition, a, b):
    """Return a where the condition holds, else b: what `where` means in a law."""
    return tl.where(condition, a, b)


@cache
def compiled_law(name: str) -> Any:
    """Return a law's step as a Triton function."""
    return triton.jit(LAWS[name].rebound(where, tl=tl))


@triton.jit
def _pack(bits, out, row, here, first, n_bytes, place, BM: tl.constexpr, BN: tl.constexpr):
    """Write truth values [BM, BN] as bytes: channel c of a row in bit c % 8."""
    words = tl.sum(tl.reshape(bits.to(tl.int32) << place[None, :], (BM, BN // 8, 8)), axis=2).to(tl.uint8)
    column = first // 8 + tl.arange(0, BN // 8)
    tl.store(out + row[:, None] * n_bytes + column[None, :], words, mask=here[:, None])


@triton.jit
def taps_kernel(
    spikes,
    taps,
    digits,
    scale,
    const,
    theta,
    v,
    m,
    out,
    x_out,
    n_taps,
    n_digit,
    rows,
    height,
    width,
    T,
    channels,
    image_bytes,
    const_pixel,
    const_step,
    theta_pixel,
    plane_bytes,
    LAW: tl.constexpr,
    PLANES: tl.constexpr,
    MEMORY: tl.constexpr,
    TIMED: tl.constexpr,
    SPIKING: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """Run T steps of BM places and BN channels; see `CudaBackend` for what the arguments hold."""
    row = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    first = tl.program_id(1) * BN
    channel = first + tl.arange(0, BN)
    place = channel % 8
    here = row < rows
    image = row // (height * width)
    pixel = row % (height * width)
    oy = pixel // width
    ox = pixel % width
    where_state = row[:, None] * channels + channel[None, :]
    s = tl.load(scale + channel)
    c = tl.load(const + row[:, None] * const_pixel + channel[None, :], mask=here[:, None], other=0.0)
    th = tl.load(theta + pixel[:, None] * theta_pixel + channel[None, :])
    potential = tl.load(v + where_state, mask=here[:, None], other=0.0)
    sent = potential
    if MEMORY:
        sent = tl.load(m + where_state, mask=here[:, None], other=0.0)
    for t in range(T):
        d0 = tl.zeros((BM, BN), tl.int32)
        d1 = tl.zeros((BM, BN), tl.int32)
        d2 = tl.zeros((BM, BN), tl.int32)
        d3 = tl.zeros((BM, BN), tl.int32)
        for k in range(n_taps):
            tap = taps + k * 10
            iy = oy * tl.load(tap + 2) + tl.load(tap + 0)
            ix = ox * tl.load(tap + 2) + tl.load(tap + 1)
            inside = here & (iy >= 0) & (iy < tl.load(tap + 3)) & (ix >= 0) & (ix < tl.load(tap + 4))
            per_pixel = tl.load(tap + 7)
            at = (image * image_bytes + tl.load(tap + 6)) * T + ((iy * tl.load(tap + 5) + ix) * T + t) * per_pixel
            weight_row = tl.load(tap + 8)
            for b in range(0, per_pixel * 8, BK):
                source = b + tl.arange(0, BK)
                live = source < per_pixel * 8
                byte = tl.load(
                    spikes + at[:, None] + (source // 8)[None, :], mask=inside[:, None] & live[None, :], other=0
                )
                z = ((byte.to(tl.int32) >> (source % 8)[None, :]) & 1).to(tl.int8)
                w = digits + (weight_row + source)[:, None] * channels + channel[None, :]
                d0 = tl.dot(z, tl.load(w, mask=live[:, None], other=0), d0)
                d1 = tl.dot(z, tl.load(w + n_digit, mask=live[:, None], other=0), d1)
                d2 = tl.dot(z, tl.load(w + 2 * n_digit, mask=live[:, None], other=0), d2)
                d3 = tl.dot(z, tl.load(w + 3 * n_digit, mask=live[:, None], other=0), d3)
        total = d0 + (d1 << 8) + (d2 << 16) + (d3 << 24)
        if TIMED:
            c_at = row[:, None] * const_pixel + t * const_step + channel[None, :]
            c = tl.load(const + c_at, mask=here[:, None], other=0.0)
        x = total.to(tl.float32) * s[None, :] + c
        step_row = row * T + t
        if SPIKING:
            bits, potential, sent = LAW(potential, sent, x, th)
            for plane in tl.static_range(PLANES):
                _pack(bits[plane], out + plane * plane_bytes, step_row, here, first, channels // 8, place, BM, BN)
        else:
            tl.store(x_out + step_row[:, None] * channels + channel[None, :], x, mask=here[:, None])
    if SPIKING:
        tl.store(v + where_state, potential, mask=here[:, None])
        if MEMORY:
            tl.store(m + where_state, sent, mask=here[:, None])


@triton.jit
def given_kernel(
    x,
    theta,
    v,
    m,
    out,
    rows,
    pixels,
    T,
    channels,
    theta_pixel,
    plane_bytes,
    LAW: tl.constexpr,
    PLANES: tl.constexpr,
    MEMORY: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    """Run T steps on currents as given, float32 [B, pixel, T, channels]."""
    row = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    first = tl.program_id(1) * BN
    channel = first + tl.arange(0, BN)
    place = channel % 8
    here = row < rows
    where_state = row[:, None] * channels + channel[None, :]
    th = tl.load(theta + (row % pixels)[:, None] * theta_pixel + channel[None, :])
    potential = tl.load(v + where_state, mask=here[:, None], other=0.0)
    sent = potential
    if MEMORY:
        sent = tl.load(m + where_state, mask=here[:, None], other=0.0)
    for t in range(T):
        step_row = row * T + t
        current = tl.load(x + step_row[:, None] * channels + channel[None, :], mask=here[:, None], other=0.0)
        bits, potential, sent = LAW(potential, sent, current, th)
        for plane in tl.static_range(PLANES):
            _pack(bits[plane], out + plane * plane_bytes, step_row, here, first, channels // 8, place, BM, BN)
    tl.store(v + where_state, potential, mask=here[:, None])
    if MEMORY:
        tl.store(m + where_state, sent, mask=here[:, None])
