"""Synaptic operations: how many additions the spikes of a network cause, and what is still multiplied.

A spike adds one weight in every neuron it reaches: a convolution's window, fewer at a border or between strides; one
neuron along a shortcut; all outputs of a linear layer. Average pools are folded into the weights behind them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from explorer.engine.compile.plan import Step, StepKind, plan_for
from explorer.engine.compile.segment import Segment
from explorer.engine.errors import SpecError
from explorer.engine.graph import Network


def fan_out(network: Network) -> dict[str, dict[str, Tensor]]:
    """Return how many additions one spike of each neuron causes: by site reached (and 'readout'), by spiking node.

    float64, of the spiking node's shape. Exact where the layer is written as taps; a layer that runs as traced
    (grouped convolutions, for one) spreads its multiply-accumulates evenly over the neurons before it, which leaves out
    borders. Weights that are exactly zero are no synapses.
    """
    if "fan_out" not in network.plans:
        steps = [step for step in plan_for(network, True).steps if step.kind is not StepKind.MAX_POOL]
        network.plans["fan_out"] = {step.name: _fan_out(network, step) for step in steps}
    return network.plans["fan_out"]


def _fan_out(network: Network, step: Step) -> dict[str, Tensor]:
    if step.segment is not None:
        return _through_taps(network, step.segment)
    shapes = {source: network.shapes[source] for source in step.sources}
    neurons = sum(torch.Size(shape).numel() for shape in shapes.values())
    macs = _macs_between(network, step)
    return {source: torch.full(shape, macs / neurons, dtype=torch.float64) for source, shape in shapes.items()}


def _through_taps(network: Network, segment: Segment) -> dict[str, Tensor]:
    reached = {s: torch.zeros((*network.shapes[s], 1, 1)[:3], dtype=torch.float64) for s in segment.sources}
    synapses = torch.from_numpy((segment.rows != 0).sum(1)).double()
    y, x = torch.arange(segment.height), torch.arange(segment.width)
    for dy, dx, stride, limit_y, limit_x, _, _, _, row, source in segment.taps.tolist():
        out = reached[segment.sources[source]]
        rows, columns = y * stride + dy, x * stride + dx
        rows = rows[(rows >= 0) & (rows < min(limit_y, out.shape[1]))]
        columns = columns[(columns >= 0) & (columns < min(limit_x, out.shape[2]))]
        out[:, rows[:, None], columns] += synapses[row : row + len(out), None, None]
    return {source: out.reshape(network.shapes[source]) for source, out in reached.items()}


def _macs_between(network: Network, step: Step) -> int:
    """Count the multiply-accumulates between a step and the spiking nodes it reads."""
    dynamic = plan_for(network, True).dynamic
    seen: set[str] = set()
    stack, macs = [step.value], 0
    while stack:
        node = stack.pop()
        if node.name not in seen and node.name in dynamic and node.name not in step.sources:
            seen.add(node.name)
            macs += network.node_macs(node)
            stack += node.all_input_nodes
    return macs


def additions(
    network: Network, counts: Mapping[str, Tensor], pooled: Mapping[str, Tensor] | None = None
) -> dict[str, float]:
    """Return additions per image at each site and the readout: spikes of every neuron before it times their fan-out.

    counts[site]: spikes [B, *site] over all steps; pooled[max pool]: those that it passes on, [B, ...], where that is
    not the largest count of its window, as it is where each spike counts one and none is taken back. What depends on
    the image alone, the first layer's current, is not added but multiplied once: see `constant_macs`.

    Raises:
        SpecError: a site's counts are missing.
    """
    missing = [site.name for site in network.sites if site.name not in counts]
    if missing:
        raise SpecError(f"additions need spike counts of every site; {missing[0]} has none. Record counts.")
    spikes: dict[str, Tensor] = {}
    for step in plan_for(network, True).steps:
        if step.kind is StepKind.SITE:
            spikes[step.node.name] = counts[step.name].double()
        elif step.kind is StepKind.MAX_POOL:
            told = (pooled or {}).get(step.name)
            source = spikes[step.sources[0]]
            spikes[step.node.name] = pool(network, step, source) if told is None else told.double()
    mean = {name: value.mean(0) for name, value in spikes.items()}
    return {
        name: sum(float((mean[source] * reach).sum()) for source, reach in sources.items())
        for name, sources in fan_out(network).items()
    }


def pool(network: Network, step: Step, counts: Tensor) -> Tensor:
    """Return the largest value of each window of a max pool: [B, ...]."""
    node = step.node
    if node.op == "call_module":
        return network.graph_module.get_submodule(str(node.target))(counts)
    if node.op == "call_method":
        return getattr(counts, str(node.target))(*node.args[1:], **node.kwargs)
    assert callable(node.target)
    return node.target(counts, *node.args[1:], **node.kwargs)


def constant_macs(network: Network) -> int:
    """Count the multiply-accumulates per image of what does not change in time: done once, whatever T is."""
    dynamic = plan_for(network, True).dynamic
    return sum(network.node_macs(node) for node in network.graph_module.graph.nodes if node.name not in dynamic)
