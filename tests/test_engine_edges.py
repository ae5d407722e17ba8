"""Networks at the edges of what the integer path takes: each against the float64 reference and at several chunks."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.nn.functional as F
from reference import simulate_reference
from torch import nn

from explorer.engine import (
    CalibrationSpec,
    MaxActivation,
    SimulationSpec,
    SpikeStore,
    TrainableClip,
    TrainedClip,
    calibrate,
    convert,
    simulate,
    trace,
)

T, FEW = 8, 3  # the fewer where Triton's interpreter runs


class Net(nn.Module):
    """Rectified features, something in between, a second rectified layer, and class scores."""

    def __init__(self, between=None, kernel=1, after=None):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, kernel)
        self.between, self.after = between or nn.Identity(), after or nn.Identity()
        self.readout = nn.LazyLinear(5)

    def forward(self, x):
        x = self.between(torch.relu(self.first(x)))
        return self.readout(torch.flatten(torch.relu(self.after(self.second(x))), 1))


class Added(nn.Module):
    """A stored number for each feature, the same for all images."""

    def __init__(self, *shape):
        super().__init__()
        self.value = nn.Parameter(torch.randn(1, *shape))

    def forward(self, x):
        return x + self.value


class CastFirst(Net):
    def forward(self, x):
        return super().forward(x.float().to(torch.float32))


class Keywords(Net):
    def forward(self, x):
        x = F.relu(input=self.first(input=x))
        x = F.avg_pool2d(input=F.max_pool2d(input=x, kernel_size=2), kernel_size=2)
        return self.readout(input=torch.flatten(F.relu(self.second(input=x)), 1))


class Rows(nn.Module):
    def forward(self, x):
        return x.reshape(len(x), -1)


class Cropped(nn.Module):
    def forward(self, x):
        return F.pad(x, (0, 0, 0, 0, -4, 4))


class Standardised(Net):
    def __init__(self):
        super().__init__()
        self.scale = nn.BatchNorm2d(3, affine=False)

    def forward(self, x):
        return super().forward(self.scale(x))


CASES = {
    "overlapping average pool": (lambda: Net(nn.AvgPool2d(3, 2)), (3, 7, 7)),
    "average pool of stride 1": (lambda: Net(nn.AvgPool2d(3, 1)), (3, 8, 8)),
    "overlapping average pool, larger kernel": (lambda: Net(nn.AvgPool2d(3, 2), 2), (3, 9, 9)),
    "global pool of a wide map": (lambda: Net(nn.AdaptiveAvgPool2d(1)), (3, 4, 8)),
    "global pool of a tall map": (lambda: Net(nn.AdaptiveAvgPool2d(1)), (3, 8, 4)),
    "gaps between pools": (lambda: Net(nn.AvgPool2d(2, 3)), (3, 7, 7)),
    "a stored map added": (lambda: Net(after=Added(16, 4, 4)), (3, 4, 4)),
    "a stored number a channel": (lambda: Net(after=Added(16, 1, 1)), (3, 4, 4)),
    "operands by keyword": (Keywords, (3, 8, 8)),
    "channels cut off": (lambda: Net(Cropped()), (3, 4, 4)),
    "batch norm of the input without weights": (Standardised, (3, 4, 4)),
}


def made(build, shape, rule=None):
    """Return a network with random weights, converted, and three images."""
    torch.manual_seed(0)
    net, images = build().eval(), torch.randn(3, *shape)
    net(images)
    network = trace(net, images[:1])
    return convert(network, calibrate(network, images, CalibrationSpec(rule or MaxActivation()))), images


@pytest.mark.parametrize("case", CASES)
def test_counts_are_the_references(case, everywhere):
    snn, images = made(*CASES[case])
    steps = FEW if everywhere.name == "cuda" else T
    scores, counts, _ = simulate_reference(snn, images, steps)
    for chunk, integer in ((3, True),) if everywhere.name == "cuda" else ((1, True), (3, True), (1, False), (3, False)):
        run = simulate(snn, images, SimulationSpec(T=steps, chunk=chunk, integer=integer, device="cpu"))
        for name, expected in counts.items():
            assert (run.counts[name] != expected).float().mean() < 0.002, (name, chunk, integer)
            assert run.counts[name].any()
        assert torch.allclose(run.logits[-1], scores[-1].float(), rtol=1e-2, atol=1e-2 * float(scores.abs().max()))


def test_a_cast_of_the_input_changes_nothing():
    runs = []
    for build in (Net, CastFirst):
        snn, images = made(build, (3, 8, 8))
        runs.append(simulate(snn, images, SimulationSpec(T=T, device="cpu")))
    assert torch.equal(runs[0].logits, runs[1].logits)


@pytest.mark.parametrize("size", [(8, 7), (7, 8)])
def test_pools_whose_last_window_is_cut(size, everywhere):
    snn, images = made(lambda: Net(nn.MaxPool2d(2, ceil_mode=True)), (3, *size))
    run = simulate(snn, images, SimulationSpec(T=FEW, device="cpu"))
    _, counts, _ = simulate_reference(snn, images, FEW)
    for name, expected in counts.items():
        assert (run.counts[name] != expected).float().mean() < 0.002 and run.counts[name].any(), name


@pytest.mark.parametrize("options", [({"dilation": 1, "padding": 1}, {"dilation": 2, "padding": 2})])
def test_equal_weights_with_other_options_share_nothing_in_the_store(options, everywhere):
    store = SpikeStore()
    snns = []
    for option in options:

        def build(option=option):
            layers = [nn.Conv2d(3, 16, 3, padding=1), TrainableClip(1.0), nn.Conv2d(16, 16, 3, **option)]
            return nn.Sequential(*layers, TrainableClip(1.0), nn.Flatten(), nn.LazyLinear(5))

        snn, images = made(build, (3, 4, 4), TrainedClip())
        simulate(snn, images, SimulationSpec(T=FEW, device="cpu"), store=store)
        snns.append(snn)
    assert snns[0].network.fingerprint != snns[1].network.fingerprint
    warm = simulate(snns[1], images, SimulationSpec(T=FEW, device="cpu"), store=store)
    assert torch.equal(warm.logits, simulate(snns[1], images, SimulationSpec(T=FEW, device="cpu")).logits)


@pytest.mark.parametrize(
    ("layer", "shape", "as_map"),
    [
        (lambda: nn.Linear(8, 16), (3, 8), (3, 1, 16)),
        (lambda: nn.Conv1d(3, 16, 3, padding=1), (3, 8), (16, 1, 8)),
        (lambda: nn.Conv3d(3, 16, 3, padding=1), (3, 4, 4, 2), (16, 16, 2)),
        (lambda: nn.Sequential(nn.Linear(8, 1), nn.Flatten(0)), (8,), (1,)),
    ],
)
def test_sites_of_other_shapes_become_maps(layer, shape, as_map, everywhere):
    def build():
        first = layer()
        for name, value in first.named_parameters():
            if name.endswith("bias"):
                nn.init.ones_(value)  # so that some neuron fires whatever the weights are
        return nn.Sequential(first, nn.ReLU(), Rows(), nn.LazyLinear(5))

    snn, images = made(build, shape)
    (site,) = snn.network.sites
    assert site.shape == as_map
    scores, counts, _ = simulate_reference(snn, images, T)
    run = simulate(snn, images, SimulationSpec(T=T, device="cpu"))
    assert (run.counts[site.name] != counts[site.name]).float().mean() < 0.002 and run.counts[site.name].any()
    assert torch.allclose(run.logits[-1], scores[-1].float(), rtol=1e-2, atol=1e-2 * float(scores.abs().max()))


def test_activations_near_zero_do_not_leave_the_histogram():
    torch.manual_seed(0)
    net, images = Net().eval(), torch.randn(3, 3, 8, 8)
    net(images)
    with torch.no_grad():
        net.first.weight.mul_(1e-36)
        net.first.bias.mul_(1e-36)
    network = trace(net, images[:1])
    theta = calibrate(network, images, CalibrationSpec(MaxActivation())).theta
    assert float(theta["relu"].max()) == 1.0  # taken for silent


def test_one_network_is_simulated_and_run_by_many_threads_at_once():
    snn, images = made(lambda: Net(nn.AvgPool2d(2)), (3, 8, 8))
    expected, faults = snn.network.forward(images), []

    def work():
        try:
            for i in range(20):
                other = convert(snn.network, snn.calibration, snn.spec.with_site("relu", threshold_scale=1 + i / 50))
                simulate(other, images, SimulationSpec(T=2, device="cpu"))
                assert torch.allclose(snn.network.forward(images), expected, atol=1e-5)
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert all(p.dtype == torch.float32 for p in snn.network.graph_module.parameters())


def test_what_is_larger_than_the_store_drops_nothing():
    import numpy as np

    store = SpikeStore(1000)
    for i in range(9):
        store.put(i, np.zeros(100, np.uint8))
    store.put("large", np.zeros(1001, np.uint8))
    assert len(store) == 9 and store.get("large") is None
