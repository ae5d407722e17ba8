"""The quantised activation: its staircase, its gradients, and what the engine makes of it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from explorer.engine import (
    CalibrationSpec,
    MaxActivation,
    QuantisedClip,
    Record,
    SimulationSpec,
    TrainableClip,
    TrainedClip,
    calibrate,
    convert,
    simulate,
    trace,
)
from explorer.engine.analysis import decode
from explorer.engine.graph.qcfs import without_levels
from explorer.zoo.resnet import CifarResNet


def test_the_staircase_by_hand():
    clip = QuantisedClip(2.0, levels=4)
    x = torch.tensor([-1.0, 0.24, 0.25, 0.74, 0.75, 1.74, 1.75, 9.0])
    assert clip(x).tolist() == [0, 0, 0.5, 0.5, 1.0, 1.5, 2.0, 2.0]


@pytest.mark.parametrize("levels", [1, 3, 8])
def test_the_staircase_is_the_equation(levels):
    torch.manual_seed(0)
    x = torch.randn(1000, dtype=torch.float64) * 3
    clip = QuantisedClip(1.7, levels).double()
    theta = float(clip.theta)
    expected = theta * (torch.floor(x * levels / theta + 0.5) / levels).clamp(0, 1)
    assert torch.allclose(clip(x), expected, atol=1e-12)
    assert (clip(x) > 0).any() and len(clip(x).unique()) == levels + 1


def test_gradients_pass_the_floor_as_if_it_were_not_there():
    clip = QuantisedClip(2.0, levels=4)
    x = torch.tensor([-1.0, 0.2, 0.4, 1.7, 2.5], requires_grad=True)
    (clip(x) * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])).sum().backward()
    assert x.grad.tolist() == [0, 2, 3, 4, 0]
    # theta takes q - x/theta between the bounds (0 - 0.1, 0.25 - 0.2, 0.75 - 0.85) and 1 above.
    assert float(clip.theta.grad) == pytest.approx(2 * -0.1 + 3 * 0.05 + 4 * -0.1 + 5 * 1)


def test_noise_moves_the_input_by_levels_while_training_only():
    clip = QuantisedClip(2.0, levels=4)
    x = torch.full((1, 2, 1, 2), 1.0)
    clip.noise = torch.tensor([0.0, 1.0, -1.0, 0.4, 9.0])
    assert clip.train()(x).movedim(1, -1).flatten().tolist() == [1.0, 1.5, 0.5, 1.0]
    assert torch.equal(clip.eval()(x), x)


def small(levels=4, theta=1.3):
    torch.manual_seed(0)
    return CifarResNet(1, 4, lambda: QuantisedClip(theta, levels)).eval()


def test_the_engine_recognises_it():
    images = torch.randn(3, 3, 16, 16)
    network = trace(small(), images[:1])
    assert len(network.sites) == 7
    assert all(site.trained_clip and site.cap == pytest.approx(1.3) for site in network.sites)
    assert not network.unsupported
    theta = calibrate(network, images[:0], CalibrationSpec(TrainedClip())).theta
    assert all(float(t) == pytest.approx(1.3) for t in theta.values())
    for a in network.activations(images).values():
        level = a * 4 / 1.3
        assert torch.allclose(level, level.round(), atol=1e-5) and (a > 0).any(), "the ANN is the quantised one"


def test_a_level_that_rounding_turns_does_not_spoil_tracing():
    """Folded batch norms round otherwise, so pixels that lie on the edge of a step fall to one side or the other."""
    norm = nn.BatchNorm2d(1)
    norm.running_mean.fill_(0.3717)
    norm.running_var.fill_(1.931)
    nn.init.constant_(norm.weight, 0.737)
    nn.init.constant_(norm.bias, 0.1113)
    conv = nn.Conv2d(1, 1, 1)
    nn.init.constant_(conv.weight, 1.3)
    nn.init.constant_(conv.bias, 0.217)
    net = nn.Sequential(conv, norm, QuantisedClip(1.0, 8), nn.Flatten(), nn.Linear(64, 2)).eval()
    edges = ((torch.arange(64) % 8 + 0.5) / 8).view(1, 1, 8, 8)
    with torch.no_grad():
        x = ((edges - norm.bias) * (norm.running_var + norm.eps).sqrt() / norm.weight + norm.running_mean - 0.217) / 1.3
        x = x * (1 + 1e-7 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)))
        network = trace(net, x)
        difference = (network.activations(x)["2"] - net[:3](x)).abs().max()
    assert float(difference) == pytest.approx(1 / 8), "no level turned, so this tests nothing"


def test_a_layer_of_neurons_has_the_activations_of_its_ann_at_T_of_its_levels():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), QuantisedClip(0.8, 8), nn.Flatten(), nn.Linear(6 * 36, 3)).eval()
    images = torch.randn(5, 3, 8, 8)
    network = trace(net, images[:1])
    snn = convert(network, calibrate(network, images[:0], CalibrationSpec(TrainedClip())))
    result = simulate(snn, images, SimulationSpec(8, Record()))
    a_hat = decode(result.counts["1"], snn.theta["1"], 8)
    a = network.activations(images)["1"]
    assert (a > 0).any() and (a == a.max()).any()
    assert (a_hat - a).abs().max() < 1e-5


def test_levels_are_kept_with_the_weights():
    net, other = small(levels=6), small(levels=8)
    other.load_state_dict(net.state_dict())
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(other(x), net(x))
    half = {k: v.half().float() if v.is_floating_point() else v for k, v in net.state_dict().items()}
    other.load_state_dict(half)
    assert {int(m.levels) for m in other.modules() if isinstance(m, QuantisedClip)} == {6}


def test_levels_are_part_of_the_fingerprint():
    x = torch.randn(1, 3, 16, 16)
    assert trace(small(levels=4), x).fingerprint != trace(small(levels=8), x).fingerprint


def test_without_levels_is_a_copy_with_plain_clips():
    net = small()
    before = copy.deepcopy(net.state_dict())
    smooth = without_levels(net)
    assert not any(isinstance(m, QuantisedClip) for m in smooth.modules())
    assert sum(isinstance(m, TrainableClip) for m in smooth.modules()) == 7
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_a_threshold_by_the_maximum_is_at_most_the_bound():
    images = torch.randn(8, 3, 16, 16) * 20
    theta = calibrate(trace(small(), images[:1]), images, CalibrationSpec(MaxActivation())).theta
    assert all(float(t) <= 1.3 + 1e-6 for t in theta.values())


def test_it_exports():
    net = small()
    x = torch.randn(1, 3, 16, 16)
    exported = torch.export.export(net, (x,))
    assert torch.allclose(exported.module()(x), net(x), atol=1e-5)
