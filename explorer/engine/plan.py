"""How each part of a network runs, decided once per network and kept with it."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import fx

from explorer.engine.graph import Network
from explorer.engine.integers import IntegerWeights
from explorer.engine.segment import Segment, build_segment
from explorer.engine.views import spiking_pool

READOUT = "readout"
KEPT_LAYOUTS = 3


@dataclass(eq=False)
class Step:
    """One thing to compute in time: a site, a max pool of spikes, or the class scores.

    node: the graph's node; value: the node whose value is the input current; segment: that value as taps, or None where
    it runs as traced; sources: the spiking nodes it reads; layouts: integer weights by relative spike amplitudes.
    """

    name: str
    kind: str
    node: fx.Node
    value: fx.Node
    segment: Segment | None
    sources: tuple[str, ...]
    layouts: dict[bytes, IntegerWeights] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Name the path that runs here."""
        if self.kind == "max_pool":
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
            steps.append(_step(network, sites[node.name], "site", node, node.args[0], fixed, integer))
        elif network.kinds[node.name] == "max_pool" and node.name in dynamic:
            if spiking_pool(network, node):
                source = _through_no_ops(network, node.args[0])
                steps.append(Step(node.name, "max_pool", node, source, None, (source.name,)))
            else:
                analog_pool = True
    output = network.node(network.output)
    steps.append(_step(network, READOUT, "readout", output, output, fixed, integer))
    by_node = {s.node.name: s for s in steps if s.kind != "readout"}
    return Plan(tuple(steps), by_node, fixed, frozenset(static), analog_pool)


def _step(
    network: Network, name: str, kind: str, node: fx.Node, value: fx.Node, dynamic: frozenset[str], integer: bool
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
