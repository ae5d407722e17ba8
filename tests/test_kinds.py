"""Whatever people bring: converted exactly, or refused for the true reason."""

from __future__ import annotations

import copy

import pytest
import torch

from explorer.engine import (
    CalibrationSpec,
    ConversionSpec,
    ExplorerError,
    MaxActivation,
    SimulationSpec,
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
