"""From an nn.Module to a graph of sites: trace by call, fold batch norm, name what has no rule."""

from __future__ import annotations

import copy
import inspect
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from explorer.engine.clip import TrainableClip
from explorer.engine.errors import TraceError, UnsupportedLayerError
from explorer.engine.graph import Kind, Network, ReportRow, Site, Unsupported, state_fingerprint
from explorer.engine.operations import (
    AFFINE,
    FINAL_ONLY,
    MAX_POOL,
    NO_OPS,
    SCALING,
    SHAPE_ONLY,
    canonical_name,
    rectifier_cap,
)
from explorer.engine.qcfs import QuantisedClip, without_levels
from explorer.engine.rewrite import fold_batch_norm, fold_sizes, normalise, rectify_before_pooling

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
        return isinstance(m, TrainableClip | QuantisedClip) or super().is_leaf_module(m, module_qualified_name)


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
    normalise(module)
    notes = fold_batch_norm(module)
    notes |= rectify_before_pooling(module)
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()
    ShapeProp(module).propagate(example.clone())
    fold_sizes(module)
    network = _mark(module, example, notes)
    _check_same_scores(network, example, expected, model)
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
            called = modules.get(str(node.target)) if node.op == "call_module" else None
            clip = isinstance(called, TrainableClip | QuantisedClip)
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
    for node in module.graph.nodes:
        if kinds.get(node.name) in ("site", "max_pool") and len(shapes[node.name]) not in (1, 3):
            call = str(node.target) if node.op == "call_module" else node.name
            shape = "×".join(map(str, shapes[node.name]))
            unsupported.append(
                Unsupported(
                    call,
                    f"its values have the shape {shape} for each image.",
                    "Only C (after a linear layer) and C×H×W (feature maps) convert: reshape them so.",
                )
            )
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


def _check_same_scores(network: Network, example: Tensor, expected: Tensor, model: nn.Module) -> None:
    if any(isinstance(m, QuantisedClip) for m in model.modules()):
        # A staircase turns a rounding error into a whole level, so the two are compared on the ramps beneath.
        network = replace(network, graph_module=without_levels(network.graph_module))
        with torch.no_grad():
            expected = without_levels(model).eval()(example.clone())
    scores = network.forward(example)
    scale = max(float(expected.abs().max()), 1e-12)
    difference = float((scores - expected.float()).abs().max()) / scale
    if not difference <= TRACE_TOLERANCE:
        raise TraceError(
            f"The traced graph's scores differ from the network's by {difference:.1e} of the largest score. The "
            "network probably changes a tensor in place that it uses again; assign the result instead."
        )
