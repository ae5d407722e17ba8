"""Laws of the integrate-and-fire neuron and of the conversion, in float64 where the arithmetic is the subject."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Residual
from reference import if_neuron, simulate_float32_loop, simulate_reference

from explorer.engine import (
    CalibrationSpec,
    ConstantStart,
    ConversionSpec,
    GaussianStart,
    MaxActivation,
    Percentile,
    Record,
    SimulationSpec,
    UniformStart,
    calibrate,
    convert,
    simulate,
    trace,
)
from explorer.engine.analysis import error_parts, membrane, top1_curve
from explorer.engine.kernels.reference import law_scan
from explorer.engine.neurons import INTEGRATE_AND_FIRE, LAWS
from explorer.engine.theory import staircase, wilson
from explorer.zoo.resnet import resnet20
from explorer.zoo.vgg import CifarVGG


def if_scan(x, v, theta):
    """Scan currents x [T, ...] by the integrate-and-fire law: spikes [T, ...], potential after the last step."""
    spikes, v, _ = law_scan(INTEGRATE_AND_FIRE, x, v, theta)
    return spikes[0], v


IMAGES = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def warmed(net: torch.nn.Module) -> torch.nn.Module:
    """Give batch norms the statistics of random images, so that activations have a sensible size."""
    net.train()
    with torch.no_grad():
        for seed in range(3):
            net(torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(seed)))
    return net.eval()


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    network = trace(warmed(resnet20()), IMAGES[:1])
    return network, calibrate(network, IMAGES, CalibrationSpec(Percentile(99.0)))


@pytest.fixture(scope="module")
def small_vgg():
    torch.manual_seed(0)
    net = CifarVGG([(16, 16), (40,), (64, 64), (80,), (96,)], 10, torch.nn.ReLU)
    network = trace(warmed(net), IMAGES[:1])
    return network, calibrate(network, IMAGES, CalibrationSpec(Percentile(99.0, per="channel")))


@given(st.floats(-1.5, 2.5), st.floats(0.1, 3.0), st.integers(1, 64), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
def test_constant_input_gives_the_staircase(x, theta, T, v_init):
    exact = T * x / theta + v_init
    if abs(exact - round(exact)) < 1e-6 or x > theta:
        return
    spikes, potentials = if_neuron([x] * T, theta, v_init * theta)
    assert sum(spikes) == min(max(np.floor(exact), 0), T)
    decoded = staircase(torch.tensor(x, dtype=torch.float64), theta, T, v_init)
    assert float(decoded) == pytest.approx(theta * sum(spikes) / T, abs=1e-9)
    assert v_init * theta + T * x == pytest.approx(theta * sum(spikes) + potentials[-1], abs=1e-9)


@given(st.integers(0, 2**31), st.floats(0.2, 2.0), st.floats(0, 1))
def test_scan_equals_the_neuron_loop_and_conserves_charge(seed, theta, v_init):
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    start = torch.full((4,), v_init * theta, dtype=torch.float64)
    z, v = if_scan(x, start, torch.tensor(theta, dtype=torch.float64))
    for i in range(4):
        spikes, potentials = if_neuron(x[:, i].tolist(), theta, v_init * theta)
        assert z[:, i].int().tolist() == spikes
        assert float(v[i]) == potentials[-1]
    charge = start + x.sum(0) - theta * z.double().sum(0) - v
    assert charge.abs().max() < 1e-9


def test_agrees_with_spikingjelly_on_random_currents():
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    x = torch.randn(40, 200, generator=torch.Generator().manual_seed(3))
    theirs = neuron.IFNode(v_threshold=1.0, v_reset=None)
    expected = torch.stack([theirs(step) for step in x])
    z, v = if_scan(x, torch.zeros(200), torch.tensor(1.0))
    assert expected.sum() > 100
    assert torch.equal(z.float(), expected.detach())
    assert torch.allclose(v, theirs.v.detach(), atol=1e-5)


def test_half_a_threshold_makes_the_mean_error_vanish():
    """OPI's theorem: x uniform over the staircase; mean error zero at 1/2, mean square least there. [Bu2022]"""
    theta, T, n = 1.3, 8, 400_000
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, generator=generator, dtype=torch.float64) * theta
    squares = {}
    for v_init in (0.0, 0.25, 0.5, 0.75, 1.0):
        error = staircase(x, theta, T, v_init) - x
        squares[v_init] = float(error.square().mean())
        if v_init == 0.5:
            assert abs(float(error.mean())) < 3 * float(error.std()) / n**0.5
            assert squares[v_init] == pytest.approx(theta**2 / (12 * T**2), rel=0.02)
        elif v_init == 0.0:
            assert squares[v_init] == pytest.approx(theta**2 / (3 * T**2), rel=0.02)
    assert min(squares, key=squares.__getitem__) == 0.5


def test_threshold_scaling_is_weight_normalisation():
    x = torch.randn(30, 50, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    theta = 4.0  # a power of two, so that both sides round alike
    z, _ = if_scan(x, torch.full((50,), theta / 2, dtype=torch.float64), torch.tensor(theta, dtype=torch.float64))
    scaled, _ = if_scan(x / theta, torch.full((50,), 0.5, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64))
    assert z.any()
    assert torch.equal(z, scaled)


@pytest.mark.parametrize("case", ["resnet", "small_vgg"])
def test_agrees_with_the_float64_reference_at_least_as_well_as_a_float32_loop(case, request):
    network, calibration = request.getfixturevalue(case)
    snn = convert(network, calibration)
    ours = simulate(snn, IMAGES, SimulationSpec(T=12))
    logits, counts, v = simulate_reference(snn, IMAGES, 12)
    loop = simulate_float32_loop(snn, IMAGES, 12)
    off = sum(float((ours.counts[s].double() - counts[s]).abs().sum()) for s in counts)
    loop_off = sum(float((loop[s].double() - counts[s]).abs().sum()) for s in counts)
    spikes = sum(float(n.sum()) for n in counts.values())
    assert spikes > 1000
    assert off <= max(loop_off, 1e-5 * spikes)
    if off == 0:
        assert torch.allclose(ours.logits.double(), logits, atol=1e-5)
        for s in v:
            assert torch.allclose(ours.v_end[s].double(), v[s], atol=1e-4)


@pytest.mark.parametrize("case", ["resnet", "small_vgg"])
def test_integer_and_float_paths_tell_the_same_story(case, request):
    network, calibration = request.getfixturevalue(case)
    snn = convert(network, calibration)
    exact = simulate(snn, IMAGES, SimulationSpec(T=8))
    loose = simulate(snn, IMAGES, SimulationSpec(T=8, integer=False))
    assert set(exact.paths.values()) == {"integer", "constant"}
    assert "float" in loose.paths.values()
    for site in exact.counts:
        same = (exact.counts[site] == loose.counts[site]).double().mean()
        assert same > 0.98, site


@pytest.mark.parametrize("case", ["resnet", "small_vgg"])
def test_charge_is_conserved_in_every_layer(case, request):
    network, calibration = request.getfixturevalue(case)
    snn = convert(network, calibration, ConversionSpec(v_init=ConstantStart(0.3)))
    sim = simulate(snn, IMAGES, SimulationSpec(T=10, record=Record(sites=(network.sites[3].name,), neurons=40)))
    name = network.sites[3].name
    theta = torch.broadcast_to(snn.theta[name], network.sites[3].shape).reshape(-1)[sim.neurons[name]]
    n = sim.counts[name].flatten(1)[:, sim.neurons[name]]
    assert torch.equal(sim.spikes[name].sum(0), n)
    total = 0.3 * theta + sim.x[name].sum(0) - theta * n - sim.v_end[name].flatten(1)[:, sim.neurons[name]]
    assert float(total.abs().max()) < 1e-4 * float(theta.max())


def test_error_parts_add_up(resnet):
    network, calibration = resnet
    snn = convert(network, calibration)
    sim = simulate(snn, IMAGES, SimulationSpec(T=8))
    parts = error_parts(snn, IMAGES, sim)
    assert set(parts) == {s.name for s in network.sites}
    for name, p in parts.items():
        summed = p.clipping + p.inherited + p.quantisation + p.unevenness
        assert torch.allclose(summed, p.total, atol=1e-9), name
        assert (p.clipping <= 0).all()
    first = parts[network.sites[0].name]
    assert first.inherited.abs().max() < 1e-5, "the first layer sees the image itself"
    # a constant current: uneven only where a step of the staircase is hit to within rounding
    assert (first.unevenness.abs() > 1e-6).double().mean() < 1e-3


def test_a_membrane_is_the_recorded_one(resnet):
    network, calibration = resnet
    snn = convert(network, calibration)
    name = network.sites[5].name
    sim = simulate(snn, IMAGES, SimulationSpec(T=40, record=Record(sites=(name,), neurons=(0, 77, 900))))
    one = membrane(snn, IMAGES[2:3], name, 77, 40)
    assert torch.equal(one.z, sim.spikes[name][:, 2, 1])
    assert torch.equal(one.v, sim.v[name][:, 2, 1])
    assert torch.equal(one.x, sim.x[name][:, 2, 1])
    assert torch.equal(one.v_before >= one.theta, one.z.bool())


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(1)
    network = trace(Residual().eval(), IMAGES[:1, :, :8, :8])
    return network, calibrate(network, IMAGES[..., :8, :8], CalibrationSpec(MaxActivation("channel")))


def test_charge_is_conserved_and_a_membrane_is_the_recorded_one_on_every_back_end(tiny, everywhere):
    network, calibration = tiny
    snn, images = convert(network, calibration, ConversionSpec(v_init=ConstantStart(0.3))), IMAGES[:2, :, :8, :8]
    for site in network.sites[1:]:
        sim = simulate(snn, images, SimulationSpec(T=4, record=Record(sites=(site.name,), neurons=(0, 11, 19))))
        theta = torch.broadcast_to(snn.theta[site.name], site.shape).reshape(-1)[sim.neurons[site.name]]
        n, v = (value[site.name].flatten(1)[:, sim.neurons[site.name]] for value in (sim.counts, sim.v_end))
        assert torch.equal(sim.spikes[site.name].sum(0), n)
        total = 0.3 * theta + sim.x[site.name].sum(0) - theta * n - v
        assert float(total.abs().max()) < 1e-5 * float(theta.max())
        one = membrane(snn, images[1:], site.name, 11, 4)
        assert torch.equal(one.z, sim.spikes[site.name][:, 1, 1]) and torch.equal(one.v, sim.v[site.name][:, 1, 1])
    assert sim.counts[site.name].any()


@pytest.mark.parametrize("start", [UniformStart(0.0, 1.0, 3), GaussianStart(0.5, 0.2, 3)])
def test_random_starts_depend_on_seed_and_image_alone(tiny, everywhere, start):
    network, calibration = tiny
    snn, images = convert(network, calibration, ConversionSpec(v_init=start)), IMAGES[..., :8, :8]
    together = simulate(snn, images, SimulationSpec(T=3))
    alone = simulate(snn, images[3:4], SimulationSpec(T=3))
    assert torch.equal(together.logits[:, 3:4], alone.logits)
    other = type(start)(*list(vars(start).values())[:2], 4)
    moved = simulate(convert(network, calibration, ConversionSpec(v_init=other)), images, SimulationSpec(T=3))
    assert not torch.equal(together.logits, moved.logits)


@settings(max_examples=200)
@given(st.integers(1, 2000), st.floats(0, 1))
def test_wilson_interval_holds_the_share(n, share):
    low, high = wilson(share * n, n) if n else (0, 1)
    assert 0 <= low <= high <= 1
    assert low <= share <= high or abs(share - low) < 1e-9 or abs(share - high) < 1e-9


def test_wilson_against_a_published_value():
    assert wilson(0, 10)[1] == pytest.approx(0.2775, abs=1e-4)  # 0 of 10, [Wilson1927]


@pytest.mark.parametrize("n", range(1, 200))
def test_the_interval_of_none_begins_at_nothing_and_of_all_ends_at_all(n):
    assert wilson(0, n)[0] == 0 and wilson(n, n)[1] == 1
    low, high = wilson(np.arange(n + 1), n)
    assert low[0] == 0 and high[-1] == 1 and (low[1:] > 0).all() and (high[:-1] < 1).all()


def test_top1_curve_counts_hits():
    logits = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]])
    assert top1_curve(logits, torch.tensor([1, 0])).tolist() == [0.5, 1.0]


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_a_law_fires_from_its_level_on(law):
    theta = 1.5
    for share, fires in ((0.999, False), (1.001, True)):
        bits, _, _ = law.step(np.float64(share * law.fires_at * theta), np.float64(0), np.float64(0), np.float64(theta))
        assert any(map(bool, bits)) == fires, share
