"""Rectifiers with an upper bound, in the ways people write them, as one call each.

    clip(x, 0, c) = min(relu(x), c) = relu(min(x, c)) = relu(x) - relu(x - c) = c - relu(c - relu(x))

A bound that the network stores (a parameter or a buffer) is the network's own clip, trained with it: the call becomes a
trainable clip. One bound a channel becomes a clip at 1 between a division and a product.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from explorer.engine.graph.clip import TrainableClip
from explorer.engine.graph.operations import canonical_name, rectifier_cap
from explorer.engine.graph.rewrite import attribute


def merge_clips(module: fx.GraphModule) -> None:
    """Write every bounded rectifier as one call."""
    for node in list(module.graph.nodes):
        if node.op in ("call_module", "call_function", "call_method") and node.users:
            _numbers_for_scalars(module, node)
    for node in list(module.graph.nodes):
        if node.op in ("call_module", "call_function", "call_method") and node.users:
            _merge(module, node)
    module.graph.eliminate_dead_code()


def _merge(module: fx.GraphModule, node: fx.Node) -> None:
    name = _name(module, node)
    if name in ("clamp", "clip", "clamp_min") and _is_zero(_bound(module, node, 1, "min")):
        bound = _bound(module, node, 2, "max") if name != "clamp_min" else None
        if isinstance(bound, Tensor):
            _replace(module, node, node, node.args[0], bound)
        return
    if name in ("maximum", "max") and len(node.args) == 2:
        source, bound = _with_constant(module, node)
        if source is not None and _is_zero(bound):
            with module.graph.inserting_before(node):
                call = module.graph.call_function(torch.relu, (source,))
            call.meta.update(node.meta)
            node.replace_all_uses_with(call)
            module.graph.erase_node(node)
        return
    source, bound = _upper(module, node, name)
    if source is not None and _is_rectifier(module, source) and len(source.users) == 1:
        _replace(module, source, node, source.args[0], bound)
        return
    if _is_rectifier(module, node) and isinstance(node.args[0], fx.Node) and len(node.args[0].users) == 1:
        source, bound = _upper(module, node.args[0], _name(module, node.args[0]))
        if source is not None:
            _replace(module, node, node, source, bound)
            return
    if name in ("sub", "rsub"):
        _merge_difference(module, node)


def _merge_difference(module: fx.GraphModule, node: fx.Node) -> None:
    """c - relu(c - relu(x)) and relu(x) - relu(x - c)."""
    left, right = _difference(module, node)
    if not (isinstance(right, fx.Node) and _is_rectifier(module, right) and len(right.users) == 1):
        return
    inner = right.args[0]
    if not isinstance(inner, fx.Node) or len(inner.users) != 1 or _name(module, inner) not in ("sub", "rsub"):
        return
    a, b = _difference(module, inner)
    first, second = _constant(module, left), _constant(module, a)
    if first is not None and second is not None and _equal(first, second):
        if isinstance(b, fx.Node) and _is_rectifier(module, b) and len(b.users) == 1:
            _replace(module, b, node, b.args[0], first)
        return
    bound = _constant(module, b)
    if bound is None or not isinstance(left, fx.Node) or not _is_rectifier(module, left):
        return
    if len(left.users) == 1 + (left is a) and a in (left, left.args[0]):
        _replace(module, left, node, left.args[0], bound)


def _replace(module: fx.GraphModule, named: fx.Node, last: fx.Node, source: Any, bound: Any) -> None:
    """Put clip(source, 0, bound) in place of `last`, under the name of the call `named`."""
    values = torch.as_tensor(bound, dtype=torch.float32).detach()
    per_channel = values.numel() > 1
    axes = last.meta.get("shape") or ()
    if not bool((values > 0).all()) or (per_channel and values.ndim == len(axes) and values.shape[0] != 1):
        return
    shared = named.op == "call_module" and sum(n.target == named.target for n in module.graph.nodes) > 1
    target = str(named.target) if named.op == "call_module" and not shared else named.name
    if named.op != "call_module" and hasattr(module, target):
        target = f"{target}_clip"
    top = 1.0 if per_channel else float(values)
    clip_layer = TrainableClip(top) if isinstance(bound, Tensor) else nn.Hardtanh(0.0, top)
    module.add_submodule(target, clip_layer.requires_grad_(False).eval())
    graph = module.graph
    with graph.inserting_before(last):
        scale = None
        if per_channel:
            module.register_buffer(f"_bound_{last.name}", values)
            scale = graph.get_attr(f"_bound_{last.name}")
            source = graph.call_function(torch.div, (source, scale))
            source.meta["shape"] = last.meta["shape"]
        clip = graph.call_module(target, (source,))
        value = clip if scale is None else graph.call_function(torch.mul, (clip, scale))
    for made in (clip, value):
        made.meta.update(last.meta)
    last.replace_all_uses_with(value)
    graph.eliminate_dead_code()


def _numbers_for_scalars(module: fx.GraphModule, node: fx.Node) -> None:
    """Put numbers for stored zeros that stand as lower bounds."""
    if _name(module, node) in ("clamp", "clip", "clamp_min") and _is_zero(_bound(module, node, 1, "min")):
        if len(node.args) > 1:
            node.args = (node.args[0], 0.0, *node.args[2:])
        else:
            node.kwargs = {**node.kwargs, "min": 0.0}


def _name(module: fx.GraphModule, node: fx.Node) -> str:
    if node.op == "call_module":
        return canonical_name(node, {str(node.target): module.get_submodule(str(node.target))})
    return canonical_name(node, {}) if node.op in ("call_function", "call_method") else ""


def _is_rectifier(module: fx.GraphModule, node: fx.Node) -> bool:
    if node.op not in ("call_module", "call_function", "call_method"):
        return False
    layers: dict[str, nn.Module] = {}
    if node.op == "call_module":
        layers[str(node.target)] = module.get_submodule(str(node.target))
    return rectifier_cap(node, _name(module, node), layers) == (True, None)


def _upper(module: fx.GraphModule, node: fx.Node, name: str) -> tuple[fx.Node | None, Any]:
    """Return x and c where a node is min(x, c)."""
    if name == "clamp_max" or (name in ("clamp", "clip") and _bound(module, node, 1, "min") is None):
        source = node.args[0] if node.args else None
        bound = _bound(module, node, 1 if name == "clamp_max" else 2, "max")
        return (source, bound) if isinstance(source, fx.Node) and bound is not None else (None, None)
    if name in ("minimum", "min") and len(node.args) == 2:
        return _with_constant(module, node)
    return None, None


def _with_constant(module: fx.GraphModule, node: fx.Node) -> tuple[fx.Node | None, Any]:
    for source, other in (node.args, node.args[::-1]):
        bound = _constant(module, other)
        if isinstance(source, fx.Node) and bound is not None and isinstance(other, fx.Node):
            return source, bound
    return None, None


def _difference(module: fx.GraphModule, node: fx.Node) -> tuple[Any, Any]:
    if len(node.args) != 2 or node.kwargs:
        return None, None
    left, right = node.args
    return (right, left) if _name(module, node) == "rsub" else (left, right)


def _bound(module: fx.GraphModule, node: fx.Node, place: int, key: str) -> Any:
    """Return a bound as a number or a stored tensor; None where there is none, NaN where it is neither."""
    value = node.args[place] if len(node.args) > place else node.kwargs.get(key)
    if value is None:
        return None
    constant = _constant(module, value)
    return float("nan") if constant is None else constant


def _constant(module: fx.GraphModule, value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if isinstance(value, fx.Node) and value.op == "get_attr":
        return attribute(module, str(value.target))
    return None


def _is_zero(value: Any) -> bool:
    return value is not None and bool((torch.as_tensor(value) == 0).all())


def _equal(a: Any, b: Any) -> bool:
    a, b = torch.as_tensor(a, dtype=torch.float32), torch.as_tensor(b, dtype=torch.float32)
    return a.shape == b.shape and torch.equal(a, b)
