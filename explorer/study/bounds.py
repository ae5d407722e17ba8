"""What is certain in a box of inputs around the chosen image: per site, bounds against thresholds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from explorer.study.case import case
from explorer.study.settings import Settings

SAMPLES = 16


@dataclass(frozen=True)
class SiteBounds:
    """Shares of a site's neurons, 0 to 1: `unclipped` never exceed theta, `silent` are never above 0, `active` always.

    width: mean of upper less lower bound, in thetas; looseness: that width over the one seen among sampled inputs.
    """

    name: str
    unclipped: float
    silent: float
    active: float
    width: float
    looseness: float


@dataclass(frozen=True)
class Certainty:
    """What holds of the ANN in the box. margin: the least lead of the class at its centre, in score units."""

    sites: tuple[SiteBounds, ...]
    chosen: int
    certain: bool
    margin: float
    samples: int


def certainty(settings: Settings, radius: float, stop: Callable[[], bool] | None = None) -> Certainty:
    """Bound the network for all inputs whose pixels differ by at most `radius` of 255 levels from the chosen image's.

    Raises:
        ExplorerError: the network or image cannot be had, or a call of the network has no rule.
    """
    import torch

    from explorer.engine.bounds import bounds, sampled

    here = case(settings, stop)
    x = here.pictures.inputs(settings.image, settings.image + 1).double()
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, -1, 1, 1) for v in (here.card.mean, here.card.std))
    step = radius / 255 / std
    lower, upper = torch.maximum(x - step, torch.minimum(x, -mean / std)), torch.minimum(x + step, (1 - mean) / std)
    upper = torch.maximum(upper, x)
    found = bounds(here.network, lower, upper)
    seen = sampled(here.network, lower, upper, SAMPLES)
    rows = tuple(_row(name, each, seen[name], here.snn.theta[name].double()) for name, each in found.sites.items())
    return Certainty(rows, int(found.chosen), bool(found.certain), float(found.margin.min()), SAMPLES)


def _row(name: str, found: Any, seen: Any, theta: Any) -> SiteBounds:
    def share(which: Any) -> float:
        return float(which.double().mean())

    width, tried = (found.upper - found.lower).mean(), (seen.upper - seen.lower).mean()
    return SiteBounds(
        name,
        share(found.upper <= theta),
        share(found.upper <= 0),
        share(found.lower > 0),
        float(((found.upper - found.lower) / theta).mean()),
        float(width / tried) if tried > 0 else 1.0,
    )
