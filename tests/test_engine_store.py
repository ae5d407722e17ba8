"""What is kept never changes a result: tweaks, chunks, threads, back ends, cancelled runs."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import Mixed, Residual
from test_engine_laws import IMAGES, warmed

from explorer.engine import (
    CalibrationSpec,
    Cancelled,
    ConstantStart,
    ConversionSpec,
    MaxActivation,
    Record,
    SimulationSpec,
    SpikeStore,
    calibrate,
    convert,
    simulate,
    trace,
)
from explorer.engine.kernels.cpu import scans
from explorer.zoo.resnet import CifarResNet


class Pooled(torch.nn.Module):
    """Max pools, a fire module's concat, a flatten with pixels left, and a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.a = nn.Conv2d(3, 24, 3, padding=1)
        self.pool = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)
        self.b, self.c = nn.Conv2d(24, 16, 1), nn.Conv2d(24, 16, 3, padding=1)
        self.d = nn.Conv2d(32, 32, 3, padding=1, groups=4)
        self.fc = nn.Linear(32 * 8 * 8, 20)
        self.out = nn.Linear(20, 5)

    def forward(self, x):
        x = self.pool(torch.relu(self.a(x)))
        x = torch.cat([torch.relu(self.b(x)), torch.relu(self.c(x))], 1)
        x = torch.nn.functional.max_pool2d(torch.relu(self.d(x)), 2)
        return self.out(torch.relu(self.fc(torch.flatten(x, 1))))


class Wide(torch.nn.Module):
    """So many channels that the engine goes tap by tap: strides, pooled taps, a shortcut from another source."""

    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.a, self.b = nn.Conv2d(3, 256, 3, stride=4, padding=1), nn.Conv2d(256, 512, 3, stride=2, padding=1)
        self.c, self.d = nn.Conv2d(512, 256, 3, padding=1), nn.Conv2d(256, 256, 1, stride=2)
        self.pool, self.e, self.out = nn.AvgPool2d(2), nn.Conv2d(256, 256, 2), nn.Linear(256, 5)

    def forward(self, x):
        a = torch.relu(self.a(x))
        x = torch.relu(self.c(torch.relu(self.b(a))) + self.d(a))
        return self.out(torch.flatten(torch.relu(self.e(self.pool(x))), 1))


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    nets = [warmed(CifarResNet(1, 10, torch.nn.ReLU)), Pooled().eval(), Wide().eval()]
    traced = [trace(net, IMAGES[:1]) for net in nets]
    return [(n, calibrate(n, IMAGES, CalibrationSpec(MaxActivation()))) for n in traced]


def tiny_network(kind):
    """Return a network small enough for Triton's interpreter, its calibration, and three images."""
    torch.manual_seed(1)
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    network = trace(kind().eval(), images[:1])
    return network, calibrate(network, images, CalibrationSpec(MaxActivation("channel"))), images


@pytest.fixture(scope="module")
def tiny():
    return tiny_network(Residual)


@pytest.fixture(scope="module")
def tiny_pooled():
    return tiny_network(Mixed)


def equal(a, b) -> None:
    assert torch.equal(a.logits, b.logits)
    assert a.spike_totals == b.spike_totals
    for name in a.counts:
        assert torch.equal(a.counts[name], b.counts[name]), name
    for name in a.v_end:
        assert torch.equal(a.v_end[name], b.v_end[name]), name


tweaks = st.lists(
    st.tuples(
        st.integers(0, 6),
        st.sampled_from([None, 0.5, 0.9, 1.3]),
        st.sampled_from([None, 0.0, 0.5, 0.8]),
        st.sampled_from([1, 5, 31, 32, 33, 40, 64]),
        st.sampled_from([(0, 5), (1, 4), (0, 2)]),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.integers(0, 1), sequence=tweaks, budget=st.sampled_from([10**4, 2 * 10**6, 10**9]))
def test_a_tweaked_run_equals_a_run_from_scratch(networks, which, sequence, budget):
    network, calibration = networks[which]
    store, spec = SpikeStore(budget), ConversionSpec()
    for site, scale, v_init, T, (first, last) in sequence:
        name = network.sites[site % len(network.sites)].name
        spec = spec.with_site(name, threshold_scale=scale, v_init=v_init)
        snn = convert(network, calibration, spec)
        images = IMAGES[first:last]
        equal(simulate(snn, images, SimulationSpec(T=T), store=store), simulate(snn, images, SimulationSpec(T=T)))
        assert store.bytes <= budget


def test_tweaked_runs_on_every_back_end_equal_runs_from_scratch(tiny_pooled, everywhere):
    network, calibration, images = tiny_pooled
    names, store, spec = [site.name for site in network.sites], SpikeStore(), ConversionSpec()
    seen = set()
    for site, change, T in ((1, {}, 2), (1, {"threshold_scale": 0.6}, 2), (3, {"v_init": 0.1}, 3)):
        spec = spec.with_site(names[site], **change)
        snn, run = convert(network, calibration, spec), SimulationSpec(T=T)
        tweaked = simulate(snn, images, run, store=store)
        equal(tweaked, simulate(snn, images, run))
        seen.add(tuple(tweaked.spike_totals.values()))
    assert len(seen) == 3 and min(map(sum, seen)) > 100


def test_no_chunk_and_no_cancelled_run_changes_a_result_on_any_back_end(tiny, everywhere):
    network, calibration, images = tiny
    snn, store, calls = convert(network, calibration), SpikeStore(), []
    whole = simulate(snn, images, SimulationSpec(T=3))
    assert sum(whole.spike_totals.values()) > 100
    parts = simulate(snn, images, SimulationSpec(T=3, chunk=2))
    for name, path in whole.paths.items():
        assert torch.equal(parts.counts[name], whole.counts[name]), name
        assert torch.allclose(parts.v_end[name], whole.v_end[name], rtol=0, atol=1e-5 if path == "float" else 0), name
    with pytest.raises(Cancelled):
        simulate(snn, images, SimulationSpec(T=3), store=store, stop=lambda: calls.append(0) or len(calls) > 3)
    assert len(calls) == 4
    equal(simulate(snn, images, SimulationSpec(T=3), store=store), whole)


def test_a_site_changes_itself_and_what_it_feeds_on_every_back_end(tiny, everywhere):
    network, calibration, images = tiny
    store, spec = SpikeStore(), ConversionSpec()
    base = simulate(convert(network, calibration), images, SimulationSpec(T=3), store=store)
    kept = len(store)
    last = network.sites[-1].name
    moved = simulate(
        convert(network, calibration, spec.with_site(last, v_init=0.05)), images, SimulationSpec(T=3), store=store
    )
    assert len(store) - kept == 4, "the last site's spikes, potentials and total, and the scores"
    for name in base.counts:
        assert torch.equal(base.counts[name], moved.counts[name]) == (name != last), name


@pytest.mark.parametrize("which", [0, 1, 2])
def test_same_spikes_at_any_batch_chunk_and_thread_count(networks, which):
    network, calibration = networks[which]
    snn = convert(network, calibration)
    base = simulate(snn, IMAGES, SimulationSpec(T=36))
    assert sum(base.spike_totals.values()) > 1000
    for chunk in (1, 2, 5):
        equal(simulate(snn, IMAGES, SimulationSpec(T=36, chunk=chunk)), base)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        equal(simulate(snn, IMAGES, SimulationSpec(T=36)), base)
    finally:
        torch.set_num_threads(threads)


def test_wide_layers_go_tap_by_tap(networks, monkeypatch):
    used = []
    real = scans.tap_scan
    monkeypatch.setattr(scans, "tap_scan", lambda *kind: used.append(kind) or real(*kind))
    network, calibration = networks[2]
    result = simulate(convert(network, calibration), IMAGES, SimulationSpec(T=8))
    assert len(used) >= 3 and all(result.spike_totals.values())


def test_a_shorter_run_is_a_prefix(networks):
    network, calibration = networks[0]
    snn = convert(network, calibration)
    long = simulate(snn, IMAGES, SimulationSpec(T=70))
    assert torch.equal(simulate(snn, IMAGES, SimulationSpec(T=33)).logits, long.logits[:33])


def test_a_late_tweak_recomputes_only_what_it_can_change(networks):
    network, calibration = networks[0]
    store = SpikeStore()
    quiet = SimulationSpec(T=16, record=Record(counts=False, v_end=False))
    simulate(convert(network, calibration), IMAGES, quiet, store=store)
    before = len(store)
    last = network.sites[-1].name
    simulate(convert(network, calibration, ConversionSpec().with_site(last, v_init=0.1)), IMAGES, quiet, store=store)
    assert len(store) - before == 4, "the last site's spikes, potentials and total, and the scores"


def test_cancelling_is_prompt_and_leaves_the_store_consistent(networks):
    network, calibration = networks[0]
    snn, store = convert(network, calibration), SpikeStore()
    calls = []

    def stop() -> bool:
        calls.append(time.perf_counter())
        return len(calls) > 4

    with pytest.raises(Cancelled):
        simulate(snn, IMAGES, SimulationSpec(T=64), store=store, stop=stop)
    assert len(calls) == 5, "no layer runs after the stop"
    equal(simulate(snn, IMAGES, SimulationSpec(T=64), store=store), simulate(snn, IMAGES, SimulationSpec(T=64)))


def test_progress_is_reported(networks):
    network, calibration = networks[0]
    seen = []
    snn = convert(network, calibration)
    simulate(snn, IMAGES, SimulationSpec(T=2, chunk=2), on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_the_store_keeps_to_its_budget_and_drops_the_oldest():
    import numpy as np

    store = SpikeStore(300)
    for i in range(3):
        store.put(i, np.zeros(100, np.uint8))
    assert store.get(0) is not None
    store.put(3, np.zeros(100, np.uint8))
    assert store.get(1) is None and store.get(0) is not None and store.bytes == 300
    with pytest.raises(ValueError):
        store.get(0)[0] = 1


def test_v_init_of_one_site_changes_only_it_and_its_descendants(networks):
    network, calibration = networks[0]
    base = simulate(convert(network, calibration), IMAGES, SimulationSpec(T=8))
    name = network.sites[2].name
    spec = ConversionSpec(v_init=ConstantStart(0.5)).with_site(name, v_init=0.0)
    moved = simulate(convert(network, calibration, spec), IMAGES, SimulationSpec(T=8))
    for site in network.sites[:2]:
        assert torch.equal(base.counts[site.name], moved.counts[site.name])
    assert not torch.equal(base.counts[name], moved.counts[name])


def test_neurons_are_made_again_only_if_something_about_them_changed(tiny):
    network, calibration, _ = tiny
    first, last = network.sites[0].name, network.sites[-1].name
    before = convert(network, calibration).neurons
    after = convert(network, calibration, ConversionSpec().with_site(last, v_init=0.1)).neurons
    assert after[first] is before[first] and after[last] is not before[last]
    other = replace(calibration, theta={**calibration.theta})
    convert(network, other)
    other.theta[first] = other.theta[first] * 2
    assert torch.equal(convert(network, other).theta[first], 2 * before[first].theta)
