"""Settings refuse what makes no sense, in words; calibration does what its name says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_engine_laws import IMAGES

from explorer.engine import (
    CalibrationSpec,
    ConstantStart,
    ConversionSpec,
    DataError,
    ExplorerError,
    MaxActivation,
    MinSquaredError,
    Percentile,
    Record,
    SimulationSpec,
    SiteSetting,
    SpecError,
    TraceError,
    TrainableClip,
    TrainedClip,
    UnsupportedLayerError,
    calibrate,
    convert,
    simulate,
    trace,
)
from explorer.engine.calibration import histogram
from explorer.engine.theory import staircase
from explorer.zoo.resnet import CifarResNet

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SimulationSpec(T=0), "at least 1 time-step, got 0"),
        (lambda: SimulationSpec(T=257), "at most 256 time-steps, got 257"),
        (lambda: SimulationSpec(T=2.5), "whole number"),
        (lambda: ConversionSpec(threshold_scale=0.0), "above 0"),
        (lambda: ConversionSpec(threshold_scale=float("nan")), "finite"),
        (lambda: SiteSetting(threshold_scale=-1.0), "above 0"),
        (lambda: ConstantStart(float("inf")), "share of the threshold"),
        (lambda: Percentile(0), "above 0 and at most 100"),
        (lambda: Percentile(99, per="layer"), "'site' or 'channel'"),
        (lambda: MinSquaredError(T=0), "at least 1 time-step"),
        (lambda: Record(neurons=0), "at least 1 neuron"),
    ],
)
def test_bad_settings_are_refused_in_words(make, words):
    with pytest.raises(SpecError, match=words):
        make()


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return trace(CifarResNet(1, 4, torch.nn.ReLU).eval(), IMAGES[:1])


def test_maximum_and_percentile_are_what_they_say(tiny):
    a = tiny.activations(IMAGES)
    largest = calibrate(tiny, IMAGES, CalibrationSpec(MaxActivation())).theta
    percentile = calibrate(tiny, IMAGES, CalibrationSpec(Percentile(99.0))).theta
    channel = calibrate(tiny, IMAGES, CalibrationSpec(MaxActivation(per="channel"))).theta
    for site in tiny.sites:
        values = a[site.name]
        assert float(largest[site.name]) == pytest.approx(float(values.max()), rel=1e-6)
        below = float((values <= percentile[site.name]).double().mean())
        width = float(values.max()) / 4096
        slack = float(((values - percentile[site.name]).abs() <= width).double().mean()) + 1e-6
        assert below == pytest.approx(0.99, abs=slack)
        per = values.amax((0, 2, 3))
        assert torch.allclose(channel[site.name].flatten()[per > 0], per[per > 0], rtol=1e-6)


def test_least_squares_beats_the_maximum_on_its_own_terms(tiny):
    T = 6
    best = calibrate(tiny, IMAGES, CalibrationSpec(MinSquaredError(T, per="site"))).theta
    largest = calibrate(tiny, IMAGES, CalibrationSpec(MaxActivation())).theta
    for site, a in tiny.activations(IMAGES).items():

        def error(theta, a=a):
            return float((staircase(a.double(), float(theta), T, 0.5) - a).square().mean())

        assert error(best[site]) <= error(largest[site]) * 1.001, site


def test_statistics_merge_in_any_order(tiny):
    for a in tiny.activations(IMAGES).values():
        most = a.amax((0, 2, 3)).double()
        one, two, three = (histogram(part, most) for part in (a[:1], a[1:4], a[4:]))
        whole, merged, other = histogram(a, most), one.merge(two).merge(three), three.merge(one).merge(two)
        assert int(whole.histogram.sum()) == a.numel()
        assert torch.equal(whole.histogram, merged.histogram) and torch.equal(merged.histogram, other.histogram)
        exact = torch.histc(a.double(), 4096, 0, float(most.max()))
        assert int((exact - whole.histogram.sum(0)).abs().sum()) <= 0.01 * a.numel()


def test_the_trained_clip_is_the_threshold():
    net = CifarResNet(1, 4, lambda: TrainableClip(1.7)).eval()
    network = trace(net, IMAGES[:1])
    theta = calibrate(network, IMAGES, CalibrationSpec(TrainedClip())).theta
    assert all(float(t) == pytest.approx(1.7) for t in theta.values())
    bounded = calibrate(network, IMAGES * 50, CalibrationSpec(MaxActivation())).theta
    assert all(float(t) <= 1.7 + 1e-6 for t in bounded.values())


def test_the_clip_trains():
    clip = TrainableClip(1.0)
    x = torch.tensor([-1.0, 0.5, 2.0, 3.0], requires_grad=True)
    clip(x).sum().backward()
    assert x.grad.tolist() == [0, 1, 0, 0]
    assert float(clip.theta.grad) == 2


def test_a_plain_network_has_no_trained_clip(tiny):
    with pytest.raises(SpecError, match="unbounded ReLU has no trained clip"):
        calibrate(tiny, IMAGES, CalibrationSpec(TrainedClip()))


def test_bad_images_are_refused_in_words(tiny):
    calibration = calibrate(tiny, IMAGES)
    snn = convert(tiny, calibration)
    with pytest.raises(SpecError, match="Resize the images"):
        simulate(snn, torch.zeros(1, 3, 16, 16))
    with pytest.raises(SpecError, match="not finite"):
        simulate(snn, torch.full((1, 3, 32, 32), float("nan")))
    with pytest.raises(SpecError, match="at least 1 image"):
        simulate(snn, IMAGES[:0])
    with pytest.raises(DataError, match="at least 1 image"):
        calibrate(tiny, IMAGES[:0])
    with pytest.raises(SpecError, match="no such site"):
        convert(tiny, calibration, ConversionSpec().with_site("nowhere", v_init=0.5))
    with pytest.raises(SpecError, match="count from 0"):
        simulate(snn, IMAGES, SimulationSpec(T=2, record=Record(sites=("act1",), neurons=(10**6,))))


def test_networks_that_cannot_be_converted_say_why():
    nn = torch.nn
    with pytest.raises(TraceError, match="calls no ReLU"):
        trace(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.zeros(1, 3, 2, 2))
    mixed = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 2))
    network = trace(mixed, torch.zeros(1, 3, 2, 2))
    assert [u.call for u in network.unsupported] == ["4"]
    with pytest.raises(UnsupportedLayerError, match=r"[sS]igmoid"):
        convert(network, calibrate(network, torch.randn(4, 3, 2, 2)))
    with pytest.raises(UnsupportedLayerError, match="GELU"):
        trace(nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.GELU(), nn.Linear(4, 2)), torch.zeros(1, 3, 2, 2))


def test_a_model_is_left_as_found():
    net = CifarResNet(1, 4, lambda: torch.nn.ReLU(inplace=True)).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    trace(net, IMAGES[:1])
    assert net.training and net.act1.inplace
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert not any(m._forward_hooks for m in net.modules())


def test_errors_have_one_root():
    from explorer.engine import errors

    kinds = [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, Exception)]
    assert len(kinds) >= 8
    assert all(issubclass(k, ExplorerError) for k in kinds)


def test_no_module_hides_a_standard_one():
    import sys

    names = {p.stem for p in (ROOT / "explorer").iterdir()}
    assert not names & (set(sys.stdlib_module_names) - {"__init__"})
