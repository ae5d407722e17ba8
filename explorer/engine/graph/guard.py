"""The guard: what a traced network is taken for is put to the test at every load, on random values.

A spiking network needs that what lies between sites is affine in time and acts on each image alone. The tables in
`operations.py` say so by name; here it is measured, call by call, on values drawn for the sites:
* an affine map of the mean of two inputs is the mean of its values at the two;
* a call's value for an image does not depend on the images beside it;
* what comes from a site is floating point;
* what the exact path sums up as taps is what the calls themselves give.
A call that fails is reported like one without a rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from explorer.engine.compile.plan import StepKind, plan_for
from explorer.engine.compile.segment import DX, DY, HEIGHT, ROW, SOURCE, STRIDE, WIDTH, Segment, build_segment
from explorer.engine.compile.values import attribute, call
from explorer.engine.errors import TraceError
from explorer.engine.graph.network import Network, Unsupported

# float32 sums of thousands of terms are off by some 1e-6 of the largest; whatever looks worse is judged in float64.
TOLERANCE, TOLERANCE_DOUBLE = 1e-4, 1e-9
PATH_TOLERANCE = 1e-3
CHANNELS = 16  # of a layer whose paths are compared: their taps are the same for all, and large layers stay small
# Rows of the batch: two inputs and their mean, for one image; between them another image with another input, which is
# also computed alone. It is neither the first nor the last, so that what takes those shows.
A, OTHER, B, MEAN = range(4)


@dataclass(eq=False)
class _Walk:
    """One pass through the graph with four rows and, beside it, with one of them alone."""

    network: Network
    images: Tensor
    double: bool
    whole: dict[fx.Node, Any] = field(default_factory=dict)
    alone: dict[fx.Node, Any] = field(default_factory=dict)
    dynamic: set[fx.Node] = field(default_factory=set)
    kept: dict[str, Tensor] = field(default_factory=dict)

    def run(self) -> Iterator[tuple[fx.Node, Any, Any]]:
        """Yield every node with its two values, in order; a value is forgotten after its last use."""
        generator = torch.Generator().manual_seed(0)
        last = {source: node for node in self.network.graph_module.graph.nodes for source in node.all_input_nodes}
        for node in self.network.graph_module.graph.nodes:
            if node.op == "output":
                return
            whole, alone = self._values(node)
            kind = self.network.kinds[node.name]
            if kind == "site" or (kind == "max_pool" and self._behind_a_site(node)):
                self.dynamic.add(node)
                whole = self._drawn(whole, generator)
                alone = whole[OTHER : OTHER + 1]
            elif self._behind_a_site(node):
                self.dynamic.add(node)
            self.whole[node], self.alone[node] = whole, alone
            yield node, whole, alone
            for source in node.all_input_nodes:
                if last[source] is node:
                    del self.whole[source], self.alone[source]

    def _behind_a_site(self, node: fx.Node) -> bool:
        return any(source in self.dynamic for source in node.all_input_nodes)

    def _values(self, node: fx.Node) -> tuple[Any, Any]:
        if node.op == "placeholder":
            images = self.images.double() if self.double else self.images
            return images[[0, 1, 0, 0]], images[1:]
        if node.op == "get_attr":
            value = attribute(self.network, node)
            value = value.double() if self.double and value.is_floating_point() else value
            return value, value
        values = []
        for known, number in ((self.whole, "four images"), (self.alone, "one image")):
            args, kwargs = fx.map_arg((node.args, node.kwargs), known.__getitem__)
            try:
                values.append(call(self.network, node, args, kwargs, self.double))
            except Exception as error:
                raise TraceError(
                    f"{where(node)}: fails on {number} ({str(error).splitlines()[0][:200]}). Write the network for any "
                    "number of images."
                ) from error
        return values[0], values[1]

    def _drawn(self, value: Tensor, generator: torch.Generator) -> Tensor:
        """Return random activations of a site's shape and size: some are zero, and b's are larger than a's."""
        top = float(value[OTHER].abs().max())
        drawn = torch.rand(value.shape, generator=generator, dtype=value.dtype) * (top if 0 < top < 1e30 else 1.0)
        drawn *= torch.rand(value.shape, generator=generator) > 0.3
        drawn[B] *= 3
        drawn[MEAN] = (drawn[A] + drawn[B]) / 2
        return drawn


def check_steps(network: Network, example: Tensor) -> Unsupported | None:
    """Return the first call that is not what it is taken for, or None.

    example: one input [1, C, H, W].
    """
    fault = _check(network, example, double=False)
    return None if fault is None else _check(network, example, double=True)


@torch.no_grad()
def _check(network: Network, example: Tensor, double: bool) -> Unsupported | None:
    generator = torch.Generator().manual_seed(1)
    spread = max(float(example.std()), 0.1)
    noise = torch.randn(2, *example.shape[1:], generator=generator) * spread + example.mean()
    walk = _Walk(network, noise, double)
    segments = _segments(network)
    wanted = {name for value, segment in segments for name in (value.name, *segment.sources, *segment.static)}
    for node, whole, alone in walk.run():
        if fault := _judge(network, node, whole, alone, node in walk.dynamic, double):
            return fault
        if node.name in wanted:
            walk.kept[node.name] = whole[A]
    for value, segment in segments:
        if fault := _compare_paths(network, segment, value, walk.kept):
            return fault
    return None


def _segments(network: Network) -> list[tuple[fx.Node, Segment]]:
    """Return the values that the exact path computes, as taps to some of their channels."""
    plan, found = plan_for(network, integer=False), []
    for step in plan.steps:
        if step.kind is not StepKind.MAX_POOL:
            outputs = _channels(network.shapes[step.value.name])
            segment = build_segment(network, step.value, plan.dynamic, outputs)
            if segment is not None and segment.sources:
                found.append((step.value, segment))
    return found


def _channels(shape: tuple[int, ...]) -> np.ndarray:
    return np.unique(np.linspace(0, shape[0] - 1, CHANNELS).astype(int))


def label(node: fx.Node) -> str:
    """Return the name of a call, which a site bears: its module's, or its own."""
    return str(node.target) if node.op == "call_module" else node.meta.get("place") or node.name


def where(node: fx.Node) -> str:
    """Return a call's name with the module that it stands in."""
    inside = node.meta.get("inside")
    return f"{inside}.{node.name}" if inside and label(node) == node.name else label(node)


def _judge(network: Network, node: fx.Node, whole: Any, alone: Any, dynamic: bool, double: bool) -> Unsupported | None:
    kind, name, place = network.kinds[node.name], network.names[node.name], where(node)
    if kind in ("constant", "input"):
        return None
    for many, one in zip(_tensors(whole), _tensors(alone), strict=False):
        if dynamic and not many.is_floating_point():
            return Unsupported(
                place,
                f"{name} gives {str(many.dtype).removeprefix('torch.')} where the values of neurons are needed.",
                "Rounding and comparing have no counterpart in time; leave it out, or use a rectifier, and fine-tune.",
            )
        axes = [i for i, (m, o) in enumerate(zip(many.shape, one.shape, strict=False)) if (m, o) != (o, o) or m == 0]
        if many.ndim != one.ndim or len(axes) > 1 or (kind in ("site", "max_pool") and axes != [0]):
            return _mixing(place, name)
        if not axes:
            if dynamic or not torch.equal(many, one):  # what is the same for all images must not depend on them
                return _mixing(place, name)
            continue
        if (many.shape[axes[0]], one.shape[axes[0]]) != (4, 1):
            continue  # images side by side with parts of themselves: judged where they are apart again
        rows, single = (_real(value.movedim(axes[0], 0)) for value in (many, one))
        if not rows.numel():
            continue
        scale = float(rows.abs().max())
        if not scale < float("inf"):
            # A border of minus infinity, for a max pool, is what it is; numbers that are none are a fault.
            if not torch.equal(rows[OTHER].isfinite(), single[0].isfinite()) or bool(rows.isnan().any()):
                return _mixing(place, name)
            finite = rows.isfinite().all(0)
            rows, single = rows.where(finite, 0.0), single.where(finite, 0.0)
            scale = float(rows.abs().max())
        limit = max(scale, 1e-30) * (TOLERANCE_DOUBLE if double else TOLERANCE)
        if not float((rows[OTHER] - single[0]).abs_().max()) <= limit:
            return _mixing(place, name)
        if kind != "affine" or not dynamic:
            continue
        off = float((rows[A] + rows[B]).mul_(0.5).sub_(rows[MEAN]).abs_().max())
        if not off <= limit:
            return Unsupported(
                place,
                f"{name} is not affine: its value at the mean of two inputs is off the mean of its two values by "
                f"{off / scale:.1e} of the largest.",
                "Leave it out, or replace it by a rectifier or an affine layer, and fine-tune.",
            )
    return None


def _real(value: Tensor) -> Tensor:
    """Return a value as real numbers: what depends on the image alone may be of any type."""
    if value.is_complex():
        return torch.view_as_real(value.resolve_conj())
    return value if value.is_floating_point() else value.double()


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [item for item in value if isinstance(item, Tensor)] if isinstance(value, tuple | list) else []


def _mixing(place: str, name: str) -> Unsupported:
    return Unsupported(
        place,
        f"{name} mixes the images of a batch: what it gives for one depends on those beside it.",
        "Take sums, means and statistics over channels and pixels only, and keep one row for each image.",
    )


def _compare_paths(network: Network, segment: Segment, value: fx.Node, kept: dict[str, Tensor]) -> Unsupported | None:
    """Compare a segment's taps with its calls at some pixels of some channels."""
    shape = network.shapes[value.name]

    def some(name: str) -> np.ndarray:
        whole = kept[name].double().expand(shape).reshape(shape[0], segment.height, segment.width)
        return whole[_channels(shape)].numpy()[:, y, x].T

    ys, xs = _places(segment.height), _places(segment.width)
    y, x = (grid.reshape(-1) for grid in np.meshgrid(ys, xs, indexing="ij"))
    expected = some(value.name)
    found = sum_of_taps(segment, {name: kept[name].double().numpy() for name in segment.sources}, y, x)
    for name in segment.static:
        found += some(name)
    scale = max(float(kept[value.name].abs().max()), 1e-30)
    if np.abs(found - expected).max() <= PATH_TOLERANCE * scale:
        return None
    return Unsupported(
        where(value),
        f"the exact sum over spikes is not what {network.names[value.name]} gives.",
        "This is a fault of the explorer, not of the network: please report the network.",
    )


def _places(size: int) -> np.ndarray:
    """Return where along a side the paths are compared: both ends, what is next to them, and the middle."""
    return np.unique(np.clip([0, 1, size // 2, size - 2, size - 1], 0, size - 1))


def sum_of_taps(segment: Segment, values: dict[str, np.ndarray], y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return a segment's taps summed up at output pixels (y, x), with its bias: float64 [pixels, C].

    values: per source, float64 [C, H, W] or [C]. The slow reading of what the kernels do: for every tap, read source
    pixel (y stride + dy, x stride + dx) if it lies within the tap's limits, times the weight rows from its first on.
    """
    total = np.broadcast_to(segment.bias, (len(y), segment.channels)).copy()
    maps = [values[name].reshape(len(values[name]), *values[name].shape[1:] or (1, 1)) for name in segment.sources]
    stored = np.concatenate([np.unique(segment.taps[:, ROW]), [len(segment.rows)]])
    for tap in segment.taps:
        source = maps[tap[SOURCE]]
        first = tap[ROW]
        end = stored[np.searchsorted(stored, first) + 1]
        sy, sx = y * tap[STRIDE] + tap[DY], x * tap[STRIDE] + tap[DX]
        inside = (sy >= 0) & (sy < tap[HEIGHT]) & (sx >= 0) & (sx < tap[WIDTH])
        channels = segment.row_channel[first:end]
        total[inside] += source[channels][:, sy[inside], sx[inside]].T @ segment.rows[first:end]
    return total
