"""What methods say of themselves holds on networks with bounds, max pools, bursts, and rules that look at T."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from explorer.engine import Record, SimulationSpec, SpecError, methods, simulate, trace
from explorer.engine.graph.clip import TrainableClip
from explorer.engine.kernels import backend
from explorer.engine.methods import Probe
from explorer.engine.methods.fitted import edited
from explorer.engine.methods.names import anytime
from explorer.engine.neurons import LAWS, law_named
from explorer.engine.simulation.walk import Walk
from explorer.engine.synapses import additions, fan_out
from explorer.engine.theory import staircase_counts
from explorer.study.settings import Settings
from explorer.study.side_by_side import compare, tasks
from tests import networks

nn = torch.nn
IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(2))
KEPT_BELOW = (  # whatever finds thresholds of its own, but calibrations, whose thresholds are fitted to what is sent
    *("max-norm", "percentile-norm:over=positive", "percentile-norm:over=positive,per=channel", "rmp", "scaled"),
    *("signed", "signed:per=site", "signed:per=channel", "light-calibration", "light-calibration:per=site", "opi"),
    *("local-balancing:updates=40", "ftbc", "parallel", "first-spike", "srp:threshold=max", "cos:threshold=mse"),
)


def bounded(bounds):
    """Trace a network of two sites whose channels saturate at bounds of their own."""
    torch.manual_seed(3)
    clips = [TrainableClip(torch.tensor(bounds).reshape(-1, 1, 1)) for _ in range(2)]
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        clips[0],
        nn.Conv2d(4, 4, 3, padding=1),
        clips[1],
        nn.Flatten(),
        nn.Linear(256, 5),
    )
    for layer in (net[0], net[2]):
        nn.init.normal_(layer.weight, std=1.0)
    return trace(net.eval(), IMAGES[:1])


BOUNDED = bounded([0.25, 0.5, 2.0, 4.0])


@pytest.mark.parametrize("text", KEPT_BELOW)
def test_no_threshold_is_above_the_bound_of_its_channel(text):
    """Else a neuron sends what the ANN never does: the decoded activation may not pass the bound."""
    fitted = methods.parse(text).fit(BOUNDED, 8, IMAGES)
    seen = fitted.watch(IMAGES)
    for site in BOUNDED.sites:
        assert (fitted.snn.theta[site.name] <= site.bound).all()
        worth = fitted.snn.neurons[site.name].worth / fitted.snn.theta[site.name]
        assert (seen.error_parts(site.name).a_hat <= (site.bound * worth).double() + 1e-6).all()


def test_biases_of_parallel_conversion_aim_at_the_bounded_activation():
    plain, own = (methods.parse(text).fit(BOUNDED, 8, IMAGES) for text in ("parallel", "parallel:biases=true"))
    first = BOUNDED.sites[0].name
    errors = [run.watch(IMAGES).error_parts(first).total.mean((0, 2, 3)).abs() for run in (plain, own)]
    assert (errors[1] < errors[0] + 0.02).all(), "no channel's mean is moved away from the ANN's"


def test_scaled_thresholds_are_searched_by_channel_where_bounds_are():
    fitted = methods.parse("scaled").fit(BOUNDED, 4, IMAGES)
    alone = bounded([0.5] * 4)
    whole = methods.parse("scaled").fit(alone, 4, IMAGES)
    for site in BOUNDED.sites:
        assert fitted.snn.theta[site.name].shape == (4, 1, 1)
        assert fitted.snn.neurons[site.name].amplitude.shape == (4, 1, 1)
    channel = fitted.snn.neurons[BOUNDED.sites[0].name].amplitude.flatten()
    assert len(set(channel.tolist())) == 4 and whole.snn.theta[alone.sites[0].name].numel() == 4


# Rules that look at T


@pytest.mark.parametrize("text", ["opi:threshold=mse", "srp:threshold=mse:channel", "signed:threshold=mse"])
def test_a_rule_of_least_squares_is_taken_at_the_runs_T(text):
    """Whichever other T stand in the list, and whether the page or the command line asks."""
    network = trace(networks.make(networks.OptionAResNet), networks.images(1))
    probe, labels = Probe(network, networks.images(6)), torch.arange(6).numpy()
    inputs = lambda begin, end: networks.images(6, seed=5)[begin:end]  # noqa: E731
    method = methods.parse(text)
    rows = [[*compare(tasks([method], ["own"], Ts), probe, inputs, labels)][-1] for Ts in ([16], [1, 16])]
    assert rows[0].T == 16 == rows[1].T and rows[0].spikes_per_neuron == rows[1].spikes_per_neuron > 0
    assert not method.anytime and not anytime(text) and Settings(method=text).depends_on_T
    with pytest.raises(SpecError, match="fitted for T = 4"):
        method.fit(network, 4, probe).run(networks.images(1), 5)
    for other in (text + ":8" if "channel" not in text else "srp:threshold=mse:8:channel", text.split(":")[0]):
        assert methods.parse(other).anytime and anytime(other) and not Settings(method=other).depends_on_T


# Codes seen closely


@pytest.mark.parametrize("text", ["burst:threshold=max,v_init=0.5", "opi:threshold=max,law=burst_3"])
def test_what_bursts_can_send_is_not_clipped(text):
    network = trace(nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 3)).eval(), IMAGES[:1])
    fitted = methods.parse(text).fit(network, 8, IMAGES)
    site = network.sites[0].name
    strong = edited(fitted, 1 / 1.9)  # activations of up to 1.9 thresholds
    parts = strong.watch(IMAGES).error_parts(site)
    assert float((parts.a / strong.snn.theta[site]).max()) > 1.8
    assert float(parts.clipping.abs().max()) == 0 and float(parts.unevenness.abs().max()) < 1e-5
    assert float(parts.total.abs().max()) <= float(strong.snn.theta[site].max()) / 16 + 1e-6
    plain = edited(methods.parse("opi:threshold=max").fit(network, 8, IMAGES), 1 / 1.9).watch(IMAGES).error_parts(site)
    assert float(plain.clipping.min()) < 0


@pytest.mark.parametrize("law", list(LAWS.values()), ids=list(LAWS))
def test_a_step_counts_as_many_spikes_as_the_law_says_and_no_more(law):
    v = torch.linspace(-20, 40, 4001, dtype=torch.float64)
    bits, _, _ = law.rebound(torch.where)(v, 10 * torch.ones_like(v), torch.zeros_like(v), torch.tensor(1.0))
    counted = sum(n * bit.int() for n, bit in zip(law.planes, bits, strict=True))
    assert int(counted.max()) == law.most <= law.reach[1] and int(counted.min()) == law.reach[0]


@pytest.mark.parametrize("T", [2, 5, 8])
def test_what_radix_leaves_is_less_than_its_last_digit(T):
    network = trace(nn.Sequential(nn.Flatten(), nn.Linear(192, 64), nn.ReLU(), nn.Linear(64, 3)).eval(), IMAGES[:1])
    fitted = methods.parse("radix:threshold=max").fit(network, T, IMAGES)
    site = network.sites[0].name
    seen, theta = fitted.watch(IMAGES), float(fitted.snn.theta[site])
    inside = (seen.error_parts(site).a > 0) & (seen.error_parts(site).a < theta * (1 - 2.0**-T))
    left = seen.v_end(site)[inside] / (theta * T / 2**T)
    assert inside.sum() > 100 and float(left.min()) >= -1e-6 and float(left.max()) < 1 + 1e-6
    neuron = int(seen.error_parts(site).a[0].argmax())
    told = fitted.watch(IMAGES[:1]).membrane(site, neuron)
    assert float(told.v[-1]) == pytest.approx(float(seen.v_end(site)[0, neuron]), abs=1e-5)


@pytest.mark.parametrize("text", ["opi", "opi:law=signed_at_zero", "opi:law=signed"])
def test_additions_behind_max_pools_are_those_of_the_pools_own_trains(text):
    network = trace(networks.stir(networks.make(networks.MaxPools)), networks.images(1))
    images = networks.images(4)
    fitted = methods.parse(text).fit(network, 6, networks.images(8, seed=3))
    sim = simulate(fitted.snn, images, SimulationSpec(6, Record(v_end=False)))
    walk = Walk(fitted.snn, images, SimulationSpec(6), None, None, backend("cpu"))
    walk.simulation()
    expected = 0.0
    for sources in fan_out(network).values():
        for source, reach in sources.items():
            bits = sum(
                walk._unpacked(source, a, b).abs().ne(0).reshape(-1, 4, *reach.shape).sum(0) for a, b in walk.blocks
            )
            expected += float((bits.double().mean(0) * reach).sum())
    assert sum(additions(network, sim.sent, sim.pooled).values()) == pytest.approx(expected, rel=1e-9)
    assert float(fitted.run(images).added.sum()) / 4 == pytest.approx(expected, rel=1e-9)
    assert bool(sim.pooled) == ("signed" in text)


def test_a_max_pool_of_digits_sends_the_digits_of_the_largest_value():
    """8/16 is one digit, 7/16 three: the pool sends one."""
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.MaxPool2d((1, 2)), nn.Flatten(), nn.Linear(1, 5))
    net[0].weight.data.fill_(1.0)
    images = torch.tensor([[[[0.5, 7 / 16]]]])
    network = trace(net.eval(), images)
    for text, spikes, sent in (("radix:threshold=max", 4, 1), ("first-spike:threshold=max", 2, 1)):
        fitted = edited(methods.parse(text).fit(network, 4, torch.ones(1, 1, 1, 2)), 1.0)
        outcome = fitted.run(images)
        assert float(outcome.spikes[network.sites[0].name]) == spikes, text
        assert float(outcome.added.sum()) == 5 * sent, text


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=12), st.floats(0, 1, exclude_max=True, width=32))
def test_signed_spikes_are_the_staircase_where_the_potential_ends_within_a_threshold(x, start):
    step, v, m = (
        law_named("signed_at_zero").rebound(torch.where),
        torch.tensor([start]).double(),
        torch.zeros(1).double(),
    )
    for current in x:
        _, v, m = step(v, m, torch.tensor([current]).double(), torch.tensor(1.0).double())
    charge = sum(map(float, torch.tensor(x).double())) + float(torch.tensor(start).double())
    if 1e-6 < float(v) < 1 - 1e-6:
        assert float(m) == staircase_counts(torch.tensor(charge), 1.0, 1, 0.0, len(x)).item()
    assert float(m) + float(v) == pytest.approx(charge, abs=1e-6)


@pytest.mark.parametrize("text", ["opi", "calibrate", "optimal-shift"])
def test_another_threshold_keeps_the_size_of_what_is_decoded(text):
    """A spike is worth more or less with it: means stay, but for what is clipped or rounded."""
    network = trace(networks.make(networks.OptionAResNet), networks.images(1))
    fitted = methods.parse(text).fit(network, 32, networks.images(12))
    site, images = network.sites[0].name, networks.images(6, seed=4)
    assert torch.allclose(ratio(edited(fitted, 0.9), site), ratio(fitted, site))
    means = [float(edited(fitted, scale).watch(images).error_parts(site).a_hat.mean()) for scale in (1.0, 0.9, 1.2)]
    assert means[1] == pytest.approx(means[0], rel=0.08) and means[2] == pytest.approx(means[0], rel=0.08)


def ratio(fitted, site):
    """Return what a spike is worth in thresholds."""
    own = fitted.snn.neurons[site]
    return own.worth / own.theta
