"""Every back end that the machine has, by one set of tests: reference, CPU, and CUDA (or Triton's interpreter).

The networks are tiny, since the interpreter runs each operation of each program by itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Mixed, Residual
from reference import NEURONS, simulate_differential, simulate_reference
from torch import nn

from explorer.engine import (
    CalibrationSpec,
    ConstantStart,
    ConversionSpec,
    MaxActivation,
    Record,
    SimulationSpec,
    SpecError,
    SpikeStore,
    SpikingNetwork,
    UniformStart,
    calibrate,
    convert,
    trace,
)
from explorer.engine.kernels import backend as back_end
from explorer.engine.kernels.reference import law_scan, pack_bits, unpack_bits
from explorer.engine.neurons import LAWS, SIGNED_AT_ZERO, Law, law_named
from explorer.engine.neurons.parameters import Neurons
from explorer.engine.simulation.differential import DifferentialWalk
from explorer.engine.simulation.simulate import _chunks
from explorer.engine.simulation.walk import Walk

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(4))
T = 5


class Grouped(nn.Module):
    """A grouped convolution, which runs as traced, with constants."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.d, self.out = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=2), nn.Linear(8, 6)

    def forward(self, x):
        x = torch.relu(self.d(torch.relu(self.a(x))) + 0.1)
        return self.out(x.mean((2, 3)))


@pytest.fixture(scope="module", params=[Residual, Mixed])
def network(request):
    torch.manual_seed(1)
    return trace(request.param().eval(), IMAGES[:1])


def spiking(network, law: str = "integrate_and_fire", **spec) -> SpikingNetwork:
    calibration = calibrate(network, IMAGES, CalibrationSpec(MaxActivation("channel")))
    return convert(network, calibration, ConversionSpec(law=law, threshold_scale=0.83, **spec))


def with_neurons(snn: SpikingNetwork, site: str, **fields_) -> SpikingNetwork:
    return replace(snn, neurons={**snn.neurons, site: replace(snn.neurons[site], **fields_)})


def run(snn, backend, T=T, store=None, **spec):
    return Walk(snn, IMAGES, SimulationSpec(T=T, **spec), store, None, backend).simulation()


@pytest.fixture(scope="module")
def plain_run(network, backend):
    """A network of plain neurons, a store, and its run there."""
    base, store = spiking(network), SpikeStore()
    return base, store, run(base, backend, store=store)


EVERYWHERE = ["integrate_and_fire", "signed", "signed_at_zero", "burst_5"]  # the other bursts are like the last


@pytest.mark.parametrize("law", EVERYWHERE)
def test_every_law_on_every_back_end_is_the_slow_loop(network, backend, law):
    snn = spiking(network, law)
    if law == "burst_5" and any(kind == "max_pool" for kind in network.kinds.values()):
        with pytest.raises(SpecError, match="passes spikes of -1, 0 and 1 alone"):
            run(snn, backend)
        return
    ours = run(snn, backend)
    logits, counts, v = simulate_reference(snn, IMAGES, T)
    assert sum(ours.spike_totals.values()) > 300
    for site in counts:
        assert torch.equal(ours.counts[site].double(), counts[site]), site
        assert torch.allclose(ours.v_end[site].double(), v[site], atol=1e-5), site
    assert torch.allclose(ours.logits.double(), logits, atol=1e-5)
    taken_back = sum(int((ours.sent[s] - ours.counts[s]).sum()) for s in counts)
    assert (taken_back > 0) == (law == "signed_at_zero") or law in ("signed", "burst_5")


@pytest.mark.parametrize("law", EVERYWHERE)
def test_back_ends_agree_bit_for_bit(network, backend, law):
    if law == "burst_5" and any(kind == "max_pool" for kind in network.kinds.values()):
        pytest.skip("no bursts into max pools")
    snn = spiking(network, law)
    last = network.sites[-1].name
    record = Record(sites=(last,), neurons=5)
    ours, theirs = run(snn, backend, record=record), run(snn, back_end("cpu"), record=record)
    exact = backend.precision == torch.float32 or "float" not in ours.paths.values()
    assert ours.spike_totals == theirs.spike_totals and ours.paths == theirs.paths
    for site in ours.counts:
        assert torch.equal(ours.counts[site], theirs.counts[site]), site
        assert torch.allclose(ours.v_end[site], theirs.v_end[site], atol=0 if exact else 1e-5), site
    if exact:
        assert torch.equal(ours.logits, theirs.logits)
        assert torch.equal(ours.x[last], theirs.x[last]) and torch.equal(ours.v[last], theirs.v[last])
    assert torch.equal(ours.spikes[last], theirs.spikes[last])
    counted = ours.counts[last].flatten(1)[:, ours.neurons[last]]
    assert torch.equal(ours.spikes[last].sum(0, dtype=torch.int32), counted), "a membrane is the run's own"


@pytest.mark.parametrize("kind", [Residual, Grouped])
def test_differential_coding_is_its_papers_loop_on_every_back_end(kind, backend):
    """Also where a layer runs as traced, whose constants are then taken off step by step; a start of 1/2 as well."""
    torch.manual_seed(1)
    snn = spiking(trace(kind().eval(), IMAGES[:1]), "thresholds_4")
    for start in (0.5,) if backend.name == "cuda" else (0.0, 0.5):
        for name, own in snn.neurons.items():
            snn = with_neurons(snn, name, theta=own.theta / 8, start=ConstantStart(start))
        ours = DifferentialWalk(snn, IMAGES, SimulationSpec(3), None, None, backend).simulation()
        theirs = DifferentialWalk(snn, IMAGES, SimulationSpec(3), None, None, back_end("cpu")).simulation()
        logits, counts = simulate_differential(snn, IMAGES, 3, 4)
        assert any(int((ours.sent[s] > ours.counts[s]).sum()) > 10 for s in counts), "something is taken back"
        for site in counts:
            assert torch.equal(ours.counts[site], theirs.counts[site]), site
            assert torch.allclose(ours.v_end[site], theirs.v_end[site], atol=1e-6 if kind is Residual else 1e-4), site
            assert (ours.counts[site].double() != counts[site]).sum() <= 1, "but for a tie"
        assert torch.allclose(ours.logits.double(), logits, atol=1e-4)


def every_field(site) -> dict[str, dict]:
    """Changes of every field of a site's neurons, in every shape that it may have."""
    C, place = site.channels, (1,) * (len(site.shape) - 1)
    generator = torch.Generator().manual_seed(7)
    spread = torch.rand(site.shape, generator=generator)
    by_channel = torch.rand((C, *place), generator=generator)
    return {
        "law": {"law": SIGNED_AT_ZERO},
        "theta": {"theta": torch.tensor(0.37)},
        "theta by channel": {"theta": 0.2 + by_channel},
        "theta by neuron": {"theta": 0.2 + spread},
        "start": {"start": ConstantStart(0.05)},
        "start at random": {"start": UniformStart(0.0, 1.0, 3)},
        "start by neuron": {"start": spread},
        "start by image": {"start": torch.rand((2, *site.shape), generator=generator)},
        "shift": {"shift": torch.tensor(0.06)},
        "shift by neuron": {"shift": 0.2 * spread - 0.1},
        "shift in time": {"shift": torch.rand((T, C, *place), generator=generator) * 0.3},
        "shift in time by neuron": {"shift": torch.rand((T, *site.shape), generator=generator) * 0.3},
        "amplitude": {"amplitude": torch.tensor(0.29)},
        "amplitude by channel": {"amplitude": 0.2 + by_channel},
        "amplitude by neuron": {"amplitude": 0.2 + spread},
        "gate": {"gate": torch.rand(site.shape, generator=generator) < 0.5},
        "gate by image": {"gate": torch.rand((2, *site.shape), generator=generator) < 0.5},
    }


def test_every_field_is_in_the_list(network):
    assert {next(iter(change)) for change in every_field(network.sites[0]).values()} == {
        f.name for f in fields(Neurons)
    }


@pytest.mark.parametrize("what", list(every_field(type("S", (), {"channels": 2, "shape": (2,)})())))
def test_every_field_changes_the_digest_and_the_spikes_and_the_store_is_never_stale(network, backend, plain_run, what):
    """Fields one by one, at a site that a layer of taps reads, on a store that has seen the runs without them."""
    site = network.sites[1 if len(network.sites) == 3 else 2]
    if what == "start at random" and backend.name == "cuda":
        pytest.skip("drawn on the host, as for the others")
    base, store, before = plain_run
    changed = with_neurons(base, site.name, **every_field(site)[what])
    after, fresh = run(changed, backend, store=store), run(changed, backend)
    assert changed.neurons[site.name].digest != base.neurons[site.name].digest
    moved = not torch.equal(before.logits, after.logits)
    assert moved or not torch.equal(before.counts[site.name], after.counts[site.name])
    for name in after.counts:
        assert torch.equal(after.counts[name], fresh.counts[name]), name
        assert torch.equal(after.v_end[name], fresh.v_end[name]), name
    assert torch.equal(after.logits, fresh.logits)
    if what != "start at random":
        logits, counts, _ = simulate_reference(changed, IMAGES, T)
        wrong = sum(int((after.counts[s].double() != counts[s]).sum()) for s in counts if s != site.name)
        assert wrong <= 1, "but for a tie"
        assert torch.allclose(after.logits.double(), logits, atol=1e-5) or wrong


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1.5, 1.5), min_size=1, max_size=30), st.floats(0.2, 1.5), st.floats(-0.2, 1.0))
@pytest.mark.parametrize("law", list(LAWS))
def test_a_law_is_its_neuron(law, x, theta, share):
    own = LAWS[law]
    spikes, potentials = NEURONS[law](x, theta, share * theta)
    current = torch.tensor(x, dtype=torch.float64)[:, None]
    theta_, start = (torch.tensor([value], dtype=torch.float64) for value in (theta, share * theta))
    bits, v, m = law_scan(own, current, start, theta_)
    z = sum(n * bit.int() for n, bit in zip(own.planes, bits, strict=True))[:, 0]
    assert z.tolist() == spikes
    assert float(v) == (pytest.approx(potentials[-1], abs=1e-12) if law.startswith("burst") else potentials[-1])
    if own.memory:
        assert float(m) == sum(spikes) >= 0
    steps, state = own.rebound(np.where), (share * theta, 0.0)
    for t, current_ in enumerate(x):
        bits, *state = steps(*state, current_, theta)
        assert sum(n * bool(bit) for n, bit in zip(own.planes, bits, strict=True)) == spikes[t]


def test_by_hand_a_signed_neuron_takes_back_what_it_sent_too_early():
    """theta 1, start 0: the input comes early and is taken back; what is left is worth one spike."""
    x = [1.0, 1.0, -1.2, -0.5, 0.9, 0.0]
    assert NEURONS["signed"](x, 1.0, 0.0)[0] == [1, 1, -1, 0, 0, 0]
    assert NEURONS["signed_at_zero"](x, 1.0, 0.0)[0] == [1, 1, -1, -1, 1, 0]
    assert NEURONS["integrate_and_fire"](x, 1.0, 0.0)[0] == [1, 1, 0, 0, 0, 0]
    for law in LAWS:
        bits, _, _ = law_scan(LAWS[law], torch.tensor(x)[:, None], torch.zeros(1), torch.ones(1))
        z = sum(n * bit.int() for n, bit in zip(LAWS[law].planes, bits, strict=True))[:, 0]
        assert z.tolist() == NEURONS[law](x, 1.0, 0.0)[0]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-0.9, 0.99), min_size=2, max_size=40), st.randoms())
def test_taking_back_at_zero_makes_the_count_free_of_order(x, random):
    """n = max(0, floor(charge)) at the end, if what is left can still be taken back, in whatever order it came."""
    x = [round(value, 3) for value in x]
    settle = [0.0] * len(x)  # silent steps in which the rest is taken back
    counts = []
    for _ in range(2):
        random.shuffle(x)
        spikes, potentials = NEURONS["signed_at_zero"]([*x, *settle], 1.0, 0.5)
        counts.append(sum(spikes))
        if sum(spikes) > 0:
            assert -1e-9 <= potentials[-1] < 1 + 1e-9
    charge = 0.5 + sum(x)
    if abs(charge - round(charge)) > 1e-6:
        assert counts == [max(0, int(np.floor(charge)))] * 2


def test_a_law_knows_its_reach_and_its_name():
    assert LAWS["integrate_and_fire"].reach == (0, 1) and LAWS["signed"].reach == (-1, 1)
    burst = Law("burst", "Bursts", lambda v, m, x, theta: None, planes=(1, 2, 4), exclusive=False)
    assert burst.reach == (0, 7)
    assert len({law.digest for law in LAWS.values()}) == len(LAWS)
    with pytest.raises(SpecError, match=r"no spiking law\. Choose one of integrate_and_fire"):
        law_named("leaky")


def test_a_longer_run_goes_on_from_what_is_kept_whatever_the_law(network, backend):
    if backend.name == "cuda":
        pytest.skip("33 steps take the interpreter minutes")
    snn, store = spiking(network, "signed_at_zero"), SpikeStore()
    run(snn, backend, 32, store)
    longer, fresh = run(snn, backend, 40, store), run(snn, backend, 40)
    assert torch.equal(longer.logits, fresh.logits) and longer.spike_totals == fresh.spike_totals
    for site in fresh.counts:
        assert torch.equal(longer.counts[site], fresh.counts[site])


def test_what_does_not_fit_is_refused(network):
    snn, site = spiking(network), network.sites[1]
    for change, words in (
        ({"theta": torch.tensor(-1.0)}, "above 0"),
        ({"amplitude": torch.tensor(float("nan"))}, "must be finite"),
        ({"theta": torch.ones(7, 7)}, "does not fit neurons"),
        ({"shift": torch.zeros(T + 1, *site.shape)}, f"the shift has {T + 1} steps, the run {T}"),
    ):
        with pytest.raises(SpecError, match=words):
            replace(snn.neurons[site.name], **change).check(site, T)
    timed = with_neurons(snn, site.name, shift=torch.zeros(T + 1, *site.shape))
    with pytest.raises(SpecError, match=f"the shift has {T + 1} steps"):
        run(timed, back_end("cpu"))


def test_spread_amplitudes_take_the_float_path_and_say_so(network):
    site = network.sites[1 if len(network.sites) == 3 else 2]
    spread = with_neurons(spiking(network), site.name, amplitude=0.2 + torch.rand(site.shape))
    assert "float" in run(spread, back_end("cpu")).paths[network.sites[-1].name]


def test_memory_running_out_halves_the_chunk():
    torch.manual_seed(1)
    traced = trace(Residual().eval(), IMAGES[:1])
    snn, sizes = spiking(traced), []
    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    class Tight(Walk):
        most = 2

        def simulation(self):
            sizes.append(len(self.images))
            if len(self.images) > self.most:
                raise (torch.OutOfMemoryError if len(sizes) % 2 else MemoryError)("full")
            return super().simulation()

    parts = list(_chunks(snn, images, SimulationSpec(T=3, chunk=5), back_end("cpu"), None, None, Tight))
    assert sizes == [5, 2, 2, 1] and sum(part.images for part in parts) == 5
    Tight.most = 0
    with pytest.raises(SpecError, match="Not even one image fits"):
        list(_chunks(snn, images, SimulationSpec(T=3), back_end("cpu"), None, None, Tight))


def test_packed_bits_come_back():
    z = torch.rand(3, 5, 48, generator=torch.Generator().manual_seed(0)) < 0.3
    packed = pack_bits(z)
    assert packed.shape == (3, 5, 6) and packed.dtype == torch.uint8
    assert torch.equal(unpack_bits(packed), z)
    assert np.array_equal(packed.numpy(), np.packbits(z.numpy(), axis=2, bitorder="little"))


def test_four_digits_hold_an_integer():
    from explorer.engine.kernels.cuda.backend import int8_digits

    edge = [-(2**31) + 1, 2**31 - 1, 2**31 - 128, -1, 0, 127, 128, -128, -129]
    rows = np.concatenate([np.array(edge), np.random.default_rng(0).integers(-(2**31) + 1, 2**31, 1000)]).astype(
        np.int32
    )
    digits = int8_digits(rows[None]).astype(np.int64)
    total = sum(int(256**k) * digits[k] for k in range(4))
    assert np.array_equal(((total + 2**31) % 2**32 - 2**31)[0], rows)


PTX = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from explorer.engine.kernels.cuda import scan
from explorer.engine.neurons import LAWS
kinds = {"spikes": "*u8", "out": "*u8", "taps": "*i64", "digits": "*i8"}
kinds |= dict.fromkeys(("scale", "const", "theta", "v", "m", "x", "x_out"), "*fp32")
for kernel, lanes in ((scan.taps_kernel, 64), (scan.taps_kernel, 16), (scan.given_kernel, 32)):
    for arch, law in ((80, "integrate_and_fire"), (90, "signed")):
        fixed = {"LAW": scan.compiled_law(law), "PLANES": len(LAWS[law].planes), "MEMORY": LAWS[law].memory}
        fixed |= {"TIMED": False, "SPIKING": True, "BM": scan.BM, "BN": lanes, "BK": scan.BK}
        fixed = {name: value for name, value in fixed.items() if name in kernel.arg_names}
        signature = {n: "constexpr" if n in fixed else kinds.get(n, "i32") for n in kernel.arg_names}
        source = ASTSource(kernel, signature, {(kernel.arg_names.index(n),): v for n, v in fixed.items()})
        ptx = triton.compile(source, GPUTarget("cuda", arch, 32), {"enable_fp_fusion": False}).asm["ptx"]
        assert f"sm_{arch}" in ptx and "fma.rn.f32" not in ptx
        assert kernel is scan.given_kernel or ".s8" in ptx, "sums of integers run on tensor cores"
        print("compiled", arch, law)
"""


def test_the_kernels_compile_for_gpus_without_one():
    pytest.importorskip("triton")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(Path(__file__).parent.parent)
    done = subprocess.run([sys.executable, "-c", PTX], env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.count("compiled") == 6, done.stderr[-2000:]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestOnADevice:
    def test_a_shipped_network_gives_the_cpus_spikes(self):
        from explorer.engine import simulate
        from explorer.zoo.data import Embedded, load_images
        from explorer.zoo.images import normalise
        from explorer.zoo.registry import load

        net, card = load("resnet20-relu")
        images = normalise(load_images(Embedded(), card, n=64).images, card)
        traced = trace(net, images[:1])
        snn = convert(traced, calibrate(traced, images))
        ours, theirs = (simulate(snn, images, SimulationSpec(T=32, device=where)) for where in ("cuda", "cpu"))
        differ = sum(int((ours.counts[s] != theirs.counts[s]).sum()) for s in ours.counts)
        assert differ <= 1e-6 * sum(ours.spike_totals.values()), "but for the rounding of the first layer's constant"

    def test_flags_of_the_process_stay(self):
        before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        torch.manual_seed(1)
        run(spiking(trace(Mixed().eval(), IMAGES[:1])), back_end("cuda"))
        assert before == (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
