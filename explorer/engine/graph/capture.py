"""From a network to a graph: run it twice, and write down what both runs have in common."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, fx, nn

from explorer.engine.errors import ExplorerError, TraceError, UnsupportedLayerError
from explorer.engine.graph.join import FEW, MANY, join_runs
from explorer.engine.graph.qcfs import QuantisedClip, without_levels
from explorer.engine.graph.record import WRAPPERS, Recorder, listening


@dataclass(frozen=True, eq=False)
class Captured:
    """A network as a graph of calls; images [2, C, H, W] and the scores [2, K] that the network gives for them.

    The scores are those with plain clips in place of quantised ones.
    """

    module: fx.GraphModule
    images: Tensor
    scores: Tensor
    notes: tuple[str, ...]


def capture(model: Any, example: Tensor) -> Captured:
    """Run a copy of a network on images like the example, and return its calls as a graph.

    The copy computes in float32. The graph takes any number of images.

    Args:
        model: an nn.Module, or a program from torch.export.
        example: one input [1, C, H, W], which fixes the shapes.

    Raises:
        TraceError: it is no network, does not run, gives no class scores, or its calls cannot be followed.
        UnsupportedLayerError: a call can have no counterpart, whatever stands around it.
    """
    net, notes = _own_copy(model)
    example = example[:1].detach().float().cpu()
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(FEW + MANY - 1, *example.shape[1:], generator=generator) * max(float(example.std()), 0.1)
    noise = noise + example.mean()
    few, many = torch.cat([example, noise[:1]]), noise[1:]
    first, scores = _run(net, few)
    if any(isinstance(m, QuantisedClip) for m in net.modules()):
        # A staircase turns a rounding error into a whole level, so scores are told, and compared, on the ramps beneath.
        scores = without_levels(net)(few)
    second, _ = _run(net, many)
    join_runs(first, second)
    root = nn.Module()
    for name, value in first.constants.items():
        _put(root, name, value)
    for node in first.graph.nodes:
        if node.op == "call_module":
            _put(root, str(node.target), _quiet(net.get_submodule(str(node.target))))
    module = fx.GraphModule(root, first.graph)
    notes |= first.notes
    return Captured(module, few, scores.detach().clone(), tuple(sorted(notes)))


def _own_copy(model: Any) -> tuple[nn.Module, set[str]]:
    """Return a copy to work on, in eval mode and float32, out of its wrappers, and what to say of it."""
    if isinstance(model, torch.export.ExportedProgram):
        model = model.module()
    while type(model).__name__ in (*WRAPPERS, "AveragedModel"):
        model = getattr(model, WRAPPERS.get(type(model).__name__, "module"))
    if not isinstance(model, nn.Module):
        raise TraceError(f"A network is needed (an nn.Module), got {type(model).__name__}. Wrap it in a module.")
    for name, module in model.named_modules():
        kind, at = type(module), name or "the network"
        if isinstance(module, torch.jit.ScriptModule):
            raise TraceError(
                f"{at}: a scripted network (torch.jit) cannot be looked into. Give the PyTorch network it was made of, "
                "and load its weights."
            )
        if "quantized" in kind.__module__ or any("observer" in type(c).__module__ for c in module.children()):
            raise UnsupportedLayerError(
                f"{at}: {kind.__name__} is quantised or observed for quantisation. Give the network as it was before, "
                "in floating point."
            )
    lazy = [name for name, p in model.named_parameters() if nn.parameter.is_lazy(p)]
    if lazy:
        raise TraceError(f"{lazy[0]}: a lazy layer without weights yet. Run the network on an image first.")
    types = {p.dtype for p in (*model.parameters(), *model.buffers()) if p.is_floating_point()} - {torch.float32}
    notes = {f"{str(t).removeprefix('torch.')} weights are taken as float32" for t in types}
    try:
        net = copy.deepcopy(model, _computed(model))
    except Exception as error:
        raise TraceError(f"The network cannot be copied ({error}). Give a plain nn.Module, in evaluation.") from error
    if not _is_exported(net):  # an exported program has no modes
        net = net.eval()
    return net.float().cpu().requires_grad_(False), notes


def _computed(model: nn.Module) -> dict[int, Any]:
    """Return copies of what torch does not copy by itself: weights that hooks computed, and scripted functions."""
    held = [value for module in model.modules() for value in vars(module).values()]
    copies: dict[int, Any] = {id(v): v.detach().clone() for v in held if isinstance(v, Tensor) and not v.is_leaf}
    return copies | {id(v): v for v in held if isinstance(v, torch.jit.ScriptFunction)}


@torch.no_grad()
def _run(net: nn.Module, images: Tensor) -> tuple[Recorder, Tensor]:
    recorder = Recorder(net)
    x = images.clone()
    recorder.image(x)
    try:
        with listening(net, recorder):
            scores = _Exported(net, recorder).run(x) if _is_exported(net) else net(x)
    except ExplorerError:
        raise
    except Exception as error:
        raise _why_not(net, images, error) from error
    recorder.scores(scores)
    return recorder, scores


class _Exported(fx.Interpreter):
    """Runs an exported program, and says of each call which module it once was."""

    def __init__(self, module: fx.GraphModule, recorder: Recorder) -> None:
        super().__init__(module)
        self.recorder = recorder

    def run_node(self, n: fx.Node) -> Any:
        stack = list((n.meta.get("nn_module_stack") or {}).values())
        path, kind = stack[-1] if stack else ("", "")
        is_layer = str(getattr(kind, "__module__", kind)).startswith("torch.nn.modules")
        self.recorder.origin = path if is_layer else ".".join(filter(None, (path, n.name)))
        return super().run_node(n)


def _is_exported(net: nn.Module) -> TypeGuard[fx.GraphModule]:
    return isinstance(net, fx.GraphModule) and any(
        isinstance(node.target, torch._ops.OpOverload) for node in net.graph.nodes
    )


def _why_not(net: nn.Module, images: Tensor, error: Exception) -> TraceError:
    """Return the error that says whether the network itself fails, or fails on several images, or is not followed."""
    shape, reason = (1, *images.shape[1:]), _first_line(error)
    try:
        net(images[:1].clone())
    except Exception as alone:
        if "size()[0]" in str(alone) or (isinstance(net, fx.GraphModule) and "Guard" in str(alone)):
            return TraceError(
                f"The program was exported for a fixed number of images ({_first_line(alone)}). Export it with "
                "dynamic_shapes=({0: torch.export.Dim('batch')},) and an example of 2 images."
            )
        return TraceError(
            f"The network does not run on an input of shape {shape}: {_first_line(alone)}. "
            "Set the input size and the number of channels it was trained with."
        )
    try:
        net(images.clone())
    except Exception as together:
        return TraceError(
            f"The network runs on one image, but not on {len(images)} at a time: {_first_line(together)}. Write its "
            "shapes in terms of x.size(0), and export programs with dynamic_shapes=({0: torch.export.Dim('batch')},)."
        )
    return TraceError(f"The network's calls cannot be followed: {reason}. Write that part in plain PyTorch.")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:300]


def _quiet(module: nn.Module) -> nn.Module:
    """Take a layer's hooks off: what they did is written down around it."""
    for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks):
        hooks.clear()
    return module


def _put(root: nn.Module, path: str, value: Any) -> None:
    *parents, leaf = path.split(".")
    for part in parents:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    if isinstance(value, nn.Module):
        root.add_module(leaf, value)
    elif isinstance(value, nn.Parameter):
        root.register_parameter(leaf, value)
    else:
        root.register_buffer(leaf, value)
