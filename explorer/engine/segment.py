"""What lies between sites, as sums over taps of spike trains.

The input current of most sites is a sum of convolutions, linear layers and shortcuts of spike trains, perhaps pooled
on the way. All of these are taps: "for output pixel (y, x), read source pixel (y stride + dy, x stride + dx), and add
a weight row for every channel that spiked". A segment that can be written so runs in exact integer arithmetic; any
other runs as traced, in float32 (see `dense.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from explorer.engine.graph import Network
from explorer.engine.operations import NO_OPS

LANES = 16
MAX_TABLE_BYTES = 3 * 2**20
MAX_ROW_BYTES = 2 * 2**20


def padded(channels: int) -> int:
    """Return the number of channels as stored: the next multiple of 16."""
    return -(-channels // LANES) * LANES


@dataclass(frozen=True)
class Part:
    """A spike source as seen through pools and slices: channels [at, at + channels) of a value.

    Pixel (y, x) of the value is the sum over `inner` (dy, dx, weight) of source pixel (y stride + dy, x stride + dx).
    """

    source: str
    at: int
    channels: int
    inner: tuple[tuple[int, int, float], ...]
    stride: int
    overlapping: bool = False


@dataclass(frozen=True)
class View:
    """A value made of spike sources side by side; `flat` once its pixels have become features."""

    parts: tuple[Part, ...]
    height: int
    width: int
    channels: int
    flat: bool = False


@dataclass(frozen=True, eq=False)
class Segment:
    """The input current of a site (or the class scores): taps, weight rows, and what is constant in time.

    taps: int64 [K, 10], columns as in `kernels.cpu`; rows: float64 [R, C], in units of one spike of amplitude 1;
    row_source, row_channel: which source and channel a row belongs to; uses: how often each row is tapped;
    sources: nodes that spike; bias: float64 [C]; static: nodes whose value does not change in time.
    """

    sources: tuple[str, ...]
    taps: np.ndarray
    rows: np.ndarray
    row_source: np.ndarray
    row_channel: np.ndarray
    uses: np.ndarray
    bias: np.ndarray
    static: tuple[str, ...]
    channels: int
    height: int
    width: int


class _Builder:
    """Collects terms for one segment."""

    def __init__(self, network: Network, dynamic: frozenset[str]) -> None:
        self.network, self.dynamic = network, dynamic
        self.modules = network.modules
        self.sources: list[str] = []
        self.taps: list[tuple[int, ...]] = []
        self.rows: list[np.ndarray] = []
        self.row_source: list[np.ndarray] = []
        self.row_channel: list[np.ndarray] = []
        self.uses: list[np.ndarray] = []
        self.bias: Any = 0.0
        self.static: list[str] = []
        self.n_rows = 0

    def add_expression(self, node: fx.Node, shape: tuple[int, ...]) -> bool:
        """Add a node's value to the current; False if it cannot be written as taps."""
        if node.name not in self.dynamic:
            self.static.append(node.name)
            return True
        name = self.network.names[node.name]
        if name in NO_OPS and self.network.kinds[node.name] == "affine":
            return self.add_expression(node.all_input_nodes[0], shape)
        if name == "add" and node.kwargs.get("alpha", 1) == 1 and len(node.args) == 2:
            a, b = node.args
            if isinstance(a, fx.Node) and isinstance(b, fx.Node):
                same = self.network.shapes[a.name] == self.network.shapes[b.name] == self.network.shapes[node.name]
                return same and self.add_expression(a, shape) and self.add_expression(b, shape)
            return False
        module = self.modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, nn.Conv2d):
            return self._convolution(node, module)
        if isinstance(module, nn.Linear):
            return self._linear(node, module)
        view = resolve(self.network, node)
        return view is not None and self._identity(view, shape)

    def _add_rows(self, part: Part, weight: np.ndarray) -> int:
        """Append the rows [channels of the part, C] of one kernel position, padded to whole bytes; return the first."""
        stored = padded(part.channels)
        rows = np.zeros((stored, weight.shape[1]))
        rows[: part.channels] = weight
        if part.source not in self.sources:
            self.sources.append(part.source)
        first = self.n_rows
        self.rows.append(rows)
        self.row_source.append(np.full(stored, self.sources.index(part.source)))
        self.row_channel.append(np.minimum(np.arange(stored), part.channels - 1))
        self.uses.append(np.full(stored, 0))
        self.n_rows += stored
        return first

    def _tap(self, part: Part, dy: int, dx: int, stride: int, limit: tuple[int, int], row: int) -> None:
        shape = self.network.shapes[part.source]
        height, width = (shape[1], shape[2]) if len(shape) == 3 else (1, 1)
        n_bytes = padded(shape[0]) // 8
        source = self.sources.index(part.source)
        self.taps.append((dy, dx, stride, min(limit[0], height), min(limit[1], width), width, 0, n_bytes, row, source))
        self.uses[-1] += 1

    def _convolution(self, node: fx.Node, module: nn.Conv2d) -> bool:
        view = resolve(self.network, node.args[0])
        if view is None or view.flat or module.groups != 1 or isinstance(module.padding, str):
            return False
        if module.padding_mode != "zeros" or module.stride[0] != module.stride[1]:
            return False
        if any(p.overlapping for p in view.parts) and any(module.padding):
            return False
        weight = module.weight.detach().double().numpy()
        for part in view.parts:
            limit = (view.height * part.stride, view.width * part.stride)
            for ky in range(weight.shape[2]):
                for kx in range(weight.shape[3]):
                    block = weight[:, part.at : part.at + part.channels, ky, kx].T * part.inner[0][2]
                    row = self._add_rows(part, block)
                    y0 = (ky * module.dilation[0] - module.padding[0]) * part.stride
                    x0 = (kx * module.dilation[1] - module.padding[1]) * part.stride
                    for dy, dx, _ in part.inner:
                        self._tap(part, y0 + dy, x0 + dx, module.stride[0] * part.stride, limit, row)
        if module.bias is not None:
            self.bias = self.bias + module.bias.detach().double().numpy()
        return True

    def _linear(self, node: fx.Node, module: nn.Linear) -> bool:
        view = resolve(self.network, node.args[0])
        if view is None or not (view.flat or view.height == view.width == 1):
            return False
        pixels = view.height * view.width
        if pixels > 1 and pixels * view.channels != module.in_features:
            return False
        weight = module.weight.detach().double().numpy().T.reshape(view.channels, pixels, -1)
        for part in view.parts:
            for pixel in range(pixels):
                y, x = divmod(pixel, view.width)
                row = self._add_rows(part, weight[part.at : part.at + part.channels, pixel] * part.inner[0][2])
                for dy, dx, _ in part.inner:
                    self._tap(part, y * part.stride + dy, x * part.stride + dx, 1, (1 << 30, 1 << 30), row)
        if module.bias is not None:
            self.bias = self.bias + module.bias.detach().double().numpy()
        return True

    def _identity(self, view: View, shape: tuple[int, ...]) -> bool:
        if view.flat and view.height * view.width > 1:
            return False
        eye = np.eye(shape[0])
        for part in view.parts:
            row = self._add_rows(part, eye[part.at : part.at + part.channels] * part.inner[0][2])
            limit = (view.height * part.stride, view.width * part.stride)
            if part.overlapping:
                limit = (1 << 30, 1 << 30)
            for dy, dx, _ in part.inner:
                self._tap(part, dy, dx, part.stride, limit, row)
        return True

    def finish(self, shape: tuple[int, ...]) -> Segment | None:
        height, width = (shape[1], shape[2]) if len(shape) == 3 else (1, 1)
        if not self.taps:
            rows = np.zeros((0, shape[0]))
            empty = np.zeros(0, np.int64)
            taps = np.zeros((0, 10), np.int64)
            return Segment(
                (), taps, rows, empty, empty, empty, self._bias(shape), tuple(self.static), shape[0], height, width
            )
        taps = np.array(self.taps, np.int64)
        taps[:, 6] = self._offsets()[taps[:, 9]]
        return Segment(
            tuple(self.sources),
            taps,
            np.concatenate(self.rows),
            np.concatenate(self.row_source),
            np.concatenate(self.row_channel),
            np.concatenate(self.uses),
            self._bias(shape),
            tuple(self.static),
            shape[0],
            height,
            width,
        )

    def _bias(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.broadcast_to(np.asarray(self.bias, np.float64), (shape[0],)).copy()

    def _offsets(self) -> np.ndarray:
        sizes = [bytes_per_step(self.network.shapes[s]) for s in self.sources]
        return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)


def bytes_per_step(shape: tuple[int, ...]) -> int:
    """Return the bytes that one image's spikes of one step take at a node of this shape."""
    pixels = shape[1] * shape[2] if len(shape) == 3 else 1
    return padded(shape[0]) // 8 * pixels


def build_segment(network: Network, node: fx.Node, dynamic: frozenset[str]) -> Segment | None:
    """Write a node's value as taps of spike trains; None if it cannot be.

    dynamic: names of the nodes that depend on a site, whose value changes in time.
    """
    shape = network.shapes[node.name]
    if len(shape) not in (1, 3):
        return None
    builder = _Builder(network, dynamic)
    return builder.finish(shape) if builder.add_expression(node, shape) else None


def resolve(network: Network, node: Any) -> View | None:
    """Write a value as spike sources side by side, pooled or sliced; None if it is something else."""
    if not isinstance(node, fx.Node):
        return None
    kind, name, shape = network.kinds[node.name], network.names[node.name], network.shapes[node.name]
    if kind == "site" or (kind == "max_pool" and spiking_pool(network, node)):
        if len(shape) not in (1, 3):
            return None
        height, width = (shape[1], shape[2]) if len(shape) == 3 else (1, 1)
        return View((Part(node.name, 0, shape[0], ((0, 0, 1.0),), 1),), height, width, shape[0])
    if kind != "affine":
        return None
    if name in ("cat", "concat", "concatenate"):
        return _side_by_side(network, node)
    view = resolve(network, node.args[0]) if node.args else None
    if view is None:
        return None
    if name in NO_OPS:
        return view
    module = network.modules.get(str(node.target)) if node.op == "call_module" else None
    if name in ("flatten", "view", "reshape", "squeeze") and len(shape) == 1:
        return replace(view, flat=True)
    if view.flat:
        return None
    match name:
        case "avg_pool2d":
            return _average_pool(view, node, module, shape)
        case "adaptive_avg_pool2d" | "mean" if len(shape) in (1, 3):
            height, width = (shape[1], shape[2]) if len(shape) == 3 else (1, 1)
            if name == "mean" and not _over_space(node):
                return None
            return _pool(view, height, width, view.height // height, view.width // width, exact=True)
        case "getitem":
            return _strided(view, node, shape)
        case "pad":
            return _channel_pad(view, node, shape)
    return None


def spiking_pool(network: Network, node: fx.Node) -> bool:
    """Tell whether a max pool sees one source's spikes as they are, so that its own output is spikes."""
    view = resolve(network, node.args[0])
    return (
        view is not None
        and not view.flat
        and len(view.parts) == 1
        and view.parts[0].inner == ((0, 0, 1.0),)
        and (view.parts[0].stride == 1 and view.parts[0].at == 0 and view.parts[0].channels == view.channels)
    )


def _side_by_side(network: Network, node: fx.Node) -> View | None:
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis", 0))
    if dim not in (1, -3) or not isinstance(node.args[0], list | tuple):
        return None
    views = [resolve(network, item) for item in node.args[0]]
    parts: list[Part] = []
    at = 0
    for view in views:
        if view is None or view.flat or (view.height, view.width) != (views[0].height, views[0].width):  # type: ignore[union-attr]
            return None
        parts += [replace(p, at=at + p.at) for p in view.parts]
        at += view.channels
    first = views[0]
    return None if first is None else View(tuple(parts), first.height, first.width, at)


def _pool(view: View, height: int, width: int, ky: int, kx: int, stride: int = 0, exact: bool = False) -> View | None:
    if exact and (height * ky != view.height or width * kx != view.width):
        return None
    step = stride or ky
    if not stride and ky != kx and (height, width) != (1, 1):
        return None
    parts = []
    for p in view.parts:
        inner = tuple(
            (dy + p.stride * i, dx + p.stride * j, w / (ky * kx))
            for i in range(ky)
            for j in range(kx)
            for dy, dx, w in p.inner
        )
        overlapping = p.overlapping or step < max(ky, kx)
        parts.append(replace(p, inner=inner, stride=p.stride * step, overlapping=overlapping))
    return View(tuple(parts), height, width, view.channels)


def _average_pool(view: View, node: fx.Node, module: Any, shape: tuple[int, ...]) -> View | None:
    names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    if module is not None:
        values = {n: getattr(module, n) for n in names}
    else:
        values = dict.fromkeys(names) | dict(zip(names, node.args[1:], strict=False)) | dict(node.kwargs)
        values.pop("input", None)
    kernel = _square(values["kernel_size"])
    stride = _square(values["stride"]) if values["stride"] not in (None, [], ()) else kernel
    if kernel is None or stride is None or _square(values["padding"] or 0) != 0:
        return None
    if values["ceil_mode"] or values["divisor_override"]:
        return None
    return _pool(view, shape[1], shape[2], kernel, kernel, stride)


def _square(value: Any) -> int | None:
    if isinstance(value, int):
        return value
    if isinstance(value, fx.Node):
        return None
    return value[0] if len(set(value)) == 1 else None


def _over_space(node: fx.Node) -> bool:
    dims: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    dims = [dims] if isinstance(dims, int) else dims
    return dims is not None and sorted(d % 4 for d in dims) == [2, 3]


def _strided(view: View, node: fx.Node, shape: tuple[int, ...]) -> View | None:
    index: Any = node.args[1]
    if not isinstance(index, tuple) or len(index) != 4 or not all(isinstance(i, slice) for i in index):
        return None
    if any(i.start not in (None, 0) or i.stop is not None for i in index) or any(
        i.step not in (None, 1) for i in index[:2]
    ):
        return None
    steps = {i.step or 1 for i in index[2:]}
    if len(steps) != 1:
        return None
    step = steps.pop()
    parts = tuple(replace(p, stride=p.stride * step, overlapping=p.overlapping or step > 1) for p in view.parts)
    return View(parts, shape[1], shape[2], view.channels)


def _channel_pad(view: View, node: fx.Node, shape: tuple[int, ...]) -> View | None:
    given: dict[str, Any] = dict(zip(("input", "pad", "mode", "value"), node.args, strict=False)) | dict(node.kwargs)
    pad = list(given["pad"])
    if given.get("mode", "constant") != "constant" or given.get("value") not in (None, 0, 0.0):
        return None
    if len(pad) != 6 or any(pad[:4]):
        return None
    parts = tuple(replace(p, at=p.at + pad[4]) for p in view.parts)
    return View(parts, view.height, view.width, shape[0])


@dataclass(frozen=True, eq=False)
class IntegerWeights:
    """A segment's rows in fixed point, laid out for a kernel.

    data: int32, flat, [tile, row, lane] or, as sums by bytes of spikes, [tile, byte, 256, lane]; unit: float64 per
    stored channel, scale: the same as used, float32; const: float32 per stored channel.
    """

    data: np.ndarray
    table: bool
    lanes: int
    tiles: int
    unit: np.ndarray
    scale: np.ndarray
    const: np.ndarray

    def scaled(self, common: float) -> IntegerWeights:
        """Return the weights for spikes `common` times as large."""
        return replace(self, scale=(self.unit * common).astype(np.float32))


def fixed_point(segment: Segment, amplitudes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Round rows times spike amplitudes to integers whose sums fit in 32 bits.

    A sum of the rows of any spikes lies between the sums of the negative and of the positive weights; the scale makes
    the larger of the two just fit. Sums are then exact in any order, and each weight is off by at most half a unit,
    2^-32 of that bound.

    Returns:
        integers: int32 [R, C]; unit: float64 [C], activation units per integer.
    """
    values = segment.rows.copy()
    for s, amplitude in enumerate(amplitudes):
        mine = segment.row_source == s
        values[mine] *= amplitude[segment.row_channel[mine], None]
    uses = segment.uses[:, None]
    bound = np.maximum((values.clip(min=0) * uses).sum(0), (-values.clip(max=0) * uses).sum(0))
    unit = np.where(bound > 0, bound, 1.0) / (2**31 - 1 - int(segment.uses.sum()))
    return np.rint(values / unit).astype(np.int32), unit


def lay_out(segment: Segment, amplitudes: list[np.ndarray], byte_table: Any) -> IntegerWeights:
    """Arrange a segment's integers for the scan that suits its size.

    amplitudes: per source, the value of a spike per channel; byte_table: the kernel that sums by bytes.
    """
    stored = padded(segment.channels)
    integers, unit = fixed_point(segment, amplitudes)
    rows = np.zeros((len(integers), stored), np.int32)
    rows[:, : segment.channels] = integers
    units, const = np.zeros(stored), np.zeros(stored, np.float32)
    units[: segment.channels] = unit
    const[: segment.channels] = segment.bias
    table = len(rows) * 32 * stored * 4 <= MAX_TABLE_BYTES
    lanes = next(n for n in (64, 32, 16) if stored % n == 0)
    if not table and len(rows) * lanes * 4 > MAX_ROW_BYTES:
        lanes = min(lanes, 32)
    tiles = stored // lanes
    if table:
        data = np.empty(len(rows) * 32 * stored, np.int32)
        byte_table(rows, data, lanes, tiles)
    else:
        data = np.ascontiguousarray(rows.reshape(len(rows), tiles, lanes).transpose(1, 0, 2)).reshape(-1)
    return IntegerWeights(data, table, lanes, tiles, units, units.astype(np.float32), const)


def to_pixels(value: Tensor, stored: int | None = None) -> np.ndarray:
    """Lay a value [B, C, H, W] or [B, C] out as float32 [B, pixels, stored channels], padded with zeros."""
    x = value.permute(0, 2, 3, 1).reshape(len(value), -1, value.shape[1]) if value.ndim == 4 else value[:, None]
    x = x.float()
    missing = (stored or padded(x.shape[2])) - x.shape[2]
    return np.ascontiguousarray(torch.nn.functional.pad(x, (0, missing)).numpy() if missing else x.numpy())


def from_pixels(value: np.ndarray, shape: tuple[int, ...]) -> Tensor:
    """Undo `to_pixels`: [..., pixels, stored channels] to [..., *shape]."""
    x = torch.from_numpy(value[..., : shape[0]])
    lead = x.shape[:-2]
    if len(shape) == 1:
        return x.reshape(*lead, shape[0])
    return x.reshape(*lead, shape[1], shape[2], shape[0]).movedim(-1, -3).contiguous()
