"""Rewrites of a traced graph that change its form, not its scores."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from explorer.engine.errors import TraceError
from explorer.engine.operations import MAX_POOL, PLAIN_FORMS, PLAIN_METHODS, canonical_name, rectifier_cap


def normalise(module: fx.GraphModule) -> None:
    """Turn in-place calls into plain ones, and functional layers with fixed weights into modules."""
    modules = dict(module.named_modules())
    nodes = list(module.graph.nodes)
    position = {node: i for i, node in enumerate(nodes)}
    for node in nodes:
        if _writes_operand(node, modules) and node.args and isinstance(node.args[0], fx.Node):
            later = [user for user in node.args[0].users if position[user] > position[node]]
            for user in later:
                user.replace_input_with(node.args[0], node)
    for node in nodes:
        if node.op == "call_function":
            node.target = PLAIN_FORMS.get(node.target, node.target)
        elif node.op == "call_method":
            node.target = PLAIN_METHODS.get(node.target, node.target)
        elif node.op == "call_module" and getattr(modules.get(node.target), "inplace", False):
            modules[node.target].inplace = False
        if node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
        if node.op == "call_function":
            _functional_layer(module, node, canonical_name(node, modules))
    module.recompile()


def _writes_operand(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Tell whether a call changes its first operand in place."""
    if node.kwargs.get("inplace"):
        return True
    if node.op == "call_module":
        return bool(getattr(modules.get(str(node.target)), "inplace", False))
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
    if isinstance(node.target, torch._ops.OpOverload):
        name = node.target._schema.name
    return name in ("iadd", "isub", "imul", "itruediv") or (name.endswith("_") and not name.endswith("__"))


def fold_sizes(module: fx.GraphModule) -> None:
    """Replace sizes of channels and pixels, which the example fixes, by their numbers; the batch stays open."""
    modules = dict(module.named_modules())
    for node in list(module.graph.nodes):
        name = canonical_name(node, modules) if node.op in ("call_function", "call_method") else ""
        index = node.args[1] if len(node.args) > 1 else None
        if name == "getitem" and isinstance(index, int) and isinstance(node.args[0], fx.Node):
            size = node.args[0]
            whole = size.op in ("call_function", "call_method") and len(size.args) == 1 + (size.op == "call_function")
            if not whole or canonical_name(size, modules) not in ("size", "getattr"):
                continue
            source = size.args[0]
        elif name in ("size", "sym_size") and isinstance(index, int):
            source = node.args[0]
        else:
            continue
        meta = source.meta.get("tensor_meta") if isinstance(source, fx.Node) else None
        if meta is None or not hasattr(meta, "shape") or index % len(meta.shape) == 0:
            continue
        number = int(meta.shape[index])
        for user in list(node.users):
            swap = partial(_swapped, old=node, new=number)
            user.args, user.kwargs = fx.map_arg((user.args, user.kwargs), swap)
        module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.recompile()


def _swapped(node: fx.Node, old: fx.Node, new: int) -> Any:
    return new if node is old else node


def _functional_layer(module: fx.GraphModule, node: fx.Node, name: str) -> None:
    """Replace F.conv2d, F.linear and F.batch_norm on stored tensors by the module that does the same."""
    fields = {
        "conv2d": ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
        "linear": ("input", "weight", "bias"),
        "batch_norm": ("input", "running_mean", "running_var", "weight", "bias"),
    }.get(name)
    if fields is None:
        return
    is_aten = isinstance(node.target, torch._ops.OpOverload)
    if name == "batch_norm" and is_aten:
        fields = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps")
    given = dict(zip(fields, node.args, strict=False)) | dict(node.kwargs)
    tensors = {}
    for key in ("weight", "bias", "running_mean", "running_var"):
        value = given.get(key)
        if isinstance(value, fx.Node):
            if value.op != "get_attr":
                return
            tensors[key] = _attribute(module, str(value.target))
    layer = _layer(name, given, tensors)
    if layer is None:
        return
    target = f"layer_{node.name}"
    module.add_module(target, layer.eval().requires_grad_(False))
    with module.graph.inserting_before(node):
        replacement = module.graph.call_module(target, (given["input"],))
    node.replace_all_uses_with(replacement)
    module.graph.erase_node(node)


def _layer(name: str, given: dict[str, Any], tensors: dict[str, Tensor]) -> nn.Module | None:
    weight, bias = tensors.get("weight"), tensors.get("bias")
    if name == "batch_norm":
        mean, variance = tensors.get("running_mean"), tensors.get("running_var")
        if mean is None or variance is None:
            return None
        layer: Any = nn.BatchNorm2d(len(mean), eps=float(given.get("eps", 1e-5)))
        layer.running_mean, layer.running_var = mean.clone(), variance.clone()
    elif weight is None:
        return None
    elif name == "linear":
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    else:
        groups = int(given.get("groups", 1))
        layer = nn.Conv2d(
            weight.shape[1] * groups,
            weight.shape[0],
            _pair(list(weight.shape[2:])),
            stride=_pair(given.get("stride", 1)),
            padding=_pair(given.get("padding", 0)),
            dilation=_pair(given.get("dilation", 1)),
            groups=groups,
            bias=bias is not None,
        )
    if weight is not None:
        layer.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer


def _pair(value: Any) -> Any:
    if isinstance(value, str):
        return value
    pair = tuple(value) if isinstance(value, list | tuple) else (value,)
    return pair * 2 if len(pair) == 1 else pair


def _attribute(module: nn.Module, path: str) -> Tensor:
    value: Any = module
    for part in path.split("."):
        value = getattr(value, part)
    return value


def fold_batch_norm(module: fx.GraphModule) -> dict[str, str]:
    """Fold every batch norm into the layer before it, where that layer feeds nothing else."""
    modules, notes = dict(module.named_modules()), {}
    for node in list(module.graph.nodes):
        if node.op != "call_module" or canonical_name(node, modules) != "batch_norm":
            continue
        before = node.args[0]
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
            continue
        layer, norm = modules[str(before.target)], modules[str(node.target)]
        if norm.running_mean is None:
            raise TraceError(
                f"{node.target}: batch norm without running statistics. Train or load a network with them."
            )
        used = sum(n.op == "call_module" and n.target == before.target for n in module.graph.nodes)
        if isinstance(layer, nn.Conv1d | nn.Conv2d):
            fused: nn.Module = fuse_conv_bn_eval(copy.deepcopy(layer).double(), copy.deepcopy(norm).double()).float()
        elif isinstance(layer, nn.Linear):
            fused = fuse_linear_bn_eval(copy.deepcopy(layer).double(), copy.deepcopy(norm).double()).float()
        else:
            continue
        name = f"{before.target}_folded".replace(".", "_") + (f"_{node.name}" if used > 1 else "")
        module.add_module(name, fused.requires_grad_(False))
        notes[before.name] = f"{node.target} folded into {before.target}"
        before.target = name
        node.replace_all_uses_with(before)
        module.graph.erase_node(node)
        modules = dict(module.named_modules())
    module.delete_all_unused_submodules()
    return notes


def rectify_before_pooling(module: fx.GraphModule) -> dict[str, str]:
    """Swap relu(maxpool(x)) to maxpool(relu(x)), which is the same, so that the pool sees spikes."""
    notes: dict[str, str] = {}
    for node in list(module.graph.nodes):
        modules = dict(module.named_modules())
        if node.op not in ("call_module", "call_function", "call_method"):
            continue
        if not rectifier_cap(node, canonical_name(node, modules), modules)[0]:
            continue
        pool = node.args[0]
        if not isinstance(pool, fx.Node) or pool.op not in ("call_module", "call_function") or len(pool.users) != 1:
            continue
        if canonical_name(pool, modules) != MAX_POOL or not isinstance(pool.args[0], fx.Node):
            continue
        source = pool.args[0]
        node.replace_all_uses_with(pool)
        node.args = (source, *node.args[1:])
        pool.prepend(node)
        pool.args = (node, *pool.args[1:])
        notes[pool.name] = "taken after the rectifier, which gives the same"
    return notes
