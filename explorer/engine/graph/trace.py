"""From an nn.Module to a graph of sites: write its calls down, fold batch norm, name what has no rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.fx.passes.shape_prop import ShapeProp

from explorer.engine.errors import ExplorerError, TraceError
from explorer.engine.graph.capture import Captured, capture
from explorer.engine.graph.clips import merge_clips
from explorer.engine.graph.guard import check_steps
from explorer.engine.graph.maps import lift_flat_maps
from explorer.engine.graph.mark import mark
from explorer.engine.graph.network import Network, ReportRow
from explorer.engine.graph.qcfs import QuantisedClip, without_levels
from explorer.engine.graph.rewrite import fold_batch_norm, normalise, rectify_before_pooling

TRACE_TOLERANCE = 1e-4


def trace(model: Any, example: Tensor) -> Network:
    """Turn a network into a graph of sites and affine segments.

    The model is copied and left as found; the copy computes in float32. Batch norm is folded into the convolution or
    linear layer before it, exactly. Whatever is between sites is measured on random values (`guard.py`).

    Args:
        model: any nn.Module whose control flow does not depend on the data, or a program from torch.export.
        example: one input [1, C, H, W], which fixes the shapes.

    Raises:
        TraceError: the control flow depends on the data, the example does not fit, no rectifier is called, or the
            graph's scores are not the model's.
        UnsupportedLayerError: what stands in the way is a certain call, and nothing around it could be converted.
    """
    try:
        captured = capture(model, example)
        network = _network(captured)
        return network if network.unsupported else _guarded(network, captured.images[:1])
    except ExplorerError:
        raise
    except Exception as error:
        raise TraceError(
            f"The calls of the network cannot be made into a graph ({type(error).__name__}: "
            f"{(str(error).splitlines() or [''])[0][:200]}). This is a fault of the explorer: please report it."
        ) from error


def _network(captured: Captured) -> Network:
    """Rewrite the graph into its plainest form, and give every call its kind."""
    module = captured.module
    module.graph.eliminate_dead_code()
    normalise(module)
    merge_clips(module)
    notes = fold_batch_norm(module)
    notes |= rectify_before_pooling(module)
    lift_flat_maps(module)
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()
    with torch.no_grad():
        images = captured.images  # laid out as the network will be run; every node gets its shape, too
        images = images.to(memory_format=torch.channels_last) if images.ndim == 4 else images.clone()
        scores = ShapeProp(module).propagate(images)
    network = mark(module, tuple(captured.images.shape[1:]), notes)
    if any(isinstance(m, QuantisedClip) for m in module.modules()):
        with torch.no_grad():
            scores = without_levels(module)(captured.images.clone())
    _check_same_scores(scores, captured.scores)
    rows = tuple(ReportRow("the network", "note", (), note) for note in captured.notes)
    return replace(network, rows=(*rows, *network.rows))


def _guarded(network: Network, example: Tensor) -> Network:
    """Put the network to the test; a call that fails joins those without a rule."""
    fault = check_steps(network, example)
    if fault is None:
        return network
    rows = tuple(replace(r, kind="unsupported", note=str(fault)) if r.node == fault.call else r for r in network.rows)
    return replace(network, unsupported=(fault,), rows=rows)


def _check_same_scores(scores: Any, expected: Tensor) -> None:
    scale = max(float(expected.abs().max()), 1e-12)
    difference = float((scores - expected.float()).abs().max()) / scale
    if not difference <= TRACE_TOLERANCE:
        raise TraceError(
            f"The traced graph's scores differ from the network's by {difference:.1e} of the largest score. The "
            "network draws at random, or changes a tensor in place that it uses again; assign the result instead."
        )
