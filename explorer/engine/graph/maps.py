"""Sites and max pools in the two shapes that neurons have, C and C x H x W: sequences and volumes are reshaped."""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from torch import fx, nn

from explorer.engine.graph.operations import canonical_name, rectifier_cap
from explorer.engine.graph.rewrite import pair

POOL_OPTIONS = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")


def lift_flat_maps(module: fx.GraphModule) -> None:
    """Reshape before rectifiers and max pools of other shapes, and back behind; write maxima over maps as max pools."""
    modules = dict(module.named_modules())
    for node in list(module.graph.nodes):
        if node.op not in ("call_module", "call_function", "call_method") or not node.meta.get("shape"):
            continue
        name, shape = canonical_name(node, modules), tuple(node.meta["shape"][1:])
        source: Any = node.args[0] if node.args else None
        axes = len(source.meta.get("shape") or ()) if isinstance(source, fx.Node) else 0
        if axes not in (0, 2, 4) and len(shape) == axes - 1 and rectifier_cap(node, name, modules)[0]:
            _reshaped(module.graph, node)
        elif name == "max_pool1d" and axes == 3:
            _reshaped(module.graph, _flat_pool(module.graph, node, modules))
        elif name == "adaptive_max_pool2d" and axes == 4 and shape[1:] == (1, 1):
            _pool_over(module.graph, source, (2, 3), node)
        elif name == "amax" and (dims := _dims(node, axes)):
            _pool_over(module.graph, source, dims, node)
    for node in list(module.graph.nodes):
        if node.op in ("call_function", "call_method") and canonical_name(node, modules) == "max" and node.args:
            source = node.args[0]
            dims = _dims(node, len(source.meta.get("shape") or ())) if isinstance(source, fx.Node) else ()
            values = [user for user in node.users if user.args[1:] == (0,)]
            if dims and len(values) == len(node.users) == 1:  # the places of the maxima are not asked for
                _pool_over(module.graph, source, dims, values[0])
                module.graph.erase_node(node)


def _reshaped(graph: fx.Graph, node: fx.Node) -> None:
    """Reshape a node's operand to C x H x W, and its value back."""
    source: Any = node.args[0]
    sizes = source.meta["shape"][1:]
    flat = (-1, sizes[0], math.prod(sizes[1:-1]), sizes[-1]) if sizes else (-1, 1)
    operand = source.meta.get("map")  # the site that was reshaped back, so that a pool finds its spikes
    if operand is None:
        with graph.inserting_before(node):
            operand = graph.call_method("reshape", (source, flat))
    node.args = (operand, *node.args[1:])
    with graph.inserting_after(node):
        back = graph.call_method("reshape", (node, (-1, *node.meta["shape"][1:])))
    node.replace_all_uses_with(back, delete_user_cb=lambda user: user is not back)
    back.meta.update(node.meta, map=node)


def _flat_pool(graph: fx.Graph, node: fx.Node, modules: dict[str, nn.Module]) -> fx.Node:
    """Put a max pool over maps of height 1 in place of one over sequences."""
    if node.op == "call_module":
        layer = modules[str(node.target)]
        given: dict[str, Any] = {name: getattr(layer, name) for name in POOL_OPTIONS}
    else:
        given = dict(zip(POOL_OPTIONS, node.args[1:], strict=False)) | dict(node.kwargs)
    size, stride = given["kernel_size"], given.get("stride") or given["kernel_size"]
    padding, dilation = given.get("padding", 0), given.get("dilation", 1)
    options = [
        (*fill, *pair(value, 1)) for fill, value in (((1,), size), ((1,), stride), ((0,), padding), ((1,), dilation))
    ]
    with graph.inserting_before(node):
        pool = graph.call_function(F.max_pool2d, (node.args[0], *options, bool(given.get("ceil_mode", False))))
    pool.meta.update(node.meta)
    node.replace_all_uses_with(pool)
    graph.erase_node(node)
    return pool


def _pool_over(graph: fx.Graph, source: fx.Node, dims: tuple[int, ...], node: fx.Node) -> None:
    """Write a maximum over whole axes of maps or sequences as the max pool that it is."""
    shape = tuple(source.meta["shape"])
    size = tuple(shape[i] if i in dims else 1 for i in range(2, len(shape)))
    with graph.inserting_before(node):
        if len(shape) == 3:
            source = source.meta.get("map") or graph.call_method("reshape", (source, (-1, shape[1], 1, shape[2])))
            size = (1, *size)
        pool = graph.call_function(F.max_pool2d, (source, size))
        value = graph.call_method("reshape", (pool, (-1, *node.meta["shape"][1:])))
    value.meta.update(node.meta)
    pool.meta["shape"] = (shape[0], shape[1], 1, 1)
    node.replace_all_uses_with(value)
    graph.erase_node(node)


def _dims(node: fx.Node, axes: int) -> tuple[int, ...]:
    """Return the axes that a maximum is taken over; () unless they are axes of maps or sequences."""
    given: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", ())
    given = (given,) if isinstance(given, int) else given
    if axes not in (3, 4) or not isinstance(given, tuple | list) or not all(isinstance(d, int) for d in given):
        return ()
    dims = tuple(sorted(d % axes for d in given))
    return dims if dims and dims[0] >= 2 else ()
