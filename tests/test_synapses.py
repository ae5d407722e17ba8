"""Additions counted by fan-out are those of a brute-force count: let one neuron spike, see which sums change."""

import pytest
import torch
from torch import fx

from explorer.engine import (
    CalibrationSpec,
    MaxActivation,
    Record,
    SimulationSpec,
    SpecError,
    calibrate,
    convert,
    simulate,
    trace,
)
from explorer.engine.compile.plan import plan_for
from explorer.engine.synapses import additions, constant_macs, fan_out
from tests import networks


class Substituted(fx.Interpreter):
    """Run a graph with the values of some nodes given, and keep the value of one."""

    def __init__(self, module, given, wanted):
        super().__init__(module)
        self.given, self.wanted, self.found = given, wanted, None

    def run_node(self, n):
        value = self.given[n.name] if n.name in self.given else super().run_node(n)
        if n.name == self.wanted:
            self.found = value
        return value


@torch.no_grad()
def reached(network, step, source):
    """Count, for every neuron of a source, the sums at a step that change when this neuron alone spikes."""
    module = network.graph_module
    shape = network.shapes[source]
    neurons = torch.Size(shape).numel()

    def values(block):
        given = {s: torch.zeros(len(block), *network.shapes[s]) for s in step.sources}
        run = Substituted(module, given | {source: block}, step.value.name)
        run.run(torch.zeros(len(block), *network.input_shape))
        return run.found

    silent = values(torch.zeros(1, *shape))
    parts = []
    for begin in range(0, neurons, 256):
        block = torch.eye(neurons)[begin : begin + 256].reshape(-1, *shape)
        parts.append((values(block) - silent).abs().flatten(1).gt(1e-9).sum(1))
    return torch.cat(parts).double().reshape(shape)


def prepared(kind):
    network = trace(networks.make(kind), networks.images(1))
    images = networks.images(3)
    snn = convert(network, calibrate(network, images, CalibrationSpec(MaxActivation())))
    return network, simulate(snn, images, SimulationSpec(T=8, record=Record(counts=True, v_end=False)))


@pytest.mark.parametrize("kind", [networks.OptionAResNet, networks.MaxPools, networks.Perceptron])
def test_additions_are_those_of_a_brute_force_count(kind):
    network, run = prepared(kind)
    plan = plan_for(network, True)
    found = additions(network, run.counts)
    counted = 0
    for step in plan.steps:
        if step.kind == "max_pool":
            continue
        total = 0.0
        for source in step.sources:
            expected = reached(network, step, source)
            assert torch.equal(fan_out(network)[step.name][source], expected)
            before = plan.by_node[source]
            n = run.counts[before.name] if before.kind == "site" else None
            if n is None:
                window = (3, 2, 1) if before.node.op == "call_module" else (2, 2, 0)
                site = plan.by_node[before.sources[0]].name
                n = torch.nn.functional.max_pool2d(run.counts[site].float(), *window)
                assert n.shape[1:] == expected.shape
            total += float((n.double() * expected).sum()) / run.images
        assert found[step.name] == pytest.approx(total, rel=1e-12)
        counted += total > 0
    assert counted >= 2


def test_the_first_layer_multiplies_once():
    network, run = prepared(networks.OptionAResNet)
    first = network.sites[0].name
    assert additions(network, run.counts)[first] == 0
    assert constant_macs(network) == network.macs()[first] > 0


def test_a_layer_that_runs_as_traced_spreads_its_macs():
    network, _ = prepared(networks.Depthwise)
    plan = plan_for(network, True)
    step = next(step for step in plan.steps if step.path == "float")
    assert sum(float(reach.sum()) for reach in fan_out(network)[step.name].values()) == pytest.approx(
        network.macs()[step.name]
    )


def test_missing_counts_are_named():
    network, run = prepared(networks.Perceptron)
    with pytest.raises(SpecError, match="Record counts"):
        additions(network, dict(list(run.counts.items())[1:]))
