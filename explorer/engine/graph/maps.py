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
        elif axes == 4 and (
            (name == "amax" and _over_map(node)) or (name == "adaptive_max_pool2d" and shape[1:] == (1, 1))
        ):
            _pool_of_all(module.graph, node, source)


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


def _pool_of_all(graph: fx.Graph, node: fx.Node, source: fx.Node) -> None:
    """Write a maximum over whole maps as the max pool that it is."""
    shape = source.meta["shape"]
    with graph.inserting_before(node):
        pool = graph.call_function(F.max_pool2d, (source, tuple(shape[2:])))
        value = graph.call_method("reshape", (pool, (-1, *node.meta["shape"][1:])))
    pool.meta["shape"] = (*shape[:2], 1, 1)
    value.meta.update(node.meta)
    node.replace_all_uses_with(value)
    graph.erase_node(node)


def _over_map(node: fx.Node) -> bool:
    dims: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", ())
    return isinstance(dims, tuple | list) and sorted(d % 4 for d in dims) == [2, 3]
