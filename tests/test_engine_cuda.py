"""The CUDA path where there is no GPU: its arithmetic on the CPU, its kernel in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_engine_laws import IMAGES, warmed
from test_engine_store import Pooled, equal

from explorer.engine import ConversionSpec, Record, SimulationSpec, SpikeStore, calibrate, convert, simulate, trace
from explorer.engine.cuda import pack, simulate_on_cuda, split_tf32, unpack
from explorer.engine.plan import plan_for
from explorer.engine.result import Simulation
from explorer.zoo.resnet import CifarResNet

KERNEL_CHECK = """
import torch
from explorer.engine.kernels.torch_backend import if_scan as reference
from explorer.engine.kernels.triton_scan import if_scan
x = torch.randn(9, 3, 5, 7, 6, generator=torch.Generator().manual_seed(0))
theta = torch.tensor([0.5, 1.0, 1.5, 2.0, 0.3])
v = (theta / 2)[None, :, None, None].expand(3, 5, 7, 6).contiguous()
z, after = reference(x, v.clone(), theta[:, None, None])
mine = if_scan(x, v, theta)
assert z.sum() > 500
assert torch.equal(mine.bool(), z) and torch.equal(v, after)
print("same spikes")
"""


def test_the_triton_kernel_equals_the_reference_in_interpreter_mode():
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", KERNEL_CHECK], env=environment, capture_output=True, text=True, timeout=120
    )
    assert "same spikes" in done.stdout, done.stderr[-2000:]


def test_two_tf32_numbers_hold_a_float32():
    w = torch.randn(10_000, generator=torch.Generator().manual_seed(0)) * 3
    high, low = split_tf32(w)
    for part in (high, low):
        assert ((part.view(torch.int32) & 8191) == 0).all()
    assert float(((high.double() + low.double() - w.double()) / w.double()).abs().max()) < 2**-21


@pytest.mark.parametrize("make", [lambda: warmed(CifarResNet(1, 10, torch.nn.ReLU)), lambda: Pooled().eval()])
def test_the_device_path_tells_the_same_story(make):
    torch.manual_seed(0)
    network = trace(make(), IMAGES[:1])
    snn = convert(network, calibrate(network, IMAGES))
    spec = SimulationSpec(T=40, chunk=3)
    theirs = Simulation.merge(list(simulate_on_cuda(snn, IMAGES, spec, device="cpu")))
    ours = simulate(snn, IMAGES, SimulationSpec(T=40))
    for name in ours.counts:
        assert (ours.counts[name] == theirs.counts[name]).double().mean() > 0.97, name
    assert torch.allclose(ours.logits[-1], theirs.logits[-1], atol=0.1 * float(ours.logits[-1].abs().max()))


def test_memory_running_out_halves_the_chunk(monkeypatch):
    from explorer.engine import cuda

    network = trace(CifarResNet(1, 10, torch.nn.ReLU).eval(), IMAGES[:1])
    snn = convert(network, calibrate(network, IMAGES))
    sizes = []

    class Tight(cuda._DeviceRun):
        def simulation(self):
            sizes.append(len(self.images))
            if len(self.images) > 2:
                raise torch.OutOfMemoryError("full")
            return super().simulation()

    monkeypatch.setattr(cuda, "_DeviceRun", Tight)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    spec = SimulationSpec(T=3, chunk=5, record=Record(counts=False, v_end=False))
    parts = list(simulate_on_cuda(snn, IMAGES, spec, device="cpu"))
    assert sizes == [5, 2, 2, 1]
    assert Simulation.merge(parts).images == 5


def test_packed_spikes_come_back():
    z = (torch.rand(21, 3, 5, 7, generator=torch.Generator().manual_seed(0)) < 0.3).to(torch.uint8)
    packed = pack(z)
    assert packed.shape == (3, 105) and packed.dtype.name == "uint8"
    assert torch.equal(unpack(packed, 21, "cpu"), z.flatten(1))


def watched(monkeypatch):
    """Return a list that grows by the sites each device run computes."""
    from explorer.engine import cuda

    computed = []

    class Watched(cuda._DeviceRun):
        def _computed(self, site, *rest):
            computed.append(site.name)
            return super()._computed(site, *rest)

    monkeypatch.setattr(cuda, "_DeviceRun", Watched)
    return computed


@pytest.mark.parametrize("make", [lambda: warmed(CifarResNet(1, 10, torch.nn.ReLU)), lambda: Pooled().eval()])
def test_kept_spikes_on_the_device_never_change_a_result(make, monkeypatch):
    torch.manual_seed(0)
    network = trace(make(), IMAGES[:1])
    calibration = calibrate(network, IMAGES)
    names = [site.name for site in network.sites]
    computed, store = watched(monkeypatch), SpikeStore()

    def run(T, store, site=None, **changes):
        snn = convert(network, calibration, ConversionSpec().with_site(site, **changes) if site else ConversionSpec())
        spec = SimulationSpec(T=T, chunk=3)
        return Simulation.merge(list(simulate_on_cuda(snn, IMAGES, spec, store=store, device="cpu")))

    plain, late = {}, {"site": names[-1], "v_init": 0.1}
    for T, changes, expected in (
        (40, plain, set(names)),
        (40, plain, set()),
        (40, late, {names[-1]}),
        (20, plain, set(names)),  # a block of 20 steps is another than the first 32 of 40
        (40, {"site": names[0], "threshold_scale": 0.8}, set(names)),
    ):
        computed.clear()
        kept = run(T, store, **changes)
        assert set(computed) == expected
        equal(kept, run(T, None, **changes))
    if not plan_for(network, False).one_block:
        computed.clear()
        equal(run(72, store), run(72, None))
        assert len(computed) == 2 * 2 * len(names) + 2 * 3 * len(names), "only the blocks after the first 32 steps"
    store.budget_bytes = 10_000
    equal(run(40, store), run(40, None))
