"""The literature's methods: their formulas by hand, the slow loop, and what every method promises."""

from __future__ import annotations

import copy
import csv
import io
import json
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import simulate_differential, simulate_reference

from explorer.cli.compare import chosen_methods
from explorer.cli.main import main
from explorer.engine import QuantisedClip, SpecError, SpikeStore, methods, simulate, trace
from explorer.engine.errors import Cancelled, DataError
from explorer.engine.graph.network import state_fingerprint
from explorer.engine.methods import Probe
from explorer.engine.methods.calibrate.staircase import descend
from explorer.engine.methods.catalogue.cos import moved_start
from explorer.engine.methods.catalogue.differential import DifferentialRun, normal_least_squares
from explorer.engine.methods.catalogue.light_calibration import least_squares
from explorer.engine.methods.catalogue.radix import digits
from explorer.engine.methods.catalogue.scaled_thresholds import scales
from explorer.engine.methods.coded import Coded, depth, levels
from explorer.engine.methods.fitted import FirstPhase, TwoPhases, edited, read_out
from explorer.engine.methods.fitting import by_channel, changed, fire
from explorer.engine.neurons import law_named
from explorer.engine.neurons.parameters import Neurons
from explorer.engine.specs import MaxActivation, Record, SimulationSpec, SiteSetting
from explorer.study.side_by_side import COLUMNS, Refusal, compare, tasks
from tests.pictures import class_folders

nn = torch.nn
T = 4
GENERATOR = torch.Generator().manual_seed(4)
IMAGES = torch.randn(5, 3, 8, 8, generator=GENERATOR)
TRAINING = torch.randn(12, 3, 8, 8, generator=GENERATOR)
KINDS = [kind for kind in methods.all() if not kind.key.startswith("calibrate")]  # those have tests of their own
KEYS = [kind.key for kind in KINDS]
PLAIN = [key for key in KEYS if key != "qcfs"]


class Small(nn.Module):
    """A shortcut and an average pool; every site is quantised if asked for."""

    def __init__(self, activation=nn.ReLU) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.f, self.g, self.h = activation(), activation(), activation()
        self.pool, self.out = nn.AvgPool2d(4), nn.Linear(8 * 4, 6)

    def forward(self, x):
        x = self.f(self.a(x))
        x = self.g(self.b(x) + x)
        return self.out(torch.flatten(self.h(self.c(self.pool(x))), 1))


def traced(activation=nn.ReLU):
    torch.manual_seed(1)
    network = Small(activation).eval()
    for layer in (network.a, network.b, network.c):
        nn.init.normal_(layer.weight, std=1.5 / layer.weight[0].numel() ** 0.5)
    return trace(network, IMAGES[:1])


@pytest.fixture(scope="module")
def plain():
    return traced()


@pytest.fixture(scope="module")
def probe(plain):
    return Probe(plain, TRAINING)


@pytest.fixture(scope="module")
def network_of(plain):
    quantised = traced(lambda: QuantisedClip(0.9, 4))
    return lambda key: quantised if key == "qcfs" else plain


def fitted(key, network, T=T, **options):
    return methods.get(key)(**options).fit(network, T, TRAINING)


# By hand


def neuron(x, v=0.0, **own):
    """Return what one neuron sends in each step; v: v(0)."""
    site = type("S", (), {"shape": (1,), "name": "s"})()
    return fire(site, Neurons(**own), torch.tensor(x)[:, None, None], torch.tensor([v])).flatten().tolist()


def test_an_optimal_shift_is_half_a_threshold_at_the_end():
    """theta 1, T 4, x 0.4: floor(4 * 0.4) = 1 spike, floor(4 * 0.4 + 1/2) = 2."""
    assert neuron([0.4] * 4) == [0, 0, 1, 0]
    assert neuron([0.4] * 4, shift=torch.tensor(1 / 8)) == [0, 1, 0, 1]


def test_a_burst_sends_what_is_there_up_to_its_most():
    for most, expected in ((2, [2, 2, 0]), (3, [3, 1, 0]), (4, [4, 0, 0]), (5, [4, 0, 0])):
        assert neuron([4.25, 0.0, 0.0], law=law_named(f"burst_{most}")) == expected


@pytest.mark.parametrize(
    ("x", "start"),
    [
        ([0.6, -0.8, -0.6, 0.0], -0.5),  # fired at 1.1 and ended at -1.3: 1/2 - max(1, 1.1 - 0.999)
        ([1.7, -2.0, -0.5, 0.0], -0.701),  # fired at 2.2: 1/2 - max(1, 2.2 - 0.999)
        ([-0.9, 0.0, 0.0, 2.6], 1.901),  # ended at 1.2, silent at -0.4 at most: 1/2 + max(1, 1.001 + 0.4)
        ([0.2, 0.2, 0.2, 0.2], 0.5),  # ended between 0 and 1
        ([-0.9, -0.9, 0.1, 0.1], 0.5),  # ended below 0, but never fired
    ],
)
@pytest.mark.parametrize("theta", [1.0, 0.25])
def test_cos_moves_a_start_just_far_enough(x, start, theta):
    moved = moved_start(torch.tensor(x)[:, None] * theta, torch.tensor(theta), torch.tensor([0.5]))
    assert moved.item() == pytest.approx(start, abs=1e-6)
    before, after = (neuron([v * theta for v in x], theta=torch.tensor(theta), v=s * theta) for s in (0.5, start))
    changed_by = {True: -1, False: 1}[start < 0.5] if start != 0.5 else 0
    assert sum(after) - sum(before) == changed_by


def test_scaled_thresholds_by_hand():
    """Percentiles 0, 1, 2, 3, mu 2, T 1: firing at 2 sends 0, 0, 2, 2 where 0, 1, 2, 2 is wanted, so beta = 5/4."""
    assert scales(np.array([0.0, 1.0, 2.0, 3.0]), 2.0, 1, 2.0) == (1.0, 1.25)
    assert scales(np.array([-2.0, -1.0]), 2.0, 1, 2.0) == (1.0, 1.0)


def test_light_calibrations_thresholds_are_a_search_by_brute_force(probe, plain):
    for site in plain.sites:
        found = least_squares(probe.statistics[site.name], T, "channel")
        a = probe.activations(site.name).double().movedim(1, 0).flatten(1)
        for channel in range(site.channels):
            top = a[channel].max()
            if top == 0:
                continue
            error = [
                float(((a[channel] * T / c).clamp(0, T).floor() * c / T - a[channel]).square().mean())
                for c in (top * (1 - 0.01 * i) for i in range(95))
            ]
            share = round((1 - float(found[channel] / top)) * 100)
            assert error[share] <= min(error) * 1.02 + 1e-9, "but for the width of a bin"


def test_levels_of_a_first_spike_and_of_binary_digits():
    """a 0.6, theta 1: 4 steps give floor(2.4 + 1/2) = 2, a spike at k = 2; 3 digits give floor(4.8 + 1/2) = 5 = 101."""
    a, theta = torch.tensor([0.6], dtype=torch.float64), torch.tensor(1.0)
    assert levels(a, torch.tensor(0.5), theta, 4, 4).item() == 2
    n = levels(a, torch.tensor(0.5), theta, 8, 7)
    assert n.item() == 5 and digits(n.long(), 3).item() == 2


@given(st.floats(-0.5, 1.5), st.integers(1, 10))
def test_digits_are_the_greedy_loop(a, steps):
    a = round(a, 6)
    v, value, sent = a + 0.5 / 2**steps, 0.0, 0
    for k in range(1, steps + 1):
        z = v >= 2.0**-k
        v, value, sent = v - z * 2.0**-k, value + z * 2.0**-k, sent + z
    n = levels(torch.tensor(a, dtype=torch.float64), torch.tensor(0.5), torch.tensor(1.0), 2**steps, 2**steps - 1)
    scaled = a * 2**steps + 0.5
    if abs(scaled - round(scaled)) > 1e-6:
        assert n.item() / 2**steps == value and digits(n.long(), steps).item() == sent


def test_rmp_takes_a_share_of_the_largest_current(plain):
    ours = fitted("rmp", plain, beta=0.7, steps=5)
    record = Record(sites=tuple(site.name for site in plain.sites))
    run = simulate(ours.snn, TRAINING, SimulationSpec(5, record))
    for site in plain.sites:
        assert float(ours.snn.theta[site.name]) == pytest.approx(0.7 * float(run.x[site.name].max()), rel=1e-6)


def test_signed_thresholds_are_each_neurons_largest_activation(plain):
    theta = fitted("signed", plain).snn.theta
    for site in plain.sites:
        most = plain.activations(TRAINING)[site.name].amax(0)
        assert torch.allclose(theta[site.name], torch.where(most > 0, most, most.max()), atol=1e-6)


def test_local_balancing_is_its_loop(plain):
    ours = fitted("local-balancing", plain, batch=5, updates=5)
    z = plain.graph_module.get_submodule("a")(TRAINING)
    theta = torch.zeros(8, dtype=torch.float64)
    for batch in (z[:5], z[5:10], z[10:], z[:5], z[5:10]):
        above = (batch.clamp(min=0).double() - theta[:, None, None]).clamp(min=0)
        theta = theta + 2 * above.mean((0, 2, 3))
    assert torch.allclose(ours.snn.theta[plain.sites[0].name].flatten().double(), theta, rtol=1e-5)
    first = ((theta[:, None, None] / 2) / z.clamp(min=0).double().mean(0)).min()
    assert ours.skipped >= first


def test_a_read_out_leaves_early_steps_out_but_reads_at_least_four():
    current = torch.arange(1.0, 9.0)[:, None, None]
    mean = current.cumsum(0) / torch.arange(1, 9)[:, None, None]
    late = read_out(mean, 3).flatten().tolist()
    assert late == pytest.approx([1, 1.5, 2, 2.5, 3.5, 4.5, 5.5, 6.0])


def test_a_correction_in_time_is_its_loop_on_one_site(plain):
    """The first site's current is constant: its biases by a loop of the paper's rule."""
    ours = fitted("ftbc", plain, eta=0.5, rounds=2, threshold="max")
    site = plain.sites[0]
    x, own = plain.graph_module.get_submodule("a")(TRAINING), ours.snn.neurons[site.name]
    a, theta, bias = x.clamp(min=0), float(own.theta), torch.zeros(T, 8, 1, 1)
    for _ in range(2):
        v, sent = torch.full_like(x, theta / 2), []
        for t in range(T):
            v = v + x + bias[t]
            z = (v >= theta).float()
            v, sent = v - theta * z, [*sent, (theta * z).mean((0, 2, 3))]
        bias = bias + 0.5 * (a.mean((0, 2, 3)) - torch.stack(sent))[:, :, None, None]
    assert torch.allclose(own.shift, bias, atol=1e-4)


@pytest.mark.parametrize("correct", ["bias", "potential"])
def test_light_calibration_leaves_less_mean_error(plain, probe, correct):
    before, after = (methods.get("light-calibration")(correct=c).fit(plain, T, probe) for c in ("none", correct))
    for site in plain.sites[1:]:
        gaps = [
            (probe.mean_output(each.snn, site.name, T, "neuron") - probe.mean_activation(site.name, "neuron"))
            .abs()
            .mean()
            for each in (before, after)
        ]
        assert gaps[1] < gaps[0], site.name


def test_weights_descend_as_autograd_would_take_them():
    """Adam on the staircase with a straight-through gradient, by torch's own; the best of all steps is kept."""
    generator = torch.Generator().manual_seed(0)
    u, x, a = (torch.randn(50, n, generator=generator, dtype=torch.float64) for n in (7, 3, 3))
    a, theta, v, size = a.clamp(min=0), torch.tensor([1.0, 0.7, 2.0]).double(), torch.tensor([0.5, 0.3, 1.0]), 0.4

    class Stairs(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            ctx.save_for_backward((z > 0) & (z < theta))
            return torch.clamp(torch.floor((T * z + v) / theta), 0, T) * theta / T

        @staticmethod
        def backward(ctx, gradient):
            return gradient * ctx.saved_tensors[0]

    delta = torch.zeros(8, 3, dtype=torch.float64, requires_grad=True)
    optimiser, ones = torch.optim.Adam([delta], lr=0.02 * size, eps=1e-12), torch.ones(50, 1)
    errors, seen = [], []
    for _ in range(21):
        error = (Stairs.apply(x + torch.cat([u, ones], 1) @ delta) - a).square().mean(0)
        errors.append(error.detach())
        seen.append(delta.detach().clone())
        optimiser.zero_grad()
        error.sum().backward()
        optimiser.step()
    best = torch.stack(errors).argmin(0)
    assert (best > 0).all()
    expected = torch.stack([seen[k][:, c] for c, k in enumerate(best)], 1)
    assert torch.allclose(descend(u, x, a, v.double(), theta, T, size, 20, 0.02), expected, atol=1e-9)


def test_advanced_calibration_makes_a_network_of_its_own_and_errs_less(plain, probe):
    before = state_fingerprint(plain.graph_module)
    light, advanced = (
        methods.parse(f"light-calibration:correct={c}").fit(plain, T, probe) for c in ("bias", "weights")
    )
    assert state_fingerprint(plain.graph_module) == before
    assert advanced.snn.network.fingerprint not in (before, plain.fingerprint) and light.snn.network is plain
    assert advanced.network is plain and advanced.watch(TRAINING).ann is plain
    last, want = plain.sites[-1].name, plain.activations(TRAINING)[plain.sites[-1].name]
    errors = []
    for each in (light, advanced):
        run = simulate(each.snn, TRAINING, SimulationSpec(T))
        errors.append(float((run.counts[last] * each.snn.theta[last] / T - want).square().mean()))
    assert errors[1] < errors[0]


def test_biases_of_parallel_conversion_by_hand():
    """One neuron, theta 1, T 4, start 1/2, z = 0.3 in both images: n = 1, so b_out = 0.05 after one batch."""
    layers = nn.Sequential(nn.Flatten(), nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 1)).eval()
    for layer, bias in ((layers[1], 0.0), (layers[3], 0.0)):
        nn.init.ones_(layer.weight)
        nn.init.constant_(layer.bias, bias)
    images = torch.tensor([[1.0, 0.0], [0.3, 0.0], [0.3, 0.0]])[:, None, None]
    network = trace(layers, images[:1])
    for momentum, batch, expected in ((0.0, 3, 0.25 + 0.1 / 3), (0.5, 1, 0.25 + 0.05 * (1 / 4 + 1 / 2))):
        # momentum 0, one batch: mean a = 1.6 / 3, mean a_hat = (1 + 2 / 4) / 3; one by one: 0, then 0.05 twice
        kind = methods.get("parallel")(threshold="max", biases=True, momentum=momentum, batch=batch)
        assert kind.fit(network, T, images).run(images).logits[-1, 1, 0].item() == pytest.approx(expected, abs=1e-6)


def test_percentiles_over_positive_activations(plain, probe):
    for per in ("site", "channel"):
        theta = fitted("percentile-norm", plain, p=90.0, over="positive", per=per).snn.theta
        for site in plain.sites:
            a = probe.activations(site.name)[:, :1] if per == "channel" else probe.activations(site.name)
            if not (a > 0).any():
                continue
            expected = np.percentile(a[a > 0].numpy(), 90)
            assert float(theta[site.name].reshape(-1)[0]) == pytest.approx(expected, rel=1e-5)


def test_differential_thresholds_are_the_least_squares_of_a_normal():
    """By brute force on quantiles: no other threshold of a fine grid errs less."""
    q = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    z = torch.special.ndtri(q)
    mean, deviation, L = torch.tensor([0.3, -1.2], dtype=torch.float64), torch.tensor([1.0, 0.5]).double(), 16
    for m, d, theta in zip(mean, deviation, normal_least_squares(mean, deviation, L), strict=True):
        x, grid = m + d * z, theta * torch.linspace(0.8, 1.2, 41, dtype=torch.float64)
        errors = [float(((torch.round(L * x / c).clamp(0, L) * c / L - x.clamp(min=0)) ** 2).mean()) for c in grid]
        assert abs(int(np.argmin(errors)) - 20) <= 1 and errors[20] <= min(errors) * 1.001


def test_differential_coding_by_hand():
    """theta 8 in units of the least: a mean of 8 is told once and stands; a mean of 5 is told as 4, then 1 * t."""
    layers = nn.Sequential(nn.Flatten(), nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 1)).eval()
    for layer, bias in ((layers[1], 0.0), (layers[3], 0.25)):
        nn.init.ones_(layer.weight)
        nn.init.constant_(layer.bias, bias)
    images = torch.tensor([[8.0, 0.0], [5.0, 0.0], [-3.0, 0.0]])[:, None, None]
    network = trace(layers, images[:1])
    ours = methods.get("differential")(threshold="max").fit(network, 3, images).run(images)
    assert ours.logits[:, 0, 0].tolist() == pytest.approx([8.25] * 3), "8 at once, then silence"
    assert ours.logits[:, 1, 0].tolist() == pytest.approx([4.25, 5.25, 5.25]), "4, then v = 2 is told: 4 + 2 / 2"
    assert ours.logits[:, 2, 0].tolist() == pytest.approx([0.25] * 3), "only the constant"
    assert ours.spikes[network.sites[0].name].tolist() == [1, 2, 0]


def test_differential_coding_refuses_clips_and_max_pools():
    clipped = traced(nn.ReLU6)
    with pytest.raises(SpecError, match="has an upper bound, and a neuron that sends changes has none"):
        fitted("differential", clipped)
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2)).eval()
    with pytest.raises(SpecError, match="a max pool passes spikes of -1, 0 and 1 alone"):
        fitted("differential", trace(pooled, IMAGES[:1])).run(IMAGES)


# Against the slow loop


def slow(conversion, images):
    """Return the reference's scores of a fitted conversion, and its counts."""
    if isinstance(conversion, Coded):
        return slow_coded(conversion, images)
    snn = conversion.snn
    if isinstance(conversion, DifferentialRun):
        return simulate_differential(snn, images, T, conversion.method.thresholds)
    if isinstance(conversion, TwoPhases):
        snn, _ = conversion.prepare(conversion.snn, FirstPhase(images, SimulationSpec(T), SpikeStore(), None))
    logits, counts, _ = simulate_reference(snn, images, T)
    return read_out(logits, conversion.skipped), counts


def slow_coded(conversion, images):
    """Run the ANN in float64 with each rectifier's staircase written out."""
    module = copy.deepcopy(conversion.network.graph_module).double()
    key, counts = conversion.method.key, {}
    names = {node: name for name, node in conversion.network.site_nodes.items()}

    class Stairs(torch.fx.Interpreter):
        def run_node(self, n):
            if n.name not in names:
                return super().run_node(n)
            x, theta = self.env[n.all_input_nodes[0]], conversion.snn.theta[names[n.name]].double()
            top = 2**T - 1 if key == "radix" else T
            N = 2**T if key == "radix" else T
            k = torch.clamp(torch.floor(x * N / theta + 0.5), 0, top)
            counts[names[n.name]] = k
            return k / N * theta

    return Stairs(module).run(images.double())[None], counts


@pytest.mark.parametrize("key", KEYS)
def test_every_method_is_the_slow_loop(network_of, key):
    conversion = fitted(key, network_of(key))
    outcome, (logits, counts) = conversion.run(IMAGES), slow(conversion, IMAGES)
    assert sum(float(n.abs().sum()) for n in counts.values()) > 50, "something fires"
    assert outcome.logits.shape == (T, 5, 6)
    close = (outcome.logits[-len(logits) :].double() - logits).abs().amax((0, 2)) < 1e-4
    assert close.sum() >= 4, "but for one image with a tie"
    if not isinstance(conversion, Coded):
        return
    assert torch.isnan(outcome.logits[:-1]).all(), "there is no answer before the last step"
    spikes = sum(float(n.sum()) for n in outcome.spikes.values())
    told = {"first-spike": lambda n: n > 0, "radix": lambda n: digits(n.long(), T), "parallel": lambda n: n}[key]
    assert spikes == pytest.approx(sum(float(told(n).sum()) for n in counts.values()), rel=1e-3)


@pytest.mark.parametrize("key", ["srp", "cos"])
def test_first_phases_by_the_slow_loop(plain, key):
    """The mask and the moved starts, from the reference's potentials."""
    conversion = fitted(key, plain)
    snn, before = conversion.prepare(conversion.snn, FirstPhase(IMAGES, SimulationSpec(T), SpikeStore(), None))
    assert [run.T for run in before] == [4] and conversion.latency == T + 4
    if key == "srp":
        _, _, v = simulate_reference(conversion.snn, IMAGES, 4)
        for site in plain.sites:
            gate, left = snn.neurons[site.name].gate, v[site.name] / conversion.snn.theta[site.name].double()
            sure = (left - 1e-3).abs() > 1e-4
            assert torch.equal(gate[sure], (left > 1e-3)[sure]) and not gate.all()
    else:
        site, bare = plain.sites[0], conversion.snn.theta[plain.sites[0].name]
        x = plain.graph_module.get_submodule("a")(IMAGES)
        expected = moved_start(x.expand(4, *x.shape), bare, torch.tensor(0.5))
        assert (snn.neurons[site.name].start - expected).abs().mean() < 1e-3
        moved = sum(int((snn.neurons[s.name].start != 0.5).sum()) for s in plain.sites)
        assert moved > 20


def test_differential_coding_seen_closely(plain):
    """Told, left and split add up; a membrane and a raster are the run's own."""
    ours, site = fitted("differential", plain), plain.sites[1].name
    seen, run = ours.watch(IMAGES), ours.run(IMAGES)
    assert torch.equal(seen.logits, run.logits)
    assert float(seen.spikes[site].sum()) == float(run.spikes[site].sum())
    z = seen.rasters([site], plain.site(site).neurons)[site].double()
    told = (z / torch.arange(1, T + 1)[:, None, None]).sum(0) * T
    assert torch.allclose(seen.sent(site).flatten(1), told, atol=1e-4)
    parts = seen.error_parts(site)
    total = parts.clipping + parts.inherited + parts.quantisation + parts.unevenness
    assert torch.allclose(total, parts.total, atol=1e-9) and float(parts.unevenness.abs().max()) > 0
    assert float(parts.clipping.abs().max()) == 0
    first = ours.watch(IMAGES[:1])
    neuron = int(first.spikes[site].flatten().argmax())
    story, theta = (
        first.membrane(site, neuron),
        float(ours.snn.theta[site].expand(plain.site(site).shape).flatten()[neuron]),
    )
    assert torch.equal(story.z, first.rasters([site], plain.site(site).neurons)[site][:, 0, neuron])
    assert float(story.v[-1]) == pytest.approx(float(first.v_end(site).flatten()[neuron]), abs=1e-5)
    assert float(story.decoded[-1]) == pytest.approx(theta * float(first.sent(site).flatten()[neuron]) / T, abs=1e-5)
    came = story.x.double() / torch.arange(1, T + 1)
    assert theta * told[0, neuron] / T + float(story.v[-1]) / T == pytest.approx(float(came.sum()), abs=1e-5)


# What every method promises


@pytest.mark.parametrize("key", KEYS)
def test_a_method_is_free_of_batch_and_chunk_and_leaves_nothing_behind(network_of, key):
    network = network_of(key)
    before, training = state_fingerprint(network.graph_module), TRAINING.clone()
    one, two = fitted(key, network), fitted(key, network)
    outcome = one.run(IMAGES)
    for other in (two.run(IMAGES), one.run(IMAGES, chunk=2), one.run(IMAGES, chunk=1)):
        assert torch.equal(outcome.logits, other.logits) or isinstance(one, Coded)
        assert torch.equal(outcome.logits[-1], other.logits[-1])
        for site, n in outcome.spikes.items():
            assert torch.equal(n, other.spikes[site])
        assert float(outcome.added.sum()) == pytest.approx(float(other.added.sum()), rel=1e-9)
    split = torch.cat([one.run(IMAGES[:3]).logits[-1], one.run(IMAGES[3:]).logits[-1]])
    assert torch.equal(outcome.logits[-1], split)
    assert state_fingerprint(network.graph_module) == before and torch.equal(training, TRAINING)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.graph_module.modules())


@pytest.mark.parametrize("key", ["opi", "cos", "parallel", "differential"])
def test_a_random_start_is_its_seeds(plain, key):
    """The same seed gives the same run, also image by image; another gives another."""
    runs = [fitted(key, plain, v_init="uniform:0:1", seed=seed).run(IMAGES).logits[-1] for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    alone = fitted(key, plain, v_init="uniform:0:1", seed=1).run(IMAGES[3:4]).logits[-1]
    assert torch.equal(alone[0], runs[0][3])


OTHER = {
    "threshold": "max:channel", "v_init": "0.2", "law": "signed_at_zero", "p": 90.0, "per": "channel", "share": 0.1,
    "beta": 0.4, "steps": 1, "most": 0.5, "correct": "potential", "tau": 1, "margin": 0.4, "rho": 1, "rounds": 2,
    "G": 2, "batch": 3, "updates": 3, "delayed": False, "eta": 0.1, "thresholds": 2,
    "over": "positive", "biases": True, "momentum": 0.9, "rate": 0.05,
}  # fmt: skip
NEEDS = {
    ("light-calibration", "rounds"): {"correct": "weights", "rate": 0.05},
    ("light-calibration", "rate"): {"correct": "weights"},
    ("parallel", "momentum"): {"biases": True},
    ("parallel", "batch"): {"biases": True},
}  # fmt: skip
CASES = [(kind.key, each.name) for kind in KINDS for each in kind.options()]


@pytest.mark.parametrize(("key", "name"), CASES)
def test_every_field_of_every_method_changes_a_result(network_of, key, name):
    network, steps = network_of(key), 6
    common = {"v_init": "uniform:0:1"} if name == "seed" else {}
    common |= NEEDS.get((key, name), {})
    other = {"seed": 5, **OTHER}[name]
    if key == "light-calibration" and name == "per":
        other = "site"
    if name == "G":
        common = {"threshold": "percentile:60"}
    if key == "scaled" and name == "threshold":
        other = "max"
    if key == "local-balancing" and name == "delayed":
        common, steps = {"v_init": "0"}, 12
    runs = [fitted(key, network, steps, **common, **own).run(IMAGES) for own in ({}, {name: other})]
    differ = [not torch.equal(runs[0].spikes[site], runs[1].spikes[site]) for site in runs[0].spikes]
    assert not torch.equal(runs[0].logits[-1], runs[1].logits[-1]) and (any(differ) or name == "delayed")


def test_what_makes_no_sense_is_refused(plain, probe):
    for text, words in (
        ("cos:law=signed", "An offset spike is one that cannot be taken back"),
        ("rmp:threshold=max", "thresholds are what the method finds"),
        ("burst:G=9", "G is a whole number from 2 to 5, got 9"),
        ("opi:v_init=nan", "from -1 to 2"),
        ("opi:v_init=abc", "is no initial potential"),
        ("opi:threshold=some", "is no rule"),
        ("opi:law=leaky", "law is one of own, integrate_and_fire"),
        ("opi:rho=4", r"'rho=4' cannot be read\. Write field=value, fields: threshold, v_init"),
        ("cos:rho=four", "rho is a number, got 'four'"),
        ("local-balancing:delayed=maybe", "delayed is true or false"),
        ("nothing", "method: 'nothing' is none. Choose one of max-norm"),
    ):
        with pytest.raises(SpecError, match=words):
            methods.parse(text)
    for text, words in (
        ("qcfs", "was not trained with quantised activations"),
        ("light-calibration:correct=potential,v_init=uniform:0:1", "potentials are corrected from a constant start"),
        ("light-calibration:correct=weights,v_init=uniform:0:1", "weights are corrected from a constant start"),
        ("opi:threshold=clip", "has no trained clip"),
    ):
        with pytest.raises(SpecError, match=words):
            methods.parse(text).fit(plain, T, probe)
    with pytest.raises(SpecError, match="at most 24 digits"):
        methods.get("radix")().fit(plain, 25, probe)
    with pytest.raises(SpecError, match="fitted for T = 4, so it cannot run 5 steps"):
        methods.get("optimal-shift")().fit(plain, 4, probe).run(IMAGES, 5)
    with pytest.raises(SpecError, match="another network"):
        methods.get("opi")().fit(traced(), 4, probe)
    with pytest.raises(DataError, match="looks at calibration images and got none"):
        methods.get("opi")().fit(plain, 4)
    with pytest.raises(Cancelled):
        methods.get("ftbc")().fit(plain, 4, TRAINING, stop=lambda: True)


def test_a_method_is_written_and_read_back():
    for kind in methods.all():
        assert kind.key and kind.title and kind.citation and kind.equation and len(kind.about) > 80
        assert methods.parse(methods.written(kind())) == kind()
    for text in ("cos:v_init=0.4,rho=8", "opi:v_init=uniform:0:1,seed=3", "local-balancing:delayed=False"):
        assert methods.written(methods.parse(text)) == text
    assert methods.get("cos")(rho=8) == methods.parse("cos:rho=8")
    assert [m.key for m in chosen_methods("all")] == [kind.key for kind in methods.all()]
    assert [methods.written(m) for m in chosen_methods("cos:rho=8,rounds=2;opi")] == ["cos:rho=8,rounds=2", "opi"]


def test_images_of_another_chunk_are_refused(plain, probe):
    snn = methods.get("opi")().fit(plain, T, probe).snn
    site = plain.sites[0]
    for own in ({"start": torch.zeros(2, *site.shape)}, {"gate": torch.ones(2, *site.shape, dtype=torch.bool)}):
        with pytest.raises(SpecError, match="was made for 2 images, the run has 5"):
            simulate(changed(snn, site.name, **own), IMAGES, SimulationSpec(T))


def test_memory_running_out_halves_the_images_of_both_phases(plain, probe, monkeypatch):
    ours, sizes = methods.get("cos")().fit(plain, T, probe), []
    expected, run = ours.run(IMAGES), FirstPhase.run

    def tight(phase, *how):
        sizes.append(len(phase.images))
        if len(phase.images) > most:
            raise (torch.OutOfMemoryError if len(sizes) % 2 else MemoryError)("full")
        return run(phase, *how)

    monkeypatch.setattr(FirstPhase, "run", tight)
    most = 2
    assert torch.equal(ours.run(IMAGES).logits, expected.logits) and sizes == [5, 2, 2, 2, 2, 1, 1]
    most = 0
    with pytest.raises(SpecError, match="Not even one image fits"):
        ours.run(IMAGES)


STARTS = st.sampled_from(["own", "0", "0.5", "1", "-0.5", "uniform:0:1", "gaussian:0.5:0.2"])
RULES = st.sampled_from(["own", "max", "max:channel", "percentile:99", "mse:channel", "mse:2"])
LAWS = st.sampled_from(["own", "integrate_and_fire", "signed", "signed_at_zero", "burst_3"])


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(PLAIN), RULES, STARTS, LAWS)
def test_parts_of_papers_go_together_or_are_refused(key, threshold, v_init, law):
    network, conversion = COMPOSED
    kind = methods.get(key)
    given_ = {"threshold": threshold, "v_init": v_init, "law": law}
    if any(given_[name] != "own" for name in kind.refuses):
        with pytest.raises(SpecError, match="cannot be chosen here"):
            kind(**given_)
        return
    ours = kind(**given_).fit(network, 3, conversion)
    outcome = ours.run(IMAGES[:2])
    assert torch.isfinite(outcome.logits[-1]).all() and outcome.added.min() >= 0
    assert ours.latency >= 3 and ours.bits == (2 if "sign" in law or law == "burst_3" else ours.bits)


COMPOSED = (network_ := traced(), Probe(network_, TRAINING[:4]))


# Side by side


def test_rows_of_a_comparison(plain, probe):
    chosen = chosen_methods("opi;cos;radix;qcfs;max-norm:v_init=0.3")
    todo = tasks(chosen, ["own", "0", "0.0", "0.50", "0.5"], [2, 30])
    assert [(t.method.key, t.v_init) for t in todo if t.T == 2].count(("opi", "0.5")) == 1
    labels = plain.forward(IMAGES).argmax(1).numpy()
    results = list(compare(todo, probe, lambda a, b: IMAGES[a:b], labels))
    rows = [r for r in results if not isinstance(r, Refusal)]
    assert {r.method for r in results if isinstance(r, Refusal)} >= {"qcfs", "radix"}
    for row in rows:
        assert row.ann_top1 == 1 and 0 <= row.low95 <= row.top1 <= row.high95 <= 1
        assert row.latency_total == row.T + row.latency
        assert row.latency == {"cos": 4, "radix": (depth(plain) - 1) * row.T}.get(row.method, 0)
    assert {row.v_init for row in rows if row.method == "opi"} == {"0", "0.5"}
    opi = next(row for row in rows if (row.method, row.v_init, row.T) == ("opi", "0.5", 30))
    run = simulate(methods.get("opi")().fit(plain, 30, probe).snn, IMAGES, SimulationSpec(30))
    assert opi.top1 == (run.logits[-1].argmax(1).numpy() == labels).mean()
    assert opi.spikes_per_neuron == pytest.approx(
        sum(run.spike_totals.values()) / 5 / sum(s.neurons for s in plain.sites)
    )


OWN = """
from torch import nn

def make():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(32, 2),
    )
"""


def test_the_command_line_compares_and_runs_one(capsys, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    base = [
        "--network", f"{tmp_path}/own.py:make", "--input-size", "16", "--classes", "cat,dog",
        "--data", str(class_folders(tmp_path / "pets", {"cat": 8, "dog": 8})), "--images", "6", "--threads", "1",
    ]  # fmt: skip
    torch.manual_seed(3)
    options = ["compare", *base, "--methods", "opi,first-spike", "--steps", "1,2"]
    assert main([*options, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    expected = [("opi", 1, 1), ("first-spike", 1, 2), ("opi", 2, 2), ("first-spike", 2, 4)]
    assert [(row["method"], row["T"], row["latency_total"]) for row in rows] == expected
    assert tuple(rows[0]) == COLUMNS
    torch.manual_seed(3)
    assert main([*options, "--csv"]) == 0
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [float(line["spikes_per_neuron"]) for line in lines] == [row["spikes_per_neuron"] for row in rows]
    assert main([*options, "--markdown"]) == 0
    assert capsys.readouterr().out.startswith("| method | v_init | T | latency | bits |")
    assert main(["run", *base, "--method", "cos:rho=2", "--steps", "2"]) == 0
    assert "Calibrating offset spikes (Hao et al. 2023b): cos:rho=2" in capsys.readouterr().out
    for wrong, words in (
        (["compare", "--methods", "opi", "--steps", "two"], "whole numbers separated by commas"),
        (["compare", "--methods", "qcfs", "--steps", "2", *base], "was not trained with quantised"),
        (["compare", "--json", "--csv"], "one of them"),
        (["run", "--method", "opi", "--threshold", "max"], "--threshold: a method sets thresholds"),
    ):
        assert main(wrong) == 2
        assert words in capsys.readouterr().err


def test_options_of_a_method_know_how_to_be_drawn():
    for kind in methods.all():
        names = [each.name for each in kind.options()]
        assert not set(names) & set(kind.refuses) and set(names) | set(kind.refuses) == {f.name for f in fields(kind)}
        for each in kind.options():
            assert each.metadata["help"]
            if isinstance(each.default, int | float) and not isinstance(each.default, bool):
                assert each.metadata["low"] <= each.default <= each.metadata["high"]


def test_a_probe_tells_what_the_ann_and_the_network_do(plain, probe):
    site = plain.sites[1]
    a = plain.activations(TRAINING)[site.name]
    assert torch.allclose(probe.activations(site.name), a, atol=1e-5)
    assert torch.allclose(probe.mean_activation(site.name), a.double().mean((0, 2, 3)), atol=1e-6)
    snn = methods.get("opi")().fit(plain, T, probe).snn
    snn = changed(snn, site.name, shift=by_channel(torch.linspace(-0.1, 0.1, 8), site))
    run = simulate(snn, TRAINING, SimulationSpec(T, Record(sites=(site.name,))))
    x = torch.cat([x for _, x in probe.currents(snn, site.name, T)], 1)
    z = torch.cat([z for _, z in probe.outputs(snn, site.name, T)], 1)
    shift = snn.neurons[site.name].shift
    assert torch.allclose(x + shift, run.x[site.name].reshape(x.shape), atol=1e-6)
    assert torch.equal(z.sum(0).int(), run.counts[site.name])
    by_step = probe.mean_output(snn, site.name, T, "step")
    assert torch.allclose(by_step.mean(0), probe.mean_output(snn, site.name, T), atol=1e-9)


def test_thresholds_from_statistics_are_those_of_calibrating(plain, probe):
    from explorer.engine import CalibrationSpec, calibrate

    spec = CalibrationSpec(MaxActivation("channel"))
    ours, theirs = probe.calibration(spec), calibrate(plain, TRAINING, spec)
    assert ours.images == 12
    for site, theta in theirs.theta.items():  # the ANN's float32 sums round by how its images are batched
        assert torch.allclose(ours.theta[site], theta, rtol=1e-5), site


# Seen closely


@pytest.mark.parametrize("key", KEYS)
def test_what_is_watched_is_the_run(network_of, key):
    """Scores and spikes are the run's; errors add up; a membrane decodes to what its neuron stands for."""
    network = network_of(key)
    conversion = fitted(key, network)
    watched, outcome = conversion.watch(IMAGES), conversion.run(IMAGES)
    assert torch.equal(watched.logits.nan_to_num(), outcome.logits.nan_to_num())
    one = conversion.watch(IMAGES[:1])
    for site in network.sites:
        parts, a = watched.error_parts(site.name), network.activations(IMAGES, (site.name,))[site.name]
        assert torch.equal(parts.a, a.double())
        causes = parts.clipping + parts.inherited + parts.quantisation + parts.unevenness
        assert torch.allclose(causes, parts.total, atol=1e-6)
        if conversion.extra == 0 or isinstance(conversion, Coded):  # first phases send spikes of their own
            assert torch.equal(watched.spikes[site.name].flatten(1).sum(1).double(), outcome.spikes[site.name])
        alone = one.error_parts(site.name).a_hat.flatten()
        neuron = int(alone.abs().argmax())
        membrane = one.membrane(site.name, neuron)
        assert float(membrane.decoded[-1]) == pytest.approx(float(alone[neuron]), abs=1e-4)
        assert membrane.x.shape == membrane.v.shape == membrane.z.shape == (T,)
        raster = one.rasters((site.name,), site.neurons)[site.name]
        assert torch.equal(raster[:, 0, neuron].bool(), membrane.z.bool()) or membrane.muted


def test_the_lab_sees_first_phases_and_muted_neurons(plain):
    srp, cos = fitted("srp", plain).watch(IMAGES[:1]), fitted("cos", plain).watch(IMAGES[:1])
    fired = []
    for site in (each.name for each in plain.sites):
        closed = (~srp.snn.neurons[site].gate).flatten().nonzero().flatten().tolist()
        fired += [one for one in (srp.membrane(site, n) for n in closed) if one.z.any()]
    assert fired, "a muted neuron still integrates"
    assert all(one.muted and not one.decoded.any() for one in fired)
    assert srp.membrane(site, 0).before.z.shape == (4,) == cos.membrane(site, 0).before.z.shape
    starts = torch.broadcast_to(cos.snn.neurons[site].start, (1, *plain.site(site).shape)).flatten()
    moved = cos.membrane(site, int((starts - 0.5).abs().argmax()))
    assert moved.before.v0 == pytest.approx(moved.theta / 2)
    assert moved.v0 / moved.theta == pytest.approx(float(starts[int((starts - 0.5).abs().argmax())]), rel=1e-4)
    assert abs(moved.v0 / moved.theta - 0.5) > 0.999


def test_changes_on_top_of_what_was_found(plain):
    """A threshold scale and a start of one layer act on every kind of conversion, and leave the one given as it was."""
    site = plain.sites[1].name
    for key in ("opi", "cos", "radix", "calibrate"):
        before = fitted(key, plain)
        logits = before.run(IMAGES).logits.nan_to_num()
        changed_one = edited(before, 1.0, {site: SiteSetting(threshold_scale=0.5, v_init=0.1)})
        assert not torch.equal(changed_one.run(IMAGES).logits.nan_to_num(), logits), key
        assert torch.equal(changed_one.snn.theta[site], before.snn.theta[site] * 0.5)
        assert torch.equal(before.run(IMAGES).logits.nan_to_num(), logits)
        assert torch.equal(edited(before).run(IMAGES).logits.nan_to_num(), logits), "nothing changed is nothing changed"
    with pytest.raises(SpecError):
        edited(before, 1.0, {"nowhere": SiteSetting(v_init=0.1)})
