"""The reference back end: the same arithmetic in plain torch, one obvious step after the other, on any device.

Sums of integers stay below 2^53, so float64 holds them exactly and the results equal the compiled kernels' bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from explorer.engine.compile.fixed_point import FixedPoint
from explorer.engine.compile.layout import as_pixels
from explorer.engine.kernels.protocol import Constant, Current, Given, Taps
from explorer.engine.neurons import Law


def law_scan(law: Law, x: Tensor, v: Tensor, theta: Tensor, m: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Scan currents x [T, ...]: return spikes bool [plane, T, ...], and v and m after the last step."""
    step = law.rebound(torch.where)
    m = torch.zeros_like(v) if m is None else m
    spikes = []
    for current in x:
        bits, v, m = step(v, m, current, theta)
        spikes.append(torch.stack(bits))
    return torch.stack(spikes, 1), v, m


def unpack_bits(train: Tensor) -> Tensor:
    """Turn bytes [..., bytes] into truth values [..., channels]."""
    places = torch.arange(8, dtype=torch.uint8, device=train.device)
    return ((train[..., None] >> places) & 1).flatten(-2).bool()


def pack_bits(z: Tensor) -> Tensor:
    """Undo `unpack_bits`."""
    places = 1 << torch.arange(8, dtype=torch.uint8, device=z.device)
    return (z.unflatten(-1, (-1, 8)) * places).sum(-1, dtype=torch.uint8)


@dataclass(frozen=True, eq=False)
class Rows:
    """Weights as the reference sums them: float64 [R, C], with the taps that read them."""

    fixed: FixedPoint
    rows: Tensor


class ReferenceBackend:
    """Runs everything with torch; see `Backend`."""

    name = "reference"
    precision = torch.float32

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)

    def hold(self, array: np.ndarray) -> Tensor:
        """See `Backend`."""
        return torch.from_numpy(array if array.flags.writeable else array.copy()).to(self.device)

    def release(self, array: Tensor) -> np.ndarray:
        """See `Backend`."""
        return array.cpu().numpy()

    def arrange(self, fixed: FixedPoint) -> Any:
        """See `Backend`."""
        return Rows(fixed, torch.from_numpy(fixed.rows).double().to(self.device))

    def start(self, v: Tensor, memory: bool) -> Tensor:
        """See `Backend`."""
        v = v.to(self.device)
        return torch.stack([v, torch.zeros_like(v)]) if memory else v[None].clone()

    def copy(self, state: Tensor) -> Tensor:
        """See `Backend`."""
        return state.clone()

    def scan(self, current: Current, law: Law, theta: Tensor, state: Tensor, T: int) -> Tensor:
        """See `Backend`."""
        x = self.values(current, state.shape[1], T).permute(2, 0, 1, 3)
        spikes, v, m = law_scan(law, x, state[0], theta.to(self.device), state[1] if law.memory else None)
        state[0] = v
        if law.memory:
            state[1] = m
        return pack_bits(spikes.permute(0, 2, 3, 1, 4))

    def values(self, current: Current, B: int, T: int) -> Tensor:
        """See `Backend`."""
        if isinstance(current, Given):
            return self._given(current, T)
        return self._with_constant(self._summed(current, B, T), current.const)

    def _given(self, current: Given, T: int) -> Tensor:
        x: Any = sum(current.summands[1:], current.summands[0])
        x = as_pixels(x.float(), T).permute(1, 2, 0, 3)
        return x if current.const is None else self._with_constant(x, current.const)

    def _with_constant(self, x: Tensor, const: Constant) -> Tensor:
        value = const.values.to(self.device)
        return x + (value if const.timed else value[..., None, :])

    def _summed(self, current: Taps, B: int, T: int) -> Tensor:
        """Add the rows of all spikes: [B, pixel, T, C], exact before the one rounding to float32."""
        fixed, rows = current.weights.fixed, current.weights.rows
        stored = rows.shape[1]
        total = torch.zeros(T, B, fixed.height, fixed.width, stored, dtype=torch.float64, device=self.device)
        planes = [plane for train in current.trains for plane in train]
        ys, xs = (torch.arange(n, device=self.device) for n in (fixed.height, fixed.width))
        for dy, dx, stride, height, width, pitch, _, n_bytes, row, source in fixed.taps.tolist():
            train = unpack_bits(planes[source]).double().permute(2, 0, 1, 3)
            train = train.reshape(T, B, -1, pitch, n_bytes * 8)[:, :, :height, :width]
            iy, ix = ys * stride + dy, xs * stride + dx
            good_y, good_x = (iy >= 0) & (iy < train.shape[2]), (ix >= 0) & (ix < train.shape[3])
            seen = train[:, :, iy[good_y]][:, :, :, ix[good_x]] @ rows[row : row + n_bytes * 8]
            before_y, before_x = int(good_y.int().argmax()), int(good_x.int().argmax())
            after_y = fixed.height - before_y - int(good_y.sum())
            after_x = fixed.width - before_x - int(good_x.sum())
            total += F.pad(seen, (0, 0, before_x, after_x, before_y, after_y))
        current_ = total.float() * current.scale.to(self.device)
        return current_.flatten(2, 3).permute(1, 2, 0, 3)

    def mute(self, train: Tensor, gate: np.ndarray) -> Tensor:
        """See `Backend`."""
        return train & torch.from_numpy(gate).to(self.device)[..., None, :]

    def pool(self, train: Tensor, window: tuple[int, ...], shapes: tuple[Any, Any], counts: Tensor | None) -> Tensor:
        """See `Backend`."""
        (_, height, width), (_, *out_size) = shapes
        planes, B, _, T, _ = train.shape
        z = unpack_bits(train).double()
        change = (z[0] - z[1] if planes > 1 else z[0]).permute(2, 0, 1, 3)
        before = torch.zeros_like(change[:1]) if counts is None else counts.double()[None]
        sums = torch.cat([before, before + change.cumsum(0)])
        maps = sums.reshape((T + 1) * B, height, width, -1).permute(0, 3, 1, 2)
        shape = (window[0:2], window[2:4], window[4:6], window[6:8])
        pooled = F.max_pool2d(maps, *shape)
        if list(pooled.shape[2:]) != out_size:
            pooled = F.max_pool2d(maps, *shape, ceil_mode=True)
        steps = torch.diff(pooled.permute(0, 2, 3, 1).reshape(T + 1, B, -1, maps.shape[1]), dim=0).permute(1, 2, 0, 3)
        return pack_bits(torch.stack([steps > 0, steps < 0][:planes]))

    def count(self, train: Tensor, planes: tuple[int, ...], counts: Tensor | None) -> Tensor:
        """See `Backend`."""
        sent: Any = sum(
            weight * unpack_bits(z).sum(2, dtype=torch.int32) for weight, z in zip(planes, train, strict=True)
        )
        return sent if counts is None else counts + sent

    def total(self, train: Tensor) -> int:
        """See `Backend`."""
        return int(unpack_bits(train).sum())

    def unpack(self, train: Tensor, planes: tuple[int, ...], worth: np.ndarray, shape: tuple[int, ...]) -> Tensor:
        """See `Backend`."""
        amplitude = torch.from_numpy(worth).to(self.device, self.precision)
        z: Any = sum(weight * unpack_bits(bits)[..., : shape[0]] for weight, bits in zip(planes, train, strict=True))
        x = (z * amplitude).permute(2, 0, 1, 3).flatten(0, 1)
        return x.reshape(-1, shape[0]) if len(shape) == 1 else x.unflatten(1, shape[1:]).permute(0, 3, 1, 2)
