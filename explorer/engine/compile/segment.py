"""What lies between sites, as sums over taps of spike trains.

The input current of most sites is a sum of convolutions, linear layers and shortcuts of spike trains, perhaps pooled
on the way. All of these are taps: "for output pixel (y, x), read source pixel (y stride + dy, x stride + dx), and add
a weight row for every channel that spiked". A segment that can be written so runs in exact integer arithmetic; any
other runs as traced, in float32 (see `dense.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import fx, nn

from explorer.engine.compile.layout import bytes_per_step, padded
from explorer.engine.compile.mosaic import Mosaic, Part, resolve
from explorer.engine.graph import Network
from explorer.engine.graph.operations import NO_OPS

# A tap, for output pixel (y, x):
#
#         source image (HEIGHT x WIDTH of it count)            weight rows, one a channel of the source
#         +--------------------------------+                   +----------------------------+
#         |            x STRIDE + DX       |            ROW -> | channel 0                  |
#         |            |                   |                   | channel 1                  |
#         |  y STRIDE  |                   |                   | ...       8 BYTES rows     |
#         |  + DY -----o  channels spike ------- added up ---> |                            |
#         |                                |                   +----------------------------+
#         +--------------------------------+
#
# In memory the pixel's spikes of step t begin at byte  OFFSET T + ((iy PITCH + ix) T + t) BYTES  of an image: OFFSET is
# where its source begins (per step), PITCH the pixels in a row of it, BYTES its bytes per step and pixel; SOURCE says
# which of the segment's sources it is. A tap whose pixel lies outside adds nothing: that is the zero padding.
DY, DX, STRIDE, HEIGHT, WIDTH, PITCH, OFFSET, BYTES, ROW, SOURCE = range(10)


@dataclass(frozen=True, eq=False)
class Segment:
    """The input current of a site (or the class scores): taps, weight rows, and what is constant in time.

    taps: int64 [K, 10], columns as drawn above; rows: float64 [R, C], in units of one spike of amplitude 1;
    row_source, row_channel: which source and channel a row belongs to; uses: how often each row is tapped;
    sources: nodes that spike; sizes: bytes per image and step of each; bias: float64 [C]; static: nodes whose value
    does not change in time.
    """

    sources: tuple[str, ...]
    sizes: tuple[int, ...]
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

    def __init__(self, network: Network, dynamic: frozenset[str], outputs: Any = slice(None)) -> None:
        self.network, self.dynamic, self.outputs = network, dynamic, outputs
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
        mosaic = resolve(self.network, node)
        return mosaic is not None and self._identity(mosaic, shape)

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
        mosaic = resolve(self.network, node.all_input_nodes[0])
        if mosaic is None or mosaic.flat or module.groups != 1 or isinstance(module.padding, str):
            return False
        if module.padding_mode != "zeros" or module.stride[0] != module.stride[1]:
            return False
        if any(p.overlapping for p in mosaic.parts) and any(module.padding):
            return False
        weight = module.weight.detach()[self.outputs].double().numpy()
        for part in mosaic.parts:
            limit = (mosaic.height * part.stride, mosaic.width * part.stride)
            if part.overlapping:  # no padding here: a window's last row may lie beyond whole strides
                limit = (1 << 30, 1 << 30)
            for ky in range(weight.shape[2]):
                for kx in range(weight.shape[3]):
                    block = weight[:, part.at : part.at + part.channels, ky, kx].T * part.inner[0][2]
                    row = self._add_rows(part, block)
                    y0 = (ky * module.dilation[0] - module.padding[0]) * part.stride
                    x0 = (kx * module.dilation[1] - module.padding[1]) * part.stride
                    for dy, dx, _ in part.inner:
                        self._tap(part, y0 + dy, x0 + dx, module.stride[0] * part.stride, limit, row)
        if module.bias is not None:
            self.bias = self.bias + module.bias.detach()[self.outputs].double().numpy()
        return True

    def _linear(self, node: fx.Node, module: nn.Linear) -> bool:
        mosaic = resolve(self.network, node.all_input_nodes[0])
        if mosaic is None or len(self.network.shapes[node.all_input_nodes[0].name]) != 1:  # it acts on the last axis
            return False
        pixels = mosaic.height * mosaic.width
        if pixels > 1 and pixels * mosaic.channels != module.in_features:
            return False
        weight = module.weight.detach()[self.outputs].double().numpy().T.reshape(mosaic.channels, pixels, -1)
        for part in mosaic.parts:
            for pixel in range(pixels):
                y, x = divmod(pixel, mosaic.width)
                row = self._add_rows(part, weight[part.at : part.at + part.channels, pixel] * part.inner[0][2])
                for dy, dx, _ in part.inner:
                    self._tap(part, y * part.stride + dy, x * part.stride + dx, 1, (1 << 30, 1 << 30), row)
        if module.bias is not None:
            self.bias = self.bias + module.bias.detach()[self.outputs].double().numpy()
        return True

    def _identity(self, mosaic: Mosaic, shape: tuple[int, ...]) -> bool:
        if mosaic.flat and mosaic.height * mosaic.width > 1:
            return False
        eye = np.eye(shape[0])[:, self.outputs]
        for part in mosaic.parts:
            row = self._add_rows(part, eye[part.at : part.at + part.channels] * part.inner[0][2])
            limit = (mosaic.height * part.stride, mosaic.width * part.stride)
            if part.overlapping:
                limit = (1 << 30, 1 << 30)
            for dy, dx, _ in part.inner:
                self._tap(part, dy, dx, part.stride, limit, row)
        return True

    def finish(self, shape: tuple[int, ...]) -> Segment | None:
        height, width = (shape[1], shape[2]) if len(shape) == 3 else (1, 1)
        channels = len(np.arange(shape[0])[self.outputs])
        bias = np.broadcast_to(np.asarray(self.bias, np.float64), (channels,)).copy()
        if not self.taps:
            rows = np.zeros((0, channels))
            empty = np.zeros(0, np.int64)
            taps = np.zeros((0, 10), np.int64)
            return Segment((), (), taps, rows, empty, empty, empty, bias, tuple(self.static), channels, height, width)
        taps = np.array(self.taps, np.int64)
        sizes = [bytes_per_step(self.network.shapes[source]) for source in self.sources]
        taps[:, OFFSET] = np.concatenate([[0], np.cumsum(sizes)[:-1]])[taps[:, SOURCE]]
        return Segment(
            tuple(self.sources),
            tuple(sizes),
            taps,
            np.concatenate(self.rows),
            np.concatenate(self.row_source),
            np.concatenate(self.row_channel),
            np.concatenate(self.uses),
            bias,
            tuple(self.static),
            channels,
            height,
            width,
        )


def build_segment(
    network: Network, node: fx.Node, dynamic: frozenset[str], outputs: Any = slice(None)
) -> Segment | None:
    """Write a node's value as taps of spike trains; None if it cannot be.

    dynamic: names of the nodes that depend on a site, whose value changes in time; outputs: an index of the output
    channels to write (all).
    """
    shape = network.shapes[node.name]
    if len(shape) not in (1, 3):
        return None
    builder = _Builder(network, dynamic, outputs)
    return builder.finish(shape) if builder.add_expression(node, shape) else None
