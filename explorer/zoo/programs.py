"""Whole programs written by torch.export (.pt2), turned back into the modules they were made of.

An exported program is a flat list of ATen calls on lifted weights. Each call that has a module (convolution, linear,
batch norm, activation, pool, dropout) becomes that module again, so that sites keep the names of the network they came
from; all others stay calls, for the tracer to judge. Reading one can run code hidden in it, as torch says: so it
is for the command line, never for uploads.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from explorer.engine.errors import CheckpointError
from explorer.zoo.memory import require_memory
from explorer.zoo.paths import is_file

aten = torch.ops.aten


def load_program(path: Path) -> fx.GraphModule:
    """Return the network in a .pt2 file, in eval mode, float32 on the CPU.

    Raises:
        CheckpointError: it is missing or damaged, takes other than one tensor, or a fixed number of images.
    """
    if not is_file(path):
        raise CheckpointError(f"{path}: there is no such file. Give a .pt2 file that torch.export.save wrote.")
    require_memory(3 * path.stat().st_size, path.name)
    try:
        program = torch.export.load(path)
    except Exception as error:  # a damaged archive raises whatever it likes
        reason = (str(error).splitlines() or [""])[0][:160]
        raise CheckpointError(
            f"{path.name}: not a program that torch.export.save wrote, or damaged ({type(error).__name__}: {reason}). "
            "Export it again, with this version of torch."
        ) from error
    return rebuild(program, path.name)


def rebuild(program: torch.export.ExportedProgram, name: str) -> fx.GraphModule:
    """Return an exported program as a graph of modules and calls.

    Raises:
        CheckpointError: it takes other than one tensor, or was exported for a fixed number of images.
    """
    inputs = program.graph_signature.user_inputs
    outputs = program.graph_signature.user_outputs
    if len(inputs) != 1 or len(outputs) != 1:
        raise CheckpointError(
            f"{name}: takes {len(inputs)} inputs and gives {len(outputs)} outputs; one batch of images and one of "
            "class scores are needed. Export the classifier alone."
        )
    lifted = _lifted(program)
    root, graph, made = nn.Module(), fx.Graph(), {}
    for node in program.graph.nodes:
        match node.op:
            case "placeholder" if node.name == inputs[0]:
                _require_any_batch(node, name)
                made[node] = graph.placeholder("x")
            case "placeholder":
                continue
            case "output":
                graph.output(made[node.args[0][0]])
            case "call_function":
                made[node] = _convert(node, made, lifted, root, graph)
    module = fx.GraphModule(root, graph)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module.float().eval().requires_grad_(False)


def _require_any_batch(node: fx.Node, name: str) -> None:
    value = node.meta.get("val")
    if isinstance(value, Tensor) and isinstance(value.shape[0], int):
        raise CheckpointError(
            f"{name}: exported for exactly {value.shape[0]} image(s) at a time. Export it with "
            "dynamic_shapes=({0: torch.export.Dim('batch')},) and an example of 2 images."
        )


def _lifted(program: torch.export.ExportedProgram) -> dict[str, Tensor]:
    """Return the weights, buffers and constants by the names of their placeholders."""
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    names |= signature.inputs_to_lifted_tensor_constants
    values = {**program.constants, **program.state_dict}
    return {placeholder: values[key].detach() for placeholder, key in names.items()}


def _convert(
    node: fx.Node, made: dict[fx.Node, Any], lifted: dict[str, Tensor], root: nn.Module, graph: fx.Graph
) -> fx.Node:
    """Add a node's module or call to the graph."""
    args = [lifted.get(arg.name, arg) if isinstance(arg, fx.Node) and arg not in made else arg for arg in node.args]
    make = MODULES.get(node.target)
    if make is not None and isinstance(args[0], fx.Node):
        target = _free_name(root, _origin(node))
        _add(root, target, make(*args[1:], **node.kwargs))
        return graph.call_module(target, (made[args[0]],))

    def known(value: fx.Node) -> Any:
        if value in made:
            return made[value]
        if not hasattr(root, value.name):
            root.register_buffer(value.name, lifted[value.name])
        return graph.get_attr(value.name)

    call: Any = CALLS.get(node.target, node.target)
    return graph.call_function(call, fx.map_arg(node.args, known), fx.map_arg(node.kwargs, known))


def _origin(node: fx.Node) -> str:
    """Return the name of the module that a call came from, or the call's own."""
    stack = node.meta.get("nn_module_stack") or {}
    names = [path for path, _ in stack.values() if path]
    leaf = names[-1] if names else ""
    kind = str(list(stack.values())[-1][1]) if names else ""
    return leaf if leaf and kind.startswith("torch.nn.modules") else ".".join(filter(None, (leaf, node.name)))


def _free_name(root: nn.Module, wanted: str) -> str:
    """Return the name, numbered if a module has it already (one module called twice is two calls here)."""
    taken = {name for name, _ in root.named_modules()}
    name, k = wanted, 1
    while name in taken:
        name, k = f"{wanted}_{k}", k + 1
    return name


def _add(root: nn.Module, target: str, module: nn.Module) -> None:
    *parents, leaf = target.split(".")
    at = root
    for part in parents:
        if part not in at._modules:
            at.add_module(part, nn.Module())
        at = at.get_submodule(part)
    at.add_module(leaf, module)


def _pair(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _conv2d(w: Tensor, b: Tensor | None = None, stride=1, padding=0, dilation=1, groups=1) -> nn.Module:
    size: Any = tuple(w.shape[2:])
    padding = padding if isinstance(padding, str) else _pair(padding)
    c_in, c_out = w.shape[1] * groups, w.shape[0]
    layer = nn.Conv2d(c_in, c_out, size, _pair(stride), padding, _pair(dilation), groups, bias=b is not None)
    return _filled(layer, weight=w, bias=b)


def _linear(w: Tensor, b: Tensor | None = None) -> nn.Module:
    return _filled(nn.Linear(w.shape[1], w.shape[0], bias=b is not None), weight=w, bias=b)


def _batch_norm(w, b, mean, var, training=False, momentum=0.1, eps=1e-5, cudnn=True) -> nn.Module:
    layer = nn.BatchNorm2d(len(mean), eps, momentum, affine=w is not None)
    return _filled(layer, weight=w, bias=b, running_mean=mean, running_var=var)


def _max_pool2d(size, stride=(), padding=0, dilation=1, ceil=False) -> nn.Module:
    return nn.MaxPool2d(_pair(size), _pair(stride) or None, _pair(padding), _pair(dilation), ceil_mode=ceil)


def _avg_pool2d(size, stride=(), padding=0, ceil=False, count=True, divisor=None) -> nn.Module:
    return nn.AvgPool2d(_pair(size), _pair(stride) or None, _pair(padding), ceil, count, divisor)


def _filled(layer: nn.Module, **values: Tensor | None) -> nn.Module:
    with torch.no_grad():
        for name, value in values.items():
            if value is not None:
                getattr(layer, name).copy_(value)
    return layer


MODULES: dict[Any, Callable[..., nn.Module]] = {
    aten.conv2d.default: _conv2d,
    aten.conv2d.padding: _conv2d,
    aten.linear.default: _linear,
    aten.batch_norm.default: _batch_norm,
    aten.relu.default: nn.ReLU,
    aten.relu_.default: nn.ReLU,
    aten.relu6.default: nn.ReLU6,
    aten.relu6_.default: nn.ReLU6,
    aten.hardtanh.default: lambda low=-1.0, high=1.0: nn.Hardtanh(low, high),
    aten.hardtanh_.default: lambda low=-1.0, high=1.0: nn.Hardtanh(low, high),
    aten.max_pool2d.default: _max_pool2d,
    aten.avg_pool2d.default: _avg_pool2d,
    aten.adaptive_avg_pool2d.default: lambda size: nn.AdaptiveAvgPool2d(_pair(size)),
    aten.dropout.default: lambda p=0.5, train=False: nn.Dropout(p),
    aten.dropout_.default: lambda p=0.5, train=False: nn.Dropout(p),
    aten.feature_dropout.default: lambda p=0.5, train=False: nn.Dropout2d(p),
    aten.silu.default: nn.SiLU,
    aten.silu_.default: nn.SiLU,
    aten.gelu.default: lambda approximate="none": nn.GELU(approximate),
    aten.hardswish.default: nn.Hardswish,
    aten.hardswish_.default: nn.Hardswish,
    aten.sigmoid.default: nn.Sigmoid,
}
CALLS: dict[Any, Callable[..., Any]] = {
    aten.add.Tensor: operator.add,
    aten.add_.Tensor: operator.add,
    aten.sub.Tensor: operator.sub,
    aten.mul.Tensor: operator.mul,
    aten.cat.default: torch.cat,
    aten.flatten.using_ints: torch.flatten,
    aten.view.default: torch.reshape,
    aten.reshape.default: torch.reshape,
    aten.mean.dim: torch.mean,
    aten.pad.default: F.pad,
    aten.permute.default: torch.permute,
    aten.transpose.int: torch.transpose,
    aten.chunk.default: torch.chunk,
    aten.clone.default: torch.clone,
    aten.contiguous.default: torch.clone,
}
