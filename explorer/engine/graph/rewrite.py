"""Rewrites of a traced graph that change its form, not its scores."""

from __future__ import annotations

import copy
import types
from typing import Any

from torch import Tensor, fx, nn

from explorer.engine.graph.operations import MAX_POOL, PLAIN_FORMS, canonical_name, rectifier_cap


def normalise(module: fx.GraphModule) -> None:
    """Turn functional layers with fixed weights into modules, and calls with several spellings into one."""
    modules = dict(module.named_modules())
    for node in list(module.graph.nodes):
        if node.op == "call_module" and getattr(modules.get(node.target), "inplace", False):
            modules[node.target].inplace = False
        if node.op not in ("call_function", "call_method"):
            continue
        node.target = PLAIN_FORMS.get(node.target, node.target)
        name = canonical_name(node, modules)
        _functional_layer(module, node, name)
        if name == "squeeze" and len(node.args) == 1 and not node.kwargs:
            source: Any = node.args[0]
            sizes = zip(*source.meta["shapes"], strict=True)  # a batch of one must keep its axis
            node.args = (source, tuple(i for i, size in enumerate(sizes) if size == (1, 1)))


def _functional_layer(module: fx.GraphModule, node: fx.Node, name: str) -> None:
    """Replace F.conv2d, F.linear and F.batch_norm on stored tensors by the module that does the same."""
    fields = {
        "conv1d": ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
        "conv2d": ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
        "linear": ("input", "weight", "bias"),
        "batch_norm": ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    }.get(name)
    if fields is None:
        return
    # The native operators take them in another order.
    if name == "batch_norm" and not isinstance(node.target, types.FunctionType):
        fields = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps")
    given = dict(zip(fields, node.args, strict=False)) | dict(node.kwargs)
    tensors = {}
    for key in ("weight", "bias", "running_mean", "running_var"):
        value = given.get(key)
        if isinstance(value, fx.Node):
            if value.op != "get_attr":
                return
            tensors[key] = attribute(module, str(value.target))
    axes = len((given["input"].meta.get("shape") if isinstance(given["input"], fx.Node) else None) or ())
    layer = None if given.get("training") else _layer(name, given, tensors, axes)
    if layer is None:
        return
    target = node.meta.get("place") or f"layer_{node.name}"
    module.add_submodule(target, layer.eval().requires_grad_(False))
    with module.graph.inserting_before(node):
        replacement = module.graph.call_module(target, (given["input"],))
    replacement.meta.update(node.meta)
    node.replace_all_uses_with(replacement)
    module.graph.erase_node(node)


def _layer(name: str, given: dict[str, Any], tensors: dict[str, Tensor], axes: int) -> nn.Module | None:
    weight, bias = tensors.get("weight"), tensors.get("bias")
    if name == "batch_norm":
        mean, variance = tensors.get("running_mean"), tensors.get("running_var")
        if mean is None or variance is None:
            return None
        norms = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 5: nn.BatchNorm3d}
        layer: Any = norms.get(axes, nn.BatchNorm2d)(
            len(mean), eps=float(given.get("eps", 1e-5)), affine=weight is not None
        )
        layer.running_mean, layer.running_var = mean.clone(), variance.clone()
    elif weight is None:
        return None
    elif name == "linear":
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    else:
        groups = int(given.get("groups", 1))
        make, axes = (nn.Conv1d, 1) if name == "conv1d" else (nn.Conv2d, 2)
        layer = make(
            weight.shape[1] * groups,
            weight.shape[0],
            pair(list(weight.shape[2:]), axes),
            stride=pair(given.get("stride", 1), axes),
            padding=pair(given.get("padding", 0), axes),
            dilation=pair(given.get("dilation", 1), axes),
            groups=groups,
            bias=bias is not None,
        )
    if weight is not None:
        layer.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer


def pair(value: Any, axes: int = 2) -> Any:
    """Return an option of a layer with one number an axis."""
    if isinstance(value, str):
        return value
    pair = tuple(value) if isinstance(value, list | tuple) else (value,)
    return pair * axes if len(pair) == 1 else pair


def attribute(module: nn.Module, path: str) -> Tensor:
    """Return the tensor that a module stores under a dotted name."""
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
        used = sum(n.op == "call_module" and n.target == before.target for n in module.graph.nodes)
        if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear):
            continue
        if isinstance(layer, nn.Linear) and len(before.meta["shape"]) != 2:
            continue  # batch norm's channels are another axis than the layer's features
        fused = _fused(layer, norm)
        name = f"{before.target}_folded".replace(".", "_") + (f"_{node.name}" if used > 1 else "")
        module.add_module(name, fused.requires_grad_(False))
        notes[before.name] = f"{node.target} folded into {before.target}"
        before.target = name
        node.replace_all_uses_with(before)
        module.graph.erase_node(node)
        modules = dict(module.named_modules())
    module.delete_all_unused_submodules()
    return notes


def _fused(layer: Any, norm: Any) -> nn.Module:
    """Return a layer with the batch norm behind it folded in, computed in float64."""
    given = (layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    w, b, mean, variance, eps, gain, shift = (v.detach().double() if isinstance(v, Tensor) else v for v in given)
    factor = (variance + eps).rsqrt() * (1.0 if gain is None else gain)
    fused = copy.copy(layer)
    fused._parameters = dict(layer._parameters)
    offset = (0.0 if b is None else b) - mean
    fused.weight = nn.Parameter((w * factor.reshape(-1, *(1,) * (w.ndim - 1))).float())
    fused.bias = nn.Parameter((offset * factor + (0.0 if shift is None else shift)).float())
    return fused


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
