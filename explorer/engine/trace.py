"""From an nn.Module to a graph of sites: trace by call, fold batch norm, name what has no rule."""

from __future__ import annotations

import copy
import inspect
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from explorer.engine.clip import TrainableClip
from explorer.engine.errors import TraceError, UnsupportedLayerError
from explorer.engine.graph import Kind, Network, ReportRow, Site, Unsupported, state_fingerprint
from explorer.engine.operations import (
    AFFINE,
    FINAL_ONLY,
    MAX_POOL,
    NO_OPS,
    PLAIN_FORMS,
    PLAIN_METHODS,
    SCALING,
    SHAPE_ONLY,
    canonical_name,
    rectifier_cap,
)

TRACE_TOLERANCE = 1e-4


class _Tracer(fx.Tracer):
    """Keep the trainable clip whole, as torch's own layers are; look into layers made on the fly."""

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        try:
            self.path_of_module(m)
        except NameError:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, TrainableClip) or super().is_leaf_module(m, module_qualified_name)


def trace(model: nn.Module, example: Tensor) -> Network:
    """Turn a network into a graph of sites and affine segments.

    The model is copied and left as found. Batch norm is folded into the convolution or linear layer before it, exactly.

    Args:
        model: any nn.Module whose control flow does not depend on the data.
        example: one input [1, C, H, W], which fixes the shapes.

    Raises:
        TraceError: the control flow depends on the data, the example does not fit, no rectifier is called, or the
            graph's scores are not the model's.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            expected = model(example.clone())
    except Exception as error:
        raise TraceError(
            f"The network does not run on an input of shape {tuple(example.shape)}: {error}. "
            "Set the input size and the number of channels it was trained with."
        ) from error
    finally:
        model.train(was_training)
    module = _capture(copy.deepcopy(model).eval().requires_grad_(False), expected)
    notes = _normalise(module)
    notes |= _fold_batch_norm(module)
    notes |= _rectify_before_pooling(module)
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()
    ShapeProp(module).propagate(example.clone())
    _fold_sizes(module)
    network = _mark(module, example, notes)
    _check_same_scores(network, example, expected)
    return network


def _capture(model: nn.Module, expected: Any) -> fx.GraphModule:
    if not isinstance(expected, Tensor) or expected.ndim != 2:
        shape = tuple(expected.shape) if isinstance(expected, Tensor) else type(expected).__name__
        raise TraceError(f"The network must return class scores [B, K], got {shape}. Wrap it so that it does.")
    if isinstance(model, fx.GraphModule):
        return model
    try:
        defaults = {
            p.name: p.default
            for p in list(inspect.signature(model.forward).parameters.values())[1:]
            if p.default is not p.empty
        }
        graph = _Tracer().trace(model, concrete_args=defaults or None)
        return fx.GraphModule(model, graph)
    except Exception as error:
        raise TraceError(
            f"The network's control flow depends on its data: {error}. Replace the `if` or loop over tensor values "
            "by one over shapes or constants, or export the network with torch.export first."
        ) from error


def _normalise(module: fx.GraphModule) -> dict[str, str]:
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
    return {}


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


def _fold_sizes(module: fx.GraphModule) -> None:
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


def _fold_batch_norm(module: fx.GraphModule) -> dict[str, str]:
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


def _rectify_before_pooling(module: fx.GraphModule) -> dict[str, str]:
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


def _mark(module: fx.GraphModule, example: Tensor, notes: dict[str, str]) -> Network:
    """Give every node its kind, and list sites, report and unsupported calls."""
    modules = dict(module.named_modules())
    kinds: dict[str, Kind] = {}
    names: dict[str, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    sites: list[Site] = []
    site_nodes: dict[str, str] = {}
    rows: list[ReportRow] = []
    unsupported: list[Unsupported] = []
    depends: set[str] = set()
    output = ""
    for node in module.graph.nodes:
        shapes[node.name] = _shape(node)
        inputs = [n for n in node.all_input_nodes if n.name in depends]
        if node.op == "placeholder":
            kinds[node.name], names[node.name] = "input", "input"
            depends.add(node.name)
            continue
        if node.op == "output":
            source = node.args[0]
            output = (source[0] if isinstance(source, tuple | list) else source).name
            kinds[node.name], names[node.name] = "output", "output"
            continue
        if node.op == "get_attr":
            kinds[node.name], names[node.name] = "constant", "constant"
            continue
        name = names[node.name] = canonical_name(node, modules)
        where = str(node.target) if node.op == "call_module" else node.name
        rectifies, cap = rectifier_cap(node, name, modules)
        note = notes.get(node.name, "")
        if not inputs or name in SHAPE_ONLY:
            kinds[node.name] = "constant"
            continue
        depends.add(node.name)
        if rectifies:
            label = where if where not in site_nodes else f"{where}#{sum(s.name.startswith(where) for s in sites) + 1}"
            clip = isinstance(modules.get(str(node.target)), TrainableClip) if node.op == "call_module" else False
            sites.append(Site(label, shapes[node.name], cap, len(sites), clip))
            site_nodes[label] = node.name
            kinds[node.name] = "site"
            rows.append(ReportRow(label, "site", shapes[node.name], "" if cap is None else f"bounded at {cap:.4g}"))
        elif name == MAX_POOL:
            kinds[node.name] = "max_pool"
            rows.append(ReportRow(where, "pool", shapes[node.name], note or "exact in rate, by counts so far"))
        elif name in AFFINE or (name in SCALING and len(inputs) == 1 and not _scales_by_itself(node, depends)):
            kinds[node.name] = "affine"
            if name not in NO_OPS:
                rows.append(ReportRow(where, "folded" if note else "affine", shapes[node.name], note))
        else:
            kinds[node.name] = "affine"
            problem = _explain(where, name, node, len(inputs))
            unsupported.append(problem)
            rows.append(ReportRow(where, "unsupported", shapes[node.name], f"{problem.why} {problem.mend}"))
    if not sites:
        if unsupported:
            raise UnsupportedLayerError(" ".join(str(problem) for problem in unsupported[:3]))
        raise TraceError(
            "The network calls no ReLU, so there is nothing to convert. Choose a network with ReLU, ReLU6, "
            "clamp(min=0) or the trainable clip between its layers."
        )
    return Network(
        module,
        kinds,
        names,
        shapes,
        tuple(sites),
        site_nodes,
        tuple(unsupported),
        tuple(rows),
        tuple(example.shape[1:]),
        output,
        state_fingerprint(module),
    )


def _shape(node: fx.Node) -> tuple[int, ...]:
    meta = node.meta.get("tensor_meta")
    return tuple(meta.shape[1:]) if meta is not None and hasattr(meta, "shape") else ()


def _scales_by_itself(node: fx.Node, depends: set[str]) -> bool:
    """Tell whether a product takes the image more than once, or divides by it."""
    positions = [i for i, a in enumerate(node.args) if isinstance(a, fx.Node) and a.name in depends]
    dividing = canonical_name(node, {}) in ("div", "truediv") if node.op != "call_module" else False
    return len(positions) != 1 or (dividing and positions != [0])


def _explain(where: str, name: str, node: fx.Node, inputs: int) -> Unsupported:
    if name in FINAL_ONLY:
        return Unsupported(
            where,
            f"{name} is not affine and has no integrate-and-fire counterpart.",
            "Drop it: class scores need no softmax.",
        )
    if name in SCALING and inputs > 1:
        return Unsupported(
            where,
            f"{name} multiplies two quantities that both depend on the image.",
            "Squeeze-and-excitation and attention cannot be converted; choose a network without them.",
        )
    if name in ("max_pool1d", "max_pool3d", "AdaptiveMaxPool2d", "adaptive_max_pool2d"):
        return Unsupported(where, f"{name} has no rule.", "Use max_pool2d or an average pool.")
    return Unsupported(
        where,
        f"{name} has no integrate-and-fire counterpart.",
        "Replace it by nn.ReLU (or another layer that converts) and fine-tune, or choose a network from the list.",
    )


def _check_same_scores(network: Network, example: Tensor, expected: Tensor) -> None:
    scores = network.forward(example)
    scale = max(float(expected.abs().max()), 1e-12)
    difference = float((scores - expected.float()).abs().max()) / scale
    if not difference <= TRACE_TOLERANCE:
        raise TraceError(
            f"The traced graph's scores differ from the network's by {difference:.1e} of the largest score. The "
            "network probably changes a tensor in place that it uses again; assign the result instead."
        )
