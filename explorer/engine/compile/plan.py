"""How each part of a network runs, decided once per network and kept with it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import fx

from explorer.engine.compile.fixed_point import fix
from explorer.engine.compile.mosaic import spiking_pool
from explorer.engine.compile.segment import Segment, build_segment
from explorer.engine.graph import Network
from explorer.engine.neurons import Law

if TYPE_CHECKING:
    from explorer.engine.kernels.protocol import Backend

READOUT = "readout"
KEPT_WEIGHTS = 3
ARRANGING = threading.Lock()


class StepKind(StrEnum):
    """What a step computes: a site's spikes, a max pool of spikes, or the class scores."""

    SITE = "site"
    MAX_POOL = "max_pool"
    READOUT = "readout"


@dataclass(eq=False)
class Step:
    """One thing to compute in time.

    node: the graph's node; value: the node whose value is the input current; segment: that value as taps, or None where
    it runs as traced; sources: the spiking nodes it reads; weights: the segment's, as arranged for back ends, by
    relative spike amplitudes and laws.
    """

    name: str
    kind: StepKind
    node: fx.Node
    value: fx.Node
    segment: Segment | None
    sources: tuple[str, ...]
    weights: dict[tuple, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Name the path that runs here."""
        if self.kind is StepKind.MAX_POOL:
            return "pool"
        if self.segment is None:
            return "float"
        return "integer" if self.segment.sources else "constant"


@dataclass(eq=False)
class Plan:
    """All steps of a network in order; by_node finds a step by the node that spikes."""

    steps: tuple[Step, ...]
    by_node: dict[str, Step]
    dynamic: frozenset[str]
    static: frozenset[str]
    one_block: bool

    @property
    def readout(self) -> Step:
        """The step that gives the class scores."""
        return self.steps[-1]

    @cached_property
    def sites(self) -> tuple[Step, ...]:
        """The steps that are sites, in order."""
        return tuple(step for step in self.steps if step.kind is StepKind.SITE)

    @cached_property
    def by_name(self) -> dict[str, Step]:
        """All steps by name: a site's, a pool node's, or 'readout'."""
        return {step.name: step for step in self.steps}


def weights_for(step: Step, backend: Backend, amplitudes: list[np.ndarray], laws: list[Law]) -> Any:
    """Return a step's weights as arranged for a back end, for sources of these relative amplitudes and laws.

    The last few arrangements are kept: a threshold that moves changes them, a common factor of all does not.
    """
    assert step.segment is not None
    key = (backend.name, str(backend.device), tuple(law.digest for law in laws), *(a.tobytes() for a in amplitudes))
    weights = step.weights.get(key)
    if weights is None:
        weights = backend.arrange(fix(step.segment, amplitudes, laws))
        with ARRANGING:
            while len(step.weights) >= KEPT_WEIGHTS:
                step.weights.pop(next(iter(step.weights)))
            step.weights[key] = weights
    return weights


def plan_for(network: Network, integer: bool) -> Plan:
    """Return the network's plan, made at the first call; integer=False runs every site as traced."""
    key = ("plan", integer)
    if key not in network.plans:
        network.plans[key] = _make_plan(network, integer)
    return network.plans[key]


def _make_plan(network: Network, integer: bool) -> Plan:
    dynamic, static = set(), set()
    for node in network.graph_module.graph.nodes:
        inputs = [n.name for n in node.all_input_nodes]
        if network.kinds[node.name] == "site" or any(n in dynamic for n in inputs):
            dynamic.add(node.name)
        elif network.kinds[node.name] == "input" or any(n in static for n in inputs):
            static.add(node.name)
    fixed = frozenset(dynamic)
    sites = {node: name for name, node in network.site_nodes.items()}
    steps: list[Step] = []
    analog_pool = False
    for node in network.graph_module.graph.nodes:
        if node.name in sites:
            steps.append(_step(network, sites[node.name], StepKind.SITE, node, node.args[0], fixed, integer))
        elif network.kinds[node.name] == "max_pool" and node.name in dynamic:
            if spiking_pool(network, node):
                source = _through_no_ops(network, node.args[0])
                steps.append(Step(node.name, StepKind.MAX_POOL, node, source, None, (source.name,)))
            else:
                analog_pool = True
    output = network.node(network.output)
    steps.append(_step(network, READOUT, StepKind.READOUT, output, output, fixed, integer))
    by_node = {s.node.name: s for s in steps if s.kind is not StepKind.READOUT}
    return Plan(tuple(steps), by_node, fixed, frozenset(static), analog_pool)


def _step(
    network: Network, name: str, kind: StepKind, node: fx.Node, value: fx.Node, dynamic: frozenset[str], integer: bool
) -> Step:
    segment = build_segment(network, value, dynamic) if integer else None
    if segment is None and value.name not in dynamic:
        segment = build_segment(network, value, dynamic)
    sources = segment.sources if segment is not None else _spiking_inputs(network, value, dynamic)
    return Step(name, kind, node, value, segment, sources)


def _through_no_ops(network: Network, node: fx.Node) -> fx.Node:
    while network.kinds[node.name] == "affine":
        node = node.all_input_nodes[0]
    return node


def _spiking_inputs(network: Network, value: fx.Node, dynamic: frozenset[str]) -> tuple[str, ...]:
    """Return the nearest spiking nodes upstream of a value, itself included."""
    found: list[str] = []
    seen: set[str] = set()
    stack = [value]
    while stack:
        node = stack.pop()
        if node.name in seen or node.name not in dynamic:
            continue
        seen.add(node.name)
        spikes = network.kinds[node.name] == "site" or (
            network.kinds[node.name] == "max_pool" and spiking_pool(network, node)
        )
        if spikes:
            found.append(node.name)
        else:
            stack.extend(node.all_input_nodes)
    return tuple(found)
