"""SpikingJelly's own recipes beside ours: the same weights and images give the same spikes, but for rounding."""

from __future__ import annotations

import pytest
import torch

from explorer.engine import trace

pytest.importorskip("spikingjelly")
from benchmarks.spikingjelly import both

nn = torch.nn


class Small(nn.Module):
    """A shortcut and an average pool, rectifiers as modules, as SpikingJelly wants them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(32, 5)
        self.f, self.g, self.pool = nn.ReLU(), nn.ReLU(), nn.AvgPool2d(4)

    def forward(self, x):
        x = self.f(self.a(x))
        return self.out(torch.flatten(self.pool(self.g(self.b(x) + x)), 1))


@pytest.mark.parametrize("recipe", ["half", "balanced"])
def test_the_same_spikes_as_spikingjellys_own_recipe(recipe):
    torch.manual_seed(2)
    model = Small().eval()
    training, images = torch.randn(40, 3, 8, 8), torch.randn(6, 3, 8, 8)
    network = trace(model, images[:1])
    pair = both(recipe, model, network, training, images, 12, updates=7)
    assert sum(int(a.sum()) for a, _ in pair.counts.values()) > 3000 and len(pair.counts) == 2
    assert pair.different < 0.002
    assert torch.allclose(*pair.scores, atol=0.01)
    other = both("balanced" if recipe == "half" else "half", model, network, training, images, 12, updates=7)
    assert (other.counts["f"][0] != pair.counts["f"][1]).float().mean() > 0.02, "another rule gives other spikes"
