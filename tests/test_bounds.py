"""Certified bounds: they hold for every input tried, are tight where they can be, and say when a class is certain."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from explorer.engine import QuantisedClip, SpecError, TrainableClip, trace
from explorer.engine.bounds import bounds, sampled
from explorer.engine.errors import UnsupportedLayerError

nn = torch.nn
IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(4))


class Small(nn.Module):
    """A shortcut, max and average pools, a difference, and a factor."""

    def __init__(self, activation=nn.ReLU) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.f, self.g, self.h = activation(), activation(), activation()
        self.pool, self.out = nn.AvgPool2d(2), nn.Linear(8 * 4, 5)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.f(self.a(x)), 2)
        x = self.g(self.b(x) - 0.5 * x)
        return self.out(torch.flatten(self.pool(self.h(self.c(x) + 0.1)), 1))


def network_of(activation=nn.ReLU):
    torch.manual_seed(1)
    return trace(Small(activation).eval(), IMAGES[:1])


NETWORKS = {
    "plain": network_of(),
    "clip": network_of(lambda: TrainableClip(0.6)),
    "quantised": network_of(lambda: QuantisedClip(0.6, 4)),
}


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(sorted(NETWORKS)), st.sampled_from([0.0, 1e-9, 1e-3, 0.05, 1.0]), st.integers(0, 99))
def test_bounds_hold_for_every_input_tried(kind, radius, seed):
    network, x = NETWORKS[kind], IMAGES[:1].double()
    found = bounds(network, x - radius, x + radius)
    tried = sampled(network, x - radius, x + radius, 12, seed)
    for site in network.sites:
        inside, outside = tried[site.name], found.sites[site.name]
        assert (outside.lower <= inside.lower).all() and (inside.upper <= outside.upper).all(), site.name
        if radius == 0:
            assert float((outside.upper - outside.lower).max()) < 1e-6
    points = x + radius * (2 * torch.rand(6, *x.shape[1:], dtype=torch.float64) - 1)
    scores = bounds(network, points, points).scores
    assert (found.scores.lower <= scores.upper).all() and (scores.lower <= found.scores.upper).all()
    if bool(found.certain):
        assert (scores.lower.argmax(1) == found.chosen).all()


def test_bounds_of_one_layer_are_met_by_a_corner():
    """Of the first site the bounds are exact: the corner that the weights' signs name reaches them."""
    network, radius = NETWORKS["plain"], 0.1
    x, name = IMAGES[:1].double(), NETWORKS["plain"].sites[0].name
    found = bounds(network, x - radius, x + radius).sites[name]
    weight = network.graph_module.get_submodule("a").weight.double()
    best = x.clone()
    best[:, :, 2:5, 2:5] += radius * weight[0].sign()  # what neuron (0, 3, 3) reads
    reached = sampled(network, best, best, 1)[name].upper[0, 0, 3, 3]
    assert float(found.upper[0, 0, 3, 3]) == pytest.approx(float(reached), abs=1e-9)


def test_a_class_is_certain_in_a_small_box_and_not_in_a_large_one():
    network, x = NETWORKS["plain"], IMAGES.double()
    small, large = (bounds(network, x - r, x + r) for r in (1e-6, 2.0))
    assert small.certain.all() and not large.certain.any()
    assert small.chosen.tolist() == network.forward(IMAGES).argmax(1).tolist()
    for k, one in enumerate(small.chosen):
        assert torch.isinf(small.margin[k, one])
        apart = small.scores.lower[k, one] - small.scores.upper[k]
        assert (small.margin[k] >= apart - 1e-9)[torch.arange(5) != one].all(), "no worse than bounds of single scores"


def test_what_has_no_bounds_is_refused():
    network, x = NETWORKS["plain"], IMAGES[:1].double()
    with pytest.raises(SpecError, match="lower must be at most upper"):
        bounds(network, x + 1, x)

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.out = nn.Conv2d(3, 4, 3), nn.Linear(144, 2)

        def forward(self, x):
            x = torch.relu(self.a(x))
            return self.out(torch.einsum("bchw->bcwh", x).flatten(1))

    with pytest.raises(UnsupportedLayerError, match="bounds have no rule for einsum"):
        bounds(trace(Odd().eval(), IMAGES[:1]), x, x + 1)
