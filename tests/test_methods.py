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
from reference import simulate_reference

from explorer.cli.compare import chosen_methods
from explorer.cli.main import main
from explorer.engine import QuantisedClip, SpecError, SpikeStore, methods, simulate, trace
from explorer.engine.errors import Cancelled, DataError
from explorer.engine.graph.network import state_fingerprint
from explorer.engine.methods import Probe
from explorer.engine.methods.catalogue.cos import moved_start
from explorer.engine.methods.catalogue.light_calibration import least_squares
from explorer.engine.methods.catalogue.radix import digits
from explorer.engine.methods.catalogue.scaled_thresholds import scales
from explorer.engine.methods.coded import Coded, depth, levels
from explorer.engine.methods.fitted import FirstPhase, TwoPhases, read_out
from explorer.engine.methods.fitting import by_channel, changed, fire
from explorer.engine.neurons import law_named
from explorer.engine.neurons.parameters import Neurons
from explorer.engine.specs import MaxActivation, Record, SimulationSpec
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


# Against the slow loop


def slow(conversion, images):
    """Return the reference's scores of a fitted conversion, and its counts."""
    if isinstance(conversion, Coded):
        return slow_coded(conversion, images)
    snn = conversion.snn
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
        assert float(outcome.additions.sum()) == pytest.approx(float(other.additions.sum()), rel=1e-9)
    split = torch.cat([one.run(IMAGES[:3]).logits[-1], one.run(IMAGES[3:]).logits[-1]])
    assert torch.equal(outcome.logits[-1], split)
    assert state_fingerprint(network.graph_module) == before and torch.equal(training, TRAINING)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.graph_module.modules())


OTHER = {
    "threshold": "max:channel", "v_init": "0.2", "law": "signed_at_zero", "p": 90.0, "per": "channel", "share": 0.1,
    "beta": 0.4, "steps": 1, "most": 0.5, "correct": "potential", "tau": 1, "margin": 0.4, "rho": 1, "rounds": 2,
    "G": 2, "batch": 3, "updates": 3, "delayed": False, "eta": 0.1,
}  # fmt: skip
CASES = [(kind.key, each.name) for kind in KINDS for each in kind.options()]


@pytest.mark.parametrize(("key", "name"), CASES)
def test_every_field_of_every_method_changes_a_result(network_of, key, name):
    network, steps = network_of(key), 6
    common = {"v_init": "uniform:0:1"} if name == "seed" else {}
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
        ("scaled:threshold=max:channel", "one per layer"),
        ("light-calibration:correct=potential,v_init=uniform:0:1", "from a constant start"),
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
    if key == "scaled" and "channel" in threshold:
        return
    ours = kind(**given_).fit(network, 3, conversion)
    outcome = ours.run(IMAGES[:2])
    assert torch.isfinite(outcome.logits[-1]).all() and outcome.additions.min() >= 0
    assert ours.latency >= 3 and ours.bits == (2 if "sign" in law or law == "burst_3" else ours.bits)


COMPOSED = (network_ := traced(), Probe(network_, TRAINING[:4]))


# Side by side


def test_rows_of_a_comparison(plain, probe):
    chosen = chosen_methods("opi;cos;radix;qcfs;max-norm:v_init=0.3")
    todo = tasks(chosen, ["own", "0", "0.5"], [2, 30])
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
