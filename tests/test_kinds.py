"""Whatever people bring: converted exactly, or refused for the true reason."""

from __future__ import annotations

import copy
import threading

import pytest
import torch

from explorer.engine import (
    CalibrationSpec,
    ConversionSpec,
    ExplorerError,
    MaxActivation,
    SimulationSpec,
    TraceError,
    calibrate,
    convert,
    simulate,
    trace,
)
from tests import kinds
from tests.networks import images
from tests.test_networks import gaps, relative_gap

ROUNDED = {"autocast inside": 2e-2, "half and double inside": 1e-3}  # what they compute in is coarser than float32
TOLD = {*ROUNDED, "double", "half", "bfloat16"}


@pytest.mark.parametrize("kind", kinds.CONVERTS)
def test_it_converts_exactly(kind):
    net, x = kinds.make(kinds.CONVERTS[kind]), images(8)
    dtype = next((p.dtype for p in net.parameters()), torch.float32)
    with torch.no_grad():
        expected = copy.deepcopy(net).float()(x) if dtype != torch.float32 else net(x.clone())
    network = trace(net, x[:1])
    assert not network.unsupported
    tolerance = ROUNDED.get(kind, 1e-5)
    assert relative_gap(network.forward(x), expected) <= tolerance
    assert relative_gap(network.forward(x[:1]), expected[:1]) <= tolerance
    assert any("taken as float32" in row.note or "left out" in row.note for row in network.rows) == (kind in TOLD)
    early, middle, late = gaps(network, x, (8, 32, 128))
    assert late < middle < early and late < 0.1
    assert all((a > 0).any() for a in network.activations(x).values()), "a silent site would prove nothing"
    _require_equal_paths(network, x)


def _require_equal_paths(network, x):
    snn = convert(network, calibrate(network, x, CalibrationSpec(MaxActivation("channel"))), ConversionSpec())
    exact, plain = (
        simulate(snn, x[:4], SimulationSpec(T=8, integer=integer, device="cpu")) for integer in (True, False)
    )
    for name in exact.counts:
        assert (exact.counts[name] != plain.counts[name]).float().mean() < 0.004, name
    assert torch.allclose(
        exact.logits[-1], plain.logits[-1], rtol=1e-2, atol=2e-2 * float(plain.logits[-1].abs().max())
    )


@pytest.mark.parametrize("kind", kinds.REFUSED)
def test_it_is_refused_for_the_true_reason(kind):
    build, words = kinds.REFUSED[kind]
    net, x = kinds.make(build), images(4)
    with pytest.raises(ExplorerError, match=words):
        network = trace(net, x[:1])
        convert(network, calibrate(network, x))


CLIPS = [
    "clamp between stored bounds",
    "minimum of rectifier and bound",
    "rectifier of minimum",
    "two rectifiers",
    "difference of rectifiers",
    "difference of a rectifier and its own",
    "a bound a channel",
    "clip with a gradient of its own",
]


@pytest.mark.parametrize("kind", CLIPS)
def test_a_rectifier_with_a_stored_bound_is_one_site_with_a_trained_clip(kind):
    network = trace(kinds.make(kinds.CONVERTS[kind]), images(1))
    first, second = network.sites
    assert first.trained_clip and first.cap == pytest.approx(1.0 if kind == "a bound a channel" else 0.8)
    assert not second.trained_clip and second.cap is None


@pytest.mark.parametrize("own_module", [False, True])
def test_an_exported_program_is_read_under_the_names_of_its_modules(own_module):
    net, x = kinds.make(kinds.CONVERTS["threshold"]), images(4)
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(net, (x[:2],), dynamic_shapes=shapes)
    network = trace(program.module() if own_module else program, x[:1])
    assert [s.shape for s in network.sites] == [s.shape for s in trace(net, x[:1]).sites]
    assert "act" in network.site_nodes
    with torch.no_grad():
        assert relative_gap(network.forward(x), net(x)) <= 1e-5


def test_a_program_for_one_number_of_images_is_refused_with_the_mend():
    program = torch.export.export(kinds.make(kinds.CONVERTS["threshold"]), (images(4),))
    with pytest.raises(TraceError, match=r"exported for a fixed number of images.*dynamic_shapes"):
        trace(program.module(), images(1))


def test_a_network_is_read_by_its_own_thread_alone():
    """Nothing is patched: networks that run elsewhere at the same time are not written down, and not disturbed."""
    nets, x = [kinds.make(kinds.CONVERTS[kind]) for kind in ("threshold", "in place", "tokens")], images(4)
    with torch.no_grad():
        expected = [net(x.clone()) for net in nets]
    faults: list[Exception] = []

    def work(net, scores):
        try:
            for _ in range(5):
                assert relative_gap(trace(net, x[:1]).forward(x), scores) <= 1e-5
                with torch.no_grad():
                    assert torch.equal(net(x.clone()), scores)
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(nets, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
