"""The CUDA back end: trains, states and weights on the device, scans in Triton, exact as on the CPU.

What runs as traced (grouped convolutions, for one) runs in float64: no TF32 setting of the process matters, none is
changed, and two runs may go side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import triton
from torch import Tensor

from explorer.engine.compile.fixed_point import FixedPoint
from explorer.engine.kernels.cuda import scan as kernels
from explorer.engine.kernels.protocol import Constant, Current, Given, Taps
from explorer.engine.kernels.reference import ReferenceBackend
from explorer.engine.neurons import INTEGRATE_AND_FIRE, Law

DIGITS = 4


def int8_digits(rows: np.ndarray) -> np.ndarray:
    """Cut int32 [R, C] into digits int8 [4, R, C]: rows = sum of digits[k] 2^(8 k), modulo 2^32."""
    rest, digits = rows.astype(np.int64), []
    for _ in range(DIGITS):
        digit = (rest + 128) % 256 - 128
        digits.append(digit.astype(np.int8))
        rest = (rest - digit) >> 8
    return np.stack(digits)


@dataclass(frozen=True, eq=False)
class DeviceRows:
    """Weights on the device: digits int8 [4, R, C] and taps int64 [K, 10]."""

    fixed: FixedPoint
    digits: Tensor
    taps: Tensor


class CudaBackend(ReferenceBackend):
    """Runs on a CUDA device; see `Backend`. What is cheap there runs in torch, as in the reference."""

    name = "cuda"
    precision = torch.float64

    def __init__(self, device: str = "cuda", places: int = kernels.BM) -> None:
        """places: pixels that one program holds; more suit Triton's interpreter, which pays by the program."""
        super().__init__(device)
        self.places = places

    def arrange(self, fixed: FixedPoint) -> DeviceRows:
        """See `Backend`."""
        digits = torch.from_numpy(int8_digits(fixed.rows))
        return DeviceRows(fixed, digits.to(self.device), torch.from_numpy(fixed.taps).to(self.device))

    def scan(self, current: Current, law: Law, theta: Tensor, state: Tensor, T: int) -> Tensor:
        """See `Backend`."""
        _, B, pixels, channels = state.shape
        train = torch.empty((len(law.planes), B, pixels, T, channels // 8), dtype=torch.uint8, device=self.device)
        theta = theta.contiguous().to(self.device)
        if isinstance(current, Taps):
            self._taps(current, law, theta, state, train, None, T)
            return train
        x = self.values(current, B, T).contiguous()
        lanes = _lanes(channels)
        grid = (triton.cdiv(B * pixels, self.places), channels // lanes)
        kernels.given_kernel[grid](
            x,
            theta,
            state[0],
            state[-1],
            train,
            B * pixels,
            pixels,
            T,
            channels,
            channels if theta.ndim > 1 else 0,
            train[0].numel(),
            LAW=kernels.compiled_law(law.name),
            PLANES=len(law.planes),
            MEMORY=law.memory,
            BM=self.places,
            BN=lanes,
            enable_fp_fusion=False,
        )
        return train

    def values(self, current: Current, B: int, T: int) -> Tensor:
        """See `Backend`."""
        if isinstance(current, Given):
            return super().values(current, B, T)
        fixed = current.weights.fixed
        pixels, channels = fixed.height * fixed.width, fixed.rows.shape[1]
        x = torch.empty((B, pixels, T, channels), device=self.device)
        nothing = torch.zeros((1, B, pixels, channels), device=self.device)
        no_train = torch.empty((1, B, 0), dtype=torch.uint8, device=self.device)
        self._taps(current, INTEGRATE_AND_FIRE, torch.zeros(channels, device=self.device), nothing, no_train, x, T)
        return x

    def _taps(
        self, current: Taps, law: Law, theta: Tensor, state: Tensor, train: Tensor, x: Tensor | None, T: int
    ) -> None:
        """Launch the scan over taps: into the train, or the currents into x."""
        weights, fixed = current.weights, current.weights.fixed
        _, B, pixels, channels = state.shape
        flat = [plane.reshape(B, -1) for one in current.trains for plane in one]
        none = torch.zeros((B, 1), dtype=torch.uint8, device=self.device)
        together = (torch.cat(flat, 1) if len(flat) > 1 else flat[0] if flat else none).contiguous()
        const, const_pixel, const_step = self._constant(current.const, channels, T)
        lanes = _lanes(channels)
        grid = (triton.cdiv(B * pixels, self.places), channels // lanes)
        kernels.taps_kernel[grid](
            together,
            weights.taps,
            weights.digits,
            current.scale.to(self.device),
            const,
            theta,
            state[0],
            state[-1],
            train,
            state if x is None else x,
            len(fixed.taps),
            fixed.rows.size,
            B * pixels,
            fixed.height,
            fixed.width,
            T,
            channels,
            sum(fixed.sizes),
            const_pixel,
            const_step,
            channels if theta.ndim > 1 else 0,
            train[0].numel(),
            LAW=kernels.compiled_law(law.name),
            PLANES=len(law.planes),
            MEMORY=law.memory,
            TIMED=current.const.timed,
            SPIKING=x is None,
            BM=self.places,
            BN=lanes,
            BK=kernels.BK,
            enable_fp_fusion=False,
        )

    def _constant(self, const: Constant, channels: int, T: int) -> tuple[Tensor, int, int]:
        """Return a constant on the device and its elements per pixel and per step."""
        step = channels if const.timed else 0
        pixel = (T if const.timed else 1) * channels if const.per_pixel else 0
        return const.values.contiguous().to(self.device), pixel, step


def _lanes(channels: int) -> int:
    return next(n for n in (64, 32, 16) if channels % n == 0)
