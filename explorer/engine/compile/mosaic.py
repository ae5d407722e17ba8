"""Values as spike sources side by side: what a convolution sees through pools, slices, pads and concatenations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import fx

from explorer.engine.graph import Network
from explorer.engine.graph.operations import NO_OPS


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
class Mosaic:
    """A value made of spike sources side by side; `flat` once its pixels have become features."""

    parts: tuple[Part, ...]
    height: int
    width: int
    channels: int
    flat: bool = False


def resolve(network: Network, node: Any) -> Mosaic | None:
    """Write a value as spike sources side by side, pooled or sliced; None if it is something else."""
    if not isinstance(node, fx.Node):
        return None
    kind, name, shape = network.kinds[node.name], network.names[node.name], network.shapes[node.name]
    if kind == "site" or (kind == "max_pool" and spiking_pool(network, node)):
        if len(shape) not in (1, 3):
            return None
        height, width = (shape[1], shape[2]) if len(shape) == 3 else (1, 1)
        return Mosaic((Part(node.name, 0, shape[0], ((0, 0, 1.0),), 1),), height, width, shape[0])
    if kind != "affine":
        return None
    if name in ("cat", "concat", "concatenate"):
        return _side_by_side(network, node)
    mosaic = resolve(network, node.args[0]) if node.args else None
    if mosaic is None:
        return None
    if name in NO_OPS:
        return mosaic
    module = network.modules.get(str(node.target)) if node.op == "call_module" else None
    if name in ("flatten", "view", "reshape", "squeeze") and len(shape) == 1:
        return replace(mosaic, flat=True)
    if mosaic.flat:
        return None
    match name:
        case "avg_pool2d":
            return _average_pool(mosaic, node, module, shape)
        case "adaptive_avg_pool2d" | "mean" if len(shape) in (1, 3):
            height, width = (shape[1], shape[2]) if len(shape) == 3 else (1, 1)
            if name == "mean" and not _over_space(node):
                return None
            return _pool(mosaic, height, width, mosaic.height // height, mosaic.width // width, exact=True)
        case "getitem":
            return _strided(mosaic, node, shape)
        case "pad":
            return _channel_pad(mosaic, node, shape)
    return None


def spiking_pool(network: Network, node: fx.Node) -> bool:
    """Tell whether a max pool sees one source's spikes as they are, so that its own output is spikes."""
    mosaic = resolve(network, node.all_input_nodes[0])
    return (
        mosaic is not None
        and not mosaic.flat
        and len(mosaic.parts) == 1
        and mosaic.parts[0].inner == ((0, 0, 1.0),)
        and (mosaic.parts[0].stride == 1 and mosaic.parts[0].at == 0 and mosaic.parts[0].channels == mosaic.channels)
    )


def _side_by_side(network: Network, node: fx.Node) -> Mosaic | None:
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("axis", 0))
    if dim not in (1, -3) or not isinstance(node.args[0], list | tuple):
        return None
    mosaics = [resolve(network, item) for item in node.args[0]]
    parts: list[Part] = []
    at = 0
    for mosaic in mosaics:
        if mosaic is None or mosaic.flat or (mosaic.height, mosaic.width) != (mosaics[0].height, mosaics[0].width):  # type: ignore[union-attr]
            return None
        parts += [replace(p, at=at + p.at) for p in mosaic.parts]
        at += mosaic.channels
    first = mosaics[0]
    return None if first is None else Mosaic(tuple(parts), first.height, first.width, at)


def _pool(
    mosaic: Mosaic, height: int, width: int, ky: int, kx: int, stride: int = 0, exact: bool = False
) -> Mosaic | None:
    if exact and (height * ky != mosaic.height or width * kx != mosaic.width):
        return None
    step = stride or ky
    if not stride and ky != kx and (height, width) != (1, 1):
        return None
    parts = []
    for p in mosaic.parts:
        inner = tuple(
            (dy + p.stride * i, dx + p.stride * j, w / (ky * kx))
            for i in range(ky)
            for j in range(kx)
            for dy, dx, w in p.inner
        )
        overlapping = p.overlapping or step < max(ky, kx)
        parts.append(replace(p, inner=inner, stride=p.stride * step, overlapping=overlapping))
    return Mosaic(tuple(parts), height, width, mosaic.channels)


def _average_pool(mosaic: Mosaic, node: fx.Node, module: Any, shape: tuple[int, ...]) -> Mosaic | None:
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
    return _pool(mosaic, shape[1], shape[2], kernel, kernel, stride)


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


def _strided(mosaic: Mosaic, node: fx.Node, shape: tuple[int, ...]) -> Mosaic | None:
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
    parts = tuple(replace(p, stride=p.stride * step, overlapping=p.overlapping or step > 1) for p in mosaic.parts)
    return Mosaic(parts, shape[1], shape[2], mosaic.channels)


def _channel_pad(mosaic: Mosaic, node: fx.Node, shape: tuple[int, ...]) -> Mosaic | None:
    given: dict[str, Any] = dict(zip(("input", "pad", "mode", "value"), node.args, strict=False)) | dict(node.kwargs)
    pad = list(given["pad"])
    if given.get("mode", "constant") != "constant" or given.get("value") not in (None, 0, 0.0):
        return None
    if len(pad) != 6 or any(pad[:4]) or min(pad[4:]) < 0:
        return None
    parts = tuple(replace(p, at=p.at + pad[4]) for p in mosaic.parts)
    return Mosaic(parts, mosaic.height, mosaic.width, shape[0])
